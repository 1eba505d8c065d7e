"""`timm-3g figure1`: every figure against scipy, numpy or the model run by hand; CSVs, pictures, and what is left out."""

import csv
import io
import sys
from contextlib import redirect_stdout
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import timm
import torch
from common import EXACT, SMALL, image_folder
from matplotlib.figure import Figure
from PIL import Image
from timm.data import create_transform, resolve_data_config
from tqdm import tqdm

from timm_3g.__main__ import main
from timm_3g.figure1 import Figure1Options, Finding
from timm_3g.figure1 import densities as _figure1_densities
from timm_3g.figure1 import figure1 as run_figure1
from timm_3g.figure1 import heldout as _figure1_heldout
from timm_3g.figure1.activations import Activations, Recorder, default_layers
from timm_3g.figure1.agreement import misfit, rank_correlation
from timm_3g.figure1.chain import chain_of
from timm_3g.figure1.densities import draw_densities
from timm_3g.figure1.figure1 import write_part
from timm_3g.figure1.heldout import compare, gaussian_like
from timm_3g.figure1.tables import write_csv
from timm_3g.utils.files import save_figure

DIM = 6
LAYERS = ['global_pool.reduce.bn', 'global_pool.reduce']
QUICK = ['--groups', '2', '--dim', '3', '--device', 'cpu', '-j', '0']
DRAW_ONE = ['--channels', 1]  # drawing takes time

# Two maximisers of one likelihood: their parameters differ by 1e-5 or so, the likelihood at its maximum by the square.
MAXIMUM = {'rtol': 0, 'atol': 1e-6}
# What CSVs keep: six digits.
CSV = {'rtol': 1e-5, 'atol': 1e-6}
# Through the estimator, whose steps end at a residual of 1e-10, and sqrt(1 - cos^2).
FIXED_POINT = {'rtol': 1e-6, 'atol': 1e-7}
FLOAT32_SPECTRUM = {'rtol': 1e-3, 'atol': 1e-5}


def tiny(name=SMALL, **options):
    """A model with random weights; every BatchNorm has statistics of its own."""
    model = timm.create_model(name, num_classes=3, **options).eval()
    for key, buffer in model.named_buffers():
        if key.endswith('running_mean'):
            buffer.normal_(0, 0.1)
        elif key.endswith('running_var'):
            buffer.uniform_(0.5, 2.0)
    return model


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """A function: the arguments that load such a model, and the model, built once for each name and options."""
    folder = tmp_path_factory.mktemp('weights')

    @cache
    def build(name=SMALL, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = tiny(name, **options)
        file = folder / f'{name}{len(list(folder.iterdir()))}.pth'
        torch.save(model.state_dict(), file)
        given = ['--model-kwargs', *(f'{key}={value}' for key, value in options.items())] if options else []
        return [name, '--checkpoint', file, '--num-classes', 3, *given], model

    return build


@pytest.fixture(autouse=True)
def _no_rendering(monkeypatch):
    """Pictures are drawn, but not rendered, which takes a second each. Those of `whole` are."""
    monkeypatch.setattr(sys.modules['timm_3g.figure1.figure1'], 'save_figure', lambda figure, file: file.touch())


def figure1(arguments, images, output, *options):
    model, *rest = arguments
    return main(['figure1', *map(str, (model, *images, *rest, *QUICK, '--output', output, *options))])


def read(file):
    with file.open(newline='') as lines:
        return list(csv.DictReader(lines))


def column(rows, name):
    return np.array([float(row[name]) for row in rows])


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Four files, in order."""
    return sorted(image_folder(tmp_path_factory.mktemp('figure1'), {'images': 2}, classes=2).rglob('*.png'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory, images, saved):
    """The verb, once, all parts: folder, what it printed, the model, its input."""
    root = tmp_path_factory.mktemp('whole')
    arguments, model = saved(reduce_dim=DIM)
    with redirect_stdout(io.StringIO()) as out:
        assert figure1(arguments, [images[0].parents[1]], root / 'out', '-b', 3, '--channels', 0, 3) == 0
    transform = create_transform(**resolve_data_config({}, model=model))
    return root / 'out', out.getvalue(), model, torch.stack([transform(Image.open(f).convert('RGB')) for f in images])


@pytest.fixture
def error_of(tmp_path, images, capsys, saved):
    """Run with bad arguments; the message."""

    def run(*options, arguments=None, files=None):
        arguments = arguments or saved(reduce_dim=DIM)[0]
        assert figure1(arguments, files or images[:2], tmp_path / 'out', *options) == 1
        return capsys.readouterr().err.split('timm-3g figure1: ')[-1]

    return run


def by_hand(model, pixels):
    """Features, the head's activations before and after its ReLU, and its weights w: (M, C, N) each."""
    with torch.no_grad():
        features = model.forward_features(pixels)
        pool = model.global_pool
        before = pool.reduce.bn(pool.reduce.conv(features))
        x = x_hat = before.relu()
        weights = []
        for block in getattr(pool, 'reweight', []):
            weights.append(block.weight(x_hat, x))
            x_hat = weights[-1] * x_hat
    return [t.flatten(2) for t in (features, before, x, torch.cat(weights, 1) if weights else x[:, :0])]


# Held-out log-likelihood ----------------------------------------------------------------------------------------------


def fit_gennorm(x):
    """Maximum likelihood at the sample mean: scipy's (p, loc, scale) by a search over log(p); NaN without a maximum."""
    loc = x.mean()

    def scale_of(p):
        return (p * (np.abs(x - loc) ** p).mean()) ** (1 / p)

    def loss(t):
        return -scipy.stats.gennorm.logpdf(x, np.exp(t), loc, scale_of(np.exp(t))).mean()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-2, np.log(128)), method='bounded', options={'xatol': 1e-9})
    p = np.exp(best.x)
    return (p, loc, scale_of(p)) if p < 127 and best.fun < loss(np.log(128)) else (np.nan,) * 3


@pytest.mark.parametrize('name, shape', [('laplace', 0.5), ('normal', 1.0), ('light', 2.0)])
def test_gain_and_shape_of_known_distributions(name, shape):
    """The gain is the entropy of the Gaussian of the same variance minus that of the distribution."""
    rng = np.random.default_rng(1)
    exact = scipy.stats.gennorm(2 * shape)
    x = torch.from_numpy(exact.rvs((2, 4, 4000, 1), random_state=rng) * 3 + 5)
    found = compare(x[0], x[1])
    gain = scipy.stats.norm(0, exact.std()).entropy() - exact.entropy()
    assert gain < 1e-12 if name == 'normal' else gain > 0.02
    assert bool(found.fitted.all())
    np.testing.assert_allclose(found.shape.mean(), shape, rtol=0.05)
    np.testing.assert_allclose((found.generalized - found.gaussian).mean(), gain, atol=0.005)
    np.testing.assert_allclose(found.generalized.mean(), -exact.entropy() - np.log(3), atol=0.02)


def test_one_dimension_is_scipys():
    """Fitted on one half, weighed on the other, both ways; float32 samples as activations are."""
    rng = np.random.default_rng(2)
    x = (rng.standard_t(5, (2, 3, 150, 1)) * 0.1 + [[[0.0]], [[3.0]], [[-20.0]]]).astype(np.float32)
    found = compare(*torch.from_numpy(x))
    for s in range(3):
        gaussian, generalized, log_shape = [], [], []
        for train, test in ((x[0, s, :, 0], x[1, s, :, 0]), (x[1, s, :, 0], x[0, s, :, 0])):
            train, test = train.astype(float), test.astype(float)
            gaussian.append(scipy.stats.norm.logpdf(test, train.mean(), train.std()).mean())
            p, loc, scale = fit_gennorm(train)
            generalized.append(scipy.stats.gennorm.logpdf(test, p, loc, scale).mean())
            log_shape.append(np.log(p / 2))
        np.testing.assert_allclose(found.gaussian[s], np.mean(gaussian), **EXACT)
        np.testing.assert_allclose(found.generalized[s], np.mean(generalized), **MAXIMUM)
        np.testing.assert_allclose(found.shape[s].log(), np.mean(log_shape), atol=1e-5)


def test_two_dimensions_are_scipys():
    """The Gaussian is multivariate_normal; the other is eq. (1) of the paper, maximised by BFGS over scatter and shape."""
    rng = np.random.default_rng(3)
    x = rng.standard_t(4, (2, 120, 2)) @ np.array([[2.0, 0.3], [-0.7, 0.1]]) + [1.0, -2.0]

    def log_density(difference, p):
        tril = np.array([[np.exp(p[0]), 0], [p[1], np.exp(p[2])]])
        beta = np.exp(p[3])
        u = np.square(np.linalg.solve(tril, difference.T)).sum(0)
        return p[3] - np.log(np.pi) - scipy.special.gammaln(1 / beta) - np.log(2) / beta - p[0] - p[2] - 0.5 * u**beta

    gaussian, generalized = [], []
    for train, test in (x, x[::-1]):
        mean = train.mean(0)
        gaussian.append(scipy.stats.multivariate_normal(mean, np.cov(train.T, bias=True)).logpdf(test).mean())
        fit = scipy.optimize.minimize(lambda p, t=train - mean: -log_density(t, p).mean(), np.zeros(4), options={'gtol': 1e-7})
        generalized.append(log_density(test - mean, fit.x).mean())
    found = compare(*torch.from_numpy(x).unsqueeze(1))
    np.testing.assert_allclose(found.gaussian, [np.mean(gaussian)], **EXACT)
    np.testing.assert_allclose(found.generalized, [np.mean(generalized)], **MAXIMUM)


def test_degenerate_sets_are_left_out_and_touch_no_other():
    a, b = torch.randn(2, 8, 60, 2, dtype=torch.float64) * torch.rand(2, 8, 60, 1, dtype=torch.float64)
    alone = compare(a, b)
    assert bool(alone.fitted.all())
    bad = [0, 2, 3, 5, 6]
    a[0, :, 1] = 7.0  # constant
    b[2, 3, 0] = torch.nan
    a[3, 0, 0] = torch.inf
    b[5, :, 1] = 2 * b[5, :, 0]  # in a subspace
    a[6] = torch.cat([torch.zeros(2, 2), *2 * [torch.eye(2), -torch.eye(2)], torch.randint(5, (25, 2)).repeat(2, 1)])  # at loc
    a[6, -25:] *= -1
    angle = torch.arange(60, dtype=torch.float64) * torch.pi / 30
    a[7] = torch.stack([angle.cos(), angle.sin()], 1)  # the higher the shape, the better: no maximum, and yet no escape
    found = compare(a, b)
    assert found.fitted.tolist() == [s not in bad for s in range(8)]
    for figures, expected in zip(found[:3], alone[:3], strict=True):
        assert figures.isnan().tolist() == [s in bad for s in range(8)]
        torch.testing.assert_close(figures[[1, 4]], expected[[1, 4]], rtol=1e-6, atol=1e-8)
    assert found.generalized[7] < found.gaussian[7] - 1e3 and found.shape[7] > 5
    assert found.converged.tolist() == [s not in [*bad, 7] for s in range(8)]


def test_sets_are_compared_in_pieces(monkeypatch):
    a, b = torch.randn(2, 7, 40, 2)
    whole = compare(a, b)
    monkeypatch.setattr(_figure1_heldout, '_NUMBERS_AT_A_TIME', 3 * 80)
    for figures, expected in zip(compare(a, b), whole, strict=True):
        torch.testing.assert_close(figures, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('gain, says', [(-1e30, '<-1000'), (1e30, '>+1000'), (-999.4, '-999'), (0.01234, '+0.0123')])
def test_gains_that_are_figures(gain, says):
    assert _figure1_densities._nats(gain) == says


@pytest.mark.parametrize('samples', [torch.zeros(3, 9, 1), torch.randn(3, 2, 1), torch.full((3, 9, 2), torch.nan)])
def test_nothing_can_be_fitted(samples):
    found = compare(samples, samples)
    assert not bool(found.fitted.any()) and all(bool(t.isnan().all()) for t in found[:3])


# Rank correlation and misfit ------------------------------------------------------------------------------------------


def ranks_by_counting(x):
    """The mean rank of each value among ties."""
    return (x[:, None] > x).sum(1) + (x[:, None] == x).sum(1) / 2


def test_rank_correlation_is_the_correlation_of_ranks_with_ties():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, (2, 5, 30)).astype(float)
    b[0], b[1] = np.exp(a[0]), -a[1]
    found = rank_correlation(torch.from_numpy(a), torch.from_numpy(b).float())
    expected = [np.corrcoef(ranks_by_counting(x), ranks_by_counting(y))[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, **EXACT)
    np.testing.assert_allclose(found[:2], [1, -1], **EXACT)
    assert bool(rank_correlation(torch.ones(1, 4), torch.arange(4.0)[None]).isnan())


@pytest.mark.parametrize('angle', [0.0, 0.3, np.pi / 2, 2.0, np.pi])
def test_misfit_is_the_sine_of_the_angle(angle):
    basis = torch.linalg.qr(torch.randn(12, 2, dtype=torch.float64)).Q.T.view(2, 1, 3, 4)
    b = 5 * (np.cos(angle) * basis[0] + np.sin(angle) * basis[1])
    np.testing.assert_allclose(misfit(0.1 * basis[0], b), [np.sin(angle)], **FIXED_POINT)


def test_misfit_is_the_residual_of_least_squares():
    a, b = np.random.default_rng(5).normal(size=(2, 3, 7))
    residuals = [np.linalg.lstsq(x[:, None], y, rcond=None)[1][0] ** 0.5 / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(misfit(torch.from_numpy(a), torch.from_numpy(b)), residuals, **EXACT)


# Activations ----------------------------------------------------------------------------------------------------------


def no_hooks(model):
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize('pool, blocks', [('3g', 3), ('urm_v2', 1), ('isqrt', 0)])
def test_recorder_keeps_what_the_modules_give(pool, blocks):
    model, pixels = tiny(reduce_dim=DIM, global_pool=pool), torch.randn(5, 3, 32, 32)
    assert default_layers(model) == LAYERS
    with torch.no_grad(), Recorder(model, [*LAYERS, 'forward_features', 'layer2']) as recorder:
        model(pixels[:3])
        model(pixels[3:])
    assert no_hooks(model)
    found = recorder.activations([Path(str(i)) for i in range(5)])
    features, before, after, weights = by_hand(model, pixels)
    expected = dict(zip([*LAYERS, 'forward_features'], (before, after, features), strict=True))
    for name, x in expected.items():
        torch.testing.assert_close(found.layers[name], x, rtol=1e-4, atol=1e-5)
    assert bool((found.layers[LAYERS[0]] < 0).any()), 'before the ReLU, which works in place'
    assert found.layers['layer2'].shape[0] == 5
    torch.testing.assert_close(found.reduced, after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.maps, weights, rtol=1e-4, atol=1e-5)
    assert found.maps.shape == (5, blocks, 64) and found.spectrum.shape == (5, DIM)


@pytest.mark.parametrize('name', ['test_resnet', 'test_convnext'])
def test_recorder_looks_in_front_of_the_pooling_of_any_model(name):
    model, pixels = tiny(name), torch.randn(2, 3, 96, 64)
    assert default_layers(model) == ['forward_features']
    with torch.no_grad(), Recorder(model, ['forward_features']) as recorder:
        model(pixels)
        expected = model.forward_features(pixels).flatten(2)
    assert no_hooks(model)
    found = recorder.activations([Path('a'), Path('b')])
    torch.testing.assert_close(found.layers, {'forward_features': expected})
    assert found.reduced.numel() == found.maps.numel() == found.spectrum.numel() == 0


def test_hooks_are_removed_after_an_error():
    model = tiny('test_vit')
    with pytest.raises(ValueError, match='no global_pool'):
        Recorder(model, ['patch_embed', 'forward_features']).__enter__()
    assert no_hooks(model)
    model = tiny(reduce_dim=DIM)
    with (
        pytest.raises(ValueError, match=r'^The layer fc must return feature maps \(B, C, H, W\); got \(2, 3\)'),
        Recorder(model, ['fc', *LAYERS]),
    ):
        model(torch.randn(2, 3, 32, 32))
    assert no_hooks(model)


@pytest.mark.parametrize('layer, times', [('layer1.0.shared', '2'), ('global_pool.reweight', '0')])
def test_a_layer_must_run_once(layer, times):
    model = tiny(reduce_dim=DIM)
    model.layer1[0].shared = torch.nn.Identity()
    model.layer1[0].conv1.register_forward_pre_hook(lambda module, inputs: model.layer1[0].shared(inputs[0]))
    model.layer1[0].conv1.register_forward_hook(lambda module, inputs, output: model.layer1[0].shared(output))
    with torch.no_grad(), Recorder(model, [layer, layer, *LAYERS]) as recorder:
        model(torch.randn(4, 3, 32, 32))
    with pytest.raises(ValueError, match=rf'^The layer {layer} must run once per forward pass; it ran {times} times'):
        recorder.require(4)


def test_a_layer_named_twice_is_one():
    model = tiny(reduce_dim=DIM)
    with torch.no_grad(), Recorder(model, ['layer1', 'layer1']) as recorder:
        model(torch.randn(4, 3, 32, 32))
    recorder.require(4)
    assert {name: len(x) for name, x in recorder.activations([Path('a')] * 4).layers.items()} == {'layer1': 4}


def test_recorder_refuses():
    with pytest.raises(
        ValueError, match=r"^layers must name modules of the model; got 'layer9'. Its top modules are conv1, .*global_pool"
    ):
        Recorder(tiny(reduce_dim=DIM), ['layer1', 'layer9'])
    model = tiny('test_vit')
    assert default_layers(model) == ['forward_features']
    with pytest.raises(ValueError, match='no global_pool, whose input would be recorded'):
        Recorder(model, ['forward_features']).__enter__()


# The parts, on activations made up ------------------------------------------------------------------------------------


def made_up(num_images=2, channels=4, positions=30, blocks=3):
    x = torch.randn(num_images, channels, positions).relu() + 0.1 * torch.randn(num_images, channels, positions)
    maps = torch.rand(num_images, blocks, positions)
    files = [Path(f'{i}.png') for i in range(num_images)]
    return Activations(files, {'a': x, 'b': torch.randn(num_images, 16, positions)}, x, maps, x[:, 0, :0])


def options(tmp_path, **given):
    return Figure1Options(
        **{'model': 'made up', 'images': [], 'dim': 3, 'groups': 2, 'output': tmp_path or Path('figure1'), **given}
    )


def measure(part, found, options):
    """Measure and write a part, and draw it. Its summary."""
    return write_part(part, found, options).summary


def exact_estimator(x, beta, lam):
    """Eqs. (5) and (6) with 2 lam, on centred x (d, N), for as long as it takes."""
    a = (1 - lam) / (2 * lam)
    scatter = np.eye(len(x))
    for _ in range(1000):
        u = np.einsum('dn,de,en->n', x, np.linalg.inv(scatter), x)
        sigma, vectors = np.linalg.eigh((x * (beta * u ** (beta - 1))) @ x.T / x.shape[1])
        scatter = (vectors * (np.sqrt(a * a + sigma / lam) - a)) @ vectors.T
    return scatter


def weight(u, beta):
    return beta * u ** (beta - 1)


@pytest.mark.parametrize('beta, lam', [(0.5, 1.1), (0.8, 2.0)])
@pytest.mark.parametrize('blocks', [0, 2])
def test_chain_from_its_definition(beta, lam, blocks, tmp_path):
    found = made_up(blocks=blocks)
    links = chain_of(found, options(tmp_path, beta=beta, lam=lam))
    for m, x in enumerate(found.reduced.double().numpy()):
        x = x - x.mean(1, keepdims=True)
        scatter = exact_estimator(x, beta, lam)
        values, vectors = np.linalg.eigh(scatter)
        y = x.T @ np.linalg.solve(scatter, x)
        exact, norm = weight(np.diag(y), beta), weight((x * x).sum(0), beta)
        expected, approximate = {}, {}
        for name, scale in (('trace', np.trace(scatter)), ('largest eigenvalue', values[-1])):
            step = 0.5 * (3 * np.eye(4) - scatter / scale)
            gram = (2 * step @ x).T @ (2 * step @ x) / 4
            expected[f'one step by {name} for Sigma^(-1/2)'] = step, vectors @ np.diag(values**-0.5) @ vectors.T
            expected[f'one step by {name} for Y'] = gram, y
            approximate[name] = weight(np.diag(gram), beta)
            expected[f'its weights, by {name}, for the exact'] = approximate[name], exact
        expected['weights of the plain norm for the exact'] = norm, exact
        expected['equal weights for the exact'] = np.ones(30), exact
        w = found.maps[m].double().numpy()
        if blocks:
            learned = (w[0] * w[1]) ** 2
            expected['learned weights for the exact'] = learned, exact
            expected['learned weights for those of one step by trace'] = learned, approximate['trace']
            expected['learned weights for those of the plain norm'] = learned, norm
            expected |= {f'learned weights of block {t + 1} for the exact': (w[t] ** 2, exact) for t in range(2)}
        assert links.keys() == expected.keys()
        for name, (a, b) in expected.items():
            error, rank, variation = links[name]
            cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
            np.testing.assert_allclose(error[m], np.sqrt(1 - cosine**2), **FIXED_POINT, err_msg=name)
            if a.ndim == 1:
                np.testing.assert_allclose(variation[m], a.std() / a.mean(), **FIXED_POINT)
            if name == 'equal weights for the exact':
                assert rank[m].isnan()
                continue
            if 'Sigma' in name:
                assert rank is variation is None
                continue
            a, b = (np.diag(t) if t.ndim == 2 else t for t in (a, b))
            np.testing.assert_allclose(rank[m], scipy.stats.spearmanr(a, b).statistic, **EXACT, err_msg=name)


def test_chain_of_weights_without_variation(tmp_path):
    """Blocks that do nothing: no rank correlation, and the picture is drawn all the same."""
    found = made_up()
    found.maps[:] = 0.9 + 1e-4 * torch.rand_like(found.maps)  # saturated: what is left of the ranks means nothing
    found.maps[1, 2] = torch.rand_like(found.maps[1, 2])
    lines = measure('chain', found, options(tmp_path))
    rows = [row for row in read(tmp_path / 'chain.csv') if row['link'].startswith('learned')]
    moving = tuple(f'learned weights {name}' for name in ('for the exact', 'for those', 'of block 3'))
    for row in rows:
        varies = row['image'] == '1.png' and row['link'].startswith(moving)
        assert (row['rank_correlation'] != 'nan') == varies == (float(row['variation']) > 1e-3)
    (line,) = [line for line in lines if line.startswith('learned weights of block 1')]
    assert line.split()[-2:] == ['0', '0.000']
    (line,) = [line for line in lines if line.startswith('learned weights of block 3')]
    assert line.split()[-2] == '1'
    assert (tmp_path / 'chain.png').exists()


@pytest.mark.parametrize('beta, says', [(0.5, 'fall with'), (1.0, 'are all equal'), (2.0, 'rise with')])
def test_the_sign_of_exact_weights_is_said(beta, says, tmp_path):
    assert any(line.startswith(f'exact weights {says}') for line in measure('chain', made_up(), options(tmp_path, beta=beta)))


def test_images_whose_matrix_is_zero_have_no_spectrum(tmp_path):
    found = made_up(num_images=3)
    found.maps[1] = 0.0
    lines = {line.split('  ')[0]: line.split() for line in measure('spectra', found, options(tmp_path))}
    assert lines['covariance'][-1] == '3' and lines['covariance, re-weighted'][-1] == '2'
    rows = [row for row in read(tmp_path / 'spectra.csv') if row['matrix'] == 'covariance, re-weighted']
    assert column(rows, 'mean').sum() == pytest.approx(1, abs=1e-5)


TRIANGLES = {'3g': torch.tril_indices, **dict.fromkeys(('isqrt', 'mpn', 'cov', 'g2de', 'mggd'), torch.triu_indices)}


@pytest.mark.parametrize('pool', TRIANGLES)
def test_spectra_are_those_of_the_model(pool, tmp_path):
    """The model's own matrix is the one that its pooling hands to the classifier, as a triangle."""
    model, pixels = tiny(reduce_dim=DIM, global_pool=pool), torch.randn(3, 3, 32, 32)
    with torch.no_grad(), Recorder(model, LAYERS) as recorder:
        model(pixels)
    lines = measure('spectra', recorder.activations([Path(str(i)) for i in range(3)]), options(tmp_path))
    _, _, x, weights = by_hand(model, pixels)
    size = DIM + (pool == 'g2de')
    matrix = torch.zeros(3, size, size)
    row, col = TRIANGLES[pool](size, size)
    with torch.no_grad():
        matrix[:, row, col] = matrix[:, col, row] = model.global_pool(model.forward_features(pixels)).float()
    x, hat = (t.double().numpy() for t in (x, x * weights.prod(1, keepdim=True)))
    cov, cov_hat = (np.stack([np.cov(image, bias=True) for image in t]) for t in (x, hat))
    estimator = np.stack([exact_estimator(i - i.mean(1, keepdims=True), 0.5, 1.1) for i in x])
    expected = {'covariance': cov, 'exact estimator, beta 0.5, lambda 1.1': estimator, "the model's own matrix": matrix.numpy()}
    expected = {name: np.linalg.eigvalsh(m).clip(0)[:, ::-1] for name, m in expected.items()}
    expected['its exact root'] = np.sqrt(expected['covariance'])
    if pool == '3g':
        expected['covariance, re-weighted'] = np.linalg.eigvalsh(cov_hat)[:, ::-1]
    rows = read(tmp_path / 'spectra.csv')
    assert {row['matrix'] for row in rows} == expected.keys() and len(rows) == DIM * len(expected) + size - DIM
    for name, values in expected.items():
        shares = values / values.sum(1, keepdims=True)
        mine = [row for row in rows if row['matrix'] == name]
        assert [int(row['index']) for row in mine] == list(range(1, values.shape[1] + 1))
        mean = column(mine, 'mean')
        assert (np.diff(mean) <= 0).all()
        np.testing.assert_allclose(mean.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(mean, shares.mean(0), **FLOAT32_SPECTRUM, err_msg=name)
        np.testing.assert_allclose(column(mine, 'std'), shares.std(0), rtol=1e-2, atol=1e-4, err_msg=name)
        rank = np.exp(scipy.special.entr(shares).sum(1)).mean()  # the share of an eigenvalue may be 0
        (line,) = [line for line in lines if line.startswith(name + '  ')]
        assert float(line.split()[-4]) == pytest.approx(rank, abs=0.06) and line.split()[-3:] == [
            'of',
            str(values.shape[1]),
            '3',
        ]
        assert float(line.split('%')[0].split()[-1]) == pytest.approx(100 * shares[:, 0].mean(), abs=0.1)


def test_images_csv_is_by_position(tmp_path):
    """Even positions of an image against odd ones; every channel by itself, then all in one group; a dead channel left out."""
    x = torch.distributions.Laplace(0.0, 1.0).sample((3, 4, 201))  # an odd number: the last position is left out
    x[:, 1] += 0.5 * x[:, 0]
    x[1, 2] = 0.0
    found = Activations([Path(f'{i}.png') for i in range(3)], {'a': x}, x, x[:, :0], x[:, 0, :0])
    measure('densities', found, options(tmp_path, dim=9, groups=1, channels=[0]))
    one, noise, group, group_noise = (read(tmp_path / 'images.csv')[i : i + 3] for i in range(0, 12, 3))
    for m, row in enumerate(one):
        gains, shapes = [], []
        for channel in x[m, [c for c in range(4) if (m, c) != (1, 2)]].double().numpy():
            even, odd = channel[0:200:2], channel[1:200:2]
            fits = fit_gennorm(even), fit_gennorm(odd)
            gennorm = [scipy.stats.gennorm.logpdf(t, *fit).mean() for t, fit in zip((odd, even), fits, strict=True)]
            norm = [scipy.stats.norm.logpdf(t, s.mean(), s.std()).mean() for s, t in ((even, odd), (odd, even))]
            gains.append(np.mean(gennorm) - np.mean(norm))
            shapes.append(np.sqrt(fits[0][0] * fits[1][0]) / 2)
        assert {**row, 'shape': '', 'gain': ''} == {
            **{'layer': 'a', 'control': '0', 'image': f'{m}.png', 'dim': '1', 'sets': '4', 'no_maximum': '0'},
            **{
                'fitted': str(len(gains)),
                'won': str(sum(gain > 0 for gain in gains)),
                'shape': '',
                'gain': '',
            },
        }
        np.testing.assert_allclose(float(row['gain']), torch.tensor(gains).median(), **CSV)
        np.testing.assert_allclose(float(row['shape']), torch.tensor(shapes).median(), rtol=1e-4)
    together = compare(x[..., 0:200:2].mT, x[..., 1:201:2].mT)
    np.testing.assert_allclose(column(group, 'gain'), together.generalized - together.gaussian, **CSV)
    np.testing.assert_allclose(column(group, 'shape'), together.shape, **CSV)
    assert [(row['dim'], row['sets'], row['fitted']) for row in group] == [('4', '1', str(int(m != 1))) for m in range(3)]
    white = gaussian_like(x)
    for rows, layer, control in ((one, x, '0'), (noise, white, '1')):
        each = compare(layer[..., 0:200:2].reshape(-1, 100, 1), layer[..., 1:201:2].reshape(-1, 100, 1))
        gains = (each.generalized - each.gaussian).view(3, 4)
        np.testing.assert_allclose(column(rows, 'gain'), gains.nanmedian(1).values, **CSV)
        assert {row['control'] for row in rows} == {control}
    together = compare(white[..., 0:200:2].mT, white[..., 1:201:2].mT)
    np.testing.assert_allclose(column(group_noise, 'gain'), together.generalized - together.gaussian, **CSV)


def test_control_has_the_covariances_of_an_image():
    """Over channels, and over positions around the image: means of 4,000 draws."""
    x = torch.randn(1, 3, 24) @ torch.linalg.matrix_power(torch.eye(24).roll(1, 0) + torch.eye(24), 3)
    x[:, 1] = x[:, 0] - 0.3 * x[:, 1] + 5
    x[:, 2] = 0.1
    noise = gaussian_like(x.expand(4000, 3, 24)).double()
    centred = (x[0] - x[0].mean(-1, keepdim=True)).double()
    for lag in (0, 1, 5):
        expected = centred @ centred.roll(-lag, 1).T / 24
        found = torch.einsum('mcn,mdn->cd', noise, noise.roll(-lag, -1)) / (4000 * 24)
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05 * float(expected.abs().max()))
    assert noise[:, 2].count_nonzero() == 0, 'a constant channel stays one'
    flat = (noise[:, 0, 0] / noise[:, 0, 0].std()).numpy()
    assert scipy.stats.kstest(flat, 'norm').pvalue > 0.001


def test_control_shows_what_neighbours_do(tmp_path):
    """In smooth Gaussian fields every other position predicts the rest, so that wins alone prove nothing. The control wins as
    often."""
    field = torch.nn.functional.avg_pool2d(torch.randn(20, 16, 20, 20), 7, 1).flatten(2)
    found = Activations([Path(f'{i}.png') for i in range(20)], {'a': field}, field, field[:, :0], field[:, 0, :0])
    measure('densities', found, options(tmp_path, dim=1, channels=[0]))
    rows = read(tmp_path / 'images.csv')
    shares = [sum(int(row['won']) for row in rows if row['control'] == c) / 320 for c in '01']
    white = compare(torch.randn(320, 98, 1), torch.randn(320, 98, 1))
    alone = float((white.generalized > white.gaussian).double().mean())
    assert min(shares) > alone + 0.15 and abs(shares[0] - shares[1]) < 0.1


def test_density_picture():
    """A row a layer, a panel a channel: a histogram of area 1, and two curves, the Gaussian's known."""
    found = made_up()
    found.layers['b'][:, 2] = 1.0
    for channels, titles in ((None, [0, 1, 2, 3, *range(0, 16, 2)]), ([3, 2], [3, 2, 3, 2])):
        picture = draw_densities(found, Finding({}, []), options(None, channels=channels))
        panels = [axes for axes in picture.axes if axes.axison]
        assert [int(axes.get_title().split('channel ')[1].split(':')[0]) for axes in panels] == titles
        for layer, axes, c in zip('aabb' if channels else 'a' * 4 + 'b' * 8, panels, titles, strict=True):
            assert axes.get_title().startswith(f'{layer}\n')
            values = found.layers[layer][:, c].double().numpy()
            if (values == 1).all():
                assert not axes.lines, 'constant: nothing can be fitted'
                continue
            assert ': shape ' in axes.get_title()
            assert sum(bar.get_height() * bar.get_width() for bar in axes.patches) == pytest.approx(1)
            gaussian, generalized = axes.lines
            points = np.asarray(gaussian.get_xdata())
            np.testing.assert_allclose([points[0], points[-1]], [values.min(), values.max()], rtol=1e-6)
            expected = scipy.stats.norm.pdf(points, values.mean(), values.std())
            np.testing.assert_allclose(np.asarray(gaussian.get_ydata()), expected, rtol=1e-6)
            expected = scipy.stats.gennorm.pdf(points, *fit_gennorm(values.ravel()))
            np.testing.assert_allclose(np.asarray(generalized.get_ydata()), expected, rtol=1e-2, atol=1e-3)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    file = tmp_path / 'a.csv'
    file.write_text('old\n' * 100)
    with pytest.raises(ValueError, match='not in fieldnames'):
        write_csv([{'x': 1}, {'x': 2, 'y': 3}], file)
    assert file.read_text() == 'old\n' * 100
    figure = Figure()
    figure.savefig = lambda partial, **options: (partial.write_text('half'), 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_figure(figure, file)
    assert file.read_text() == 'old\n' * 100 and [f.name for f in tmp_path.iterdir()] == ['a.csv']
    write_csv([{'x': 1, 'y': 'a,b'}, {'x': 1 / 3, 'y': float('nan')}], file)
    assert file.read_text() == 'x,y\n1,"a,b"\n0.333333,nan\n' and [f.name for f in tmp_path.iterdir()] == ['a.csv']


# The verb -------------------------------------------------------------------------------------------------------------


def test_files_of_a_run(whole, images):
    out, _, _, _ = whole
    assert sorted(f.name for f in out.iterdir()) == [
        *('chain.csv', 'chain.png', 'channels.csv', 'densities.png', 'images.csv', 'spectra.csv', 'spectra.png')
    ]
    rows = {name: read(out / f'{name}.csv') for name in ('chain', 'channels', 'images', 'spectra')}
    # 14 links; two layers; two layers and their controls in one and three dimensions; five matrices.
    assert {name: len(r) for name, r in rows.items()} == {
        'chain': 14 * 4,
        'channels': 2 * DIM,
        'images': 32,
        'spectra': 5 * DIM,
    }
    assert list(rows['chain'][0]) == ['image', 'link', 'misfit', 'rank_correlation', 'variation']
    assert list(rows['spectra'][0]) == ['matrix', 'index', 'mean', 'std']
    assert list(rows['images'][0]) == [
        *('layer', 'control', 'image', 'dim', 'sets', 'fitted', 'no_maximum', 'won', 'shape', 'gain')
    ]
    head, tail = ['layer', 'channel', 'samples', 'zeros', 'mean', 'std'], ['shape', 'gaussian', 'generalized', 'gain']
    assert list(rows['channels'][0]) == [*head, 'excess_kurtosis', 'sets', 'fitted', 'no_maximum', 'won', *tail]
    for name in ('chain', 'images'):
        assert list(dict.fromkeys(row['image'] for row in rows[name])) == [str(f) for f in images]
    assert {(row['layer'], row['control'], row['sets']) for row in rows['images'] if row['dim'] == '3'} == {
        (layer, control, '2') for layer in LAYERS for control in '01'
    }
    for name in ('chain', 'densities', 'spectra'):
        with Image.open(out / f'{name}.png') as picture:
            assert picture.format == 'PNG' and min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert('L')))) > 20


def test_channels_csv_is_of_all_images_by_image(whole):
    """Even images against odd ones."""
    out, _, model, pixels = whole
    _, before, after, _ = by_hand(model, pixels)
    for layer, x in zip(LAYERS, (before, after), strict=True):
        rows = [row for row in read(out / 'channels.csv') if row['layer'] == layer]
        values = x.movedim(1, 0).double().numpy()  # (C, M, N)
        flat = values.reshape(DIM, -1)
        assert [int(row['channel']) for row in rows] == list(range(DIM))
        assert {row['samples'] for row in rows} == {'256'}
        np.testing.assert_allclose(column(rows, 'mean'), flat.mean(1), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(column(rows, 'std'), flat.std(1), rtol=1e-4)
        np.testing.assert_allclose(column(rows, 'zeros'), (flat == 0).mean(1), **CSV)
        np.testing.assert_allclose(column(rows, 'excess_kurtosis'), scipy.stats.kurtosis(flat, axis=1), rtol=1e-3, atol=1e-4)
        for row, value in zip(rows, values, strict=True):
            if row['fitted'] == '0':
                assert row['won'] == '0' and row['gain'] == 'nan'
                continue
            a, b = value[0::2].ravel(), value[1::2].ravel()
            pairs = ((a, b), (b, a))
            expected = np.mean([scipy.stats.norm.logpdf(t, s.mean(), s.std()).mean() for s, t in pairs])
            np.testing.assert_allclose(float(row['gaussian']), expected, rtol=1e-4, atol=1e-4)
            gain = float(row['generalized']) - float(row['gaussian'])
            assert float(row['gain']) == pytest.approx(gain, abs=1e-5) and row['won'] == str(int(float(row['gain']) > 0))
    assert sum(int(row['fitted']) for row in read(out / 'channels.csv')) > DIM


def test_what_is_printed_is_what_is_written(whole):
    out, text, _, _ = whole
    assert text.startswith(f'{SMALL}: 4 images; layers: {", ".join(LAYERS)}\n') and text.endswith(f'CSVs and pictures: {out}\n')
    assert [part.partition(': ')[0] for part in text.split('\n\n')[1:-1]] == ['densities', 'spectra', 'chain']
    channels, per_image = read(out / 'channels.csv'), read(out / 'images.csv')
    for layer in LAYERS:
        for label, rows in (
            ('channels (d = 1, all images)', [row for row in channels if row['layer'] == layer]),
            *(
                (f'{name} (d = {d})', [r for r in per_image if (r['layer'], r['control'], r['dim']) == (layer, control, d)])
                for d in '13'
                for control, name in (('0', 'images'), ('1', 'control'))
            ),
        ):
            (line,) = [line for line in text.splitlines() if line.startswith(f'{layer}: {label}')]
            figures = line.removeprefix(f'{layer}: {label}').split()
            sets, fitted, lost, won, gains = (column(rows, name) for name in ('sets', 'fitted', 'no_maximum', 'won', 'gain'))
            gains = gains[~np.isnan(gains)]
            assert figures[:3] == [f'{fitted.sum():.0f}', 'of', f'{sets.sum():.0f}']
            if not len(gains):
                assert figures[3:] == ['-'] * 8
                continue
            shapes = column(rows, 'shape')
            shapes = shapes[~np.isnan(shapes)]
            out_of_bounds, share, share_of_rows, *rest = (f for f in figures[3:] if f != '%')
            assert float(out_of_bounds) == pytest.approx(100 * lost.sum() / fitted.sum(), abs=0.06)
            assert float(share) == pytest.approx(100 * won.sum() / fitted.sum(), abs=0.06)
            assert float(share_of_rows) == pytest.approx(100 * (gains > 0).mean(), abs=0.06)
            expected = [*np.quantile(gains, [0.5, 0.05, 0.95]), scipy.stats.scoreatpercentile(shapes, 50)]
            for printed, gain in zip(rest[:3], expected[:3], strict=True):
                assert (printed == '<-1000' and gain <= -1000) or float(printed) == pytest.approx(gain, rel=6e-3)
            np.testing.assert_allclose(float(rest[4]), 100 * (shapes < 1).mean(), atol=0.6)
    for row_name in ('learned weights for the exact', 'one step by trace for Y'):
        rows = [row for row in read(out / 'chain.csv') if row['link'] == row_name]
        (line,) = [line for line in text.splitlines() if line.startswith(f'{row_name}  ')]
        error, rank = column(rows, 'misfit'), column(rows, 'rank_correlation')
        assert float(line.removeprefix(row_name).split()[0]) == pytest.approx(np.sort(error)[(len(error) - 1) // 2], abs=6e-4)
        spread = line.removeprefix(row_name).split()[1:5]
        assert [float(f) for f in spread] == pytest.approx([*np.nanquantile(rank, [0.5, 0.05, 0.95]), 4], abs=0.006)
    assert 'of the values are exactly 0 (ReLU): no density fits such an atom' in text


def test_parts_layers_channels_and_number_of_images(tmp_path, images, capsys, saved):
    """Only what was asked for is written; an old CSV is replaced whole; nothing is left half-written."""
    arguments, _ = saved(reduce_dim=DIM)
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'images.csv').write_text('layer\n' + 'old\n' * 10_000)
    asked = ['--layers', 'layer1.0.bn1', '--channels', 5, 0, '--dim', 31]
    assert figure1(arguments, images, out, '--parts', 'densities', '--num-images', 2, *asked) == 0
    assert sorted(f.name for f in out.iterdir()) == ['channels.csv', 'densities.png', 'images.csv']
    rows = read(out / 'images.csv')
    assert {row['layer'] for row in rows} == {'layer1.0.bn1'}
    assert list(dict.fromkeys(row['image'] for row in rows)) == [str(images[0]), str(images[2])], 'evenly spaced'
    capsys.readouterr()
    assert figure1(arguments, images, tmp_path / 'spectra', '--parts', 'spectra', '--lam', 2) == 0
    assert sorted(f.name for f in (tmp_path / 'spectra').iterdir()) == ['spectra.csv', 'spectra.png']
    text = capsys.readouterr().out
    assert 'exact estimator, beta 0.5, lambda 2' in text and 'densities' not in text and 'chain' not in text


def test_dim_beyond_the_channels_or_the_positions(tmp_path, images, capsys, saved):
    arguments, _ = saved(reduce_dim=DIM)
    run = ['--parts', 'densities', '--dim', 31, '--groups', 1]
    assert figure1(arguments, images[:1], tmp_path / 'out', *run, *DRAW_ONE, '--layers', 'layer4', LAYERS[0]) == 0
    assert 'layer4: 64 positions are too few for fits in 31 dimensions' in capsys.readouterr().out
    rows = read(tmp_path / 'out' / 'images.csv')
    dims = {layer: {row['dim'] for row in rows if row['layer'] == layer} for layer in ('layer4', LAYERS[0])}
    assert dims == {'layer4': {'1'}, LAYERS[0]: {'1', str(DIM)}}


def test_a_single_image(tmp_path, images, capsys, saved):
    """Channels then are weighed by position."""
    arguments, model = saved(reduce_dim=DIM)
    assert figure1(arguments, images[1:2], tmp_path / 'out', *DRAW_ONE) == 0
    assert ': 1 image; layers' in capsys.readouterr().out
    transform = create_transform(**resolve_data_config({}, model=model))
    x = by_hand(model, transform(Image.open(images[1]).convert('RGB'))[None])[1][0].double().numpy()
    rows = read(tmp_path / 'out' / 'channels.csv')[:DIM]
    pairs = ((x[:, 0::2], x[:, 1::2]), (x[:, 1::2], x[:, 0::2]))
    expected = np.mean([scipy.stats.norm.logpdf(t.T, s.mean(1), s.std(1)).mean(0) for s, t in pairs], 0)
    found = column(rows, 'gaussian')
    assert np.isfinite(found).sum() >= DIM // 2
    np.testing.assert_allclose(found[np.isfinite(found)], expected[np.isfinite(found)], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', ['test_resnet', 'test_convnext'])
def test_a_model_without_second_order_pooling_has_densities_only(name, tmp_path, images, capsys, saved):
    arguments, _ = saved(name)
    assert figure1(arguments, images[:2], tmp_path / 'out', '--img-size', 128, *DRAW_ONE) == 0
    text = capsys.readouterr().out
    assert f'{name}: 2 images; layers: forward_features\n' in text
    for part in ('spectra', 'chain'):
        assert f'\n{part}: left out: the model has no second-order pooling.\n' in text
    assert sorted(f.name for f in (tmp_path / 'out').iterdir()) == ['channels.csv', 'densities.png', 'images.csv']
    assert {row['layer'] for row in read(tmp_path / 'out' / 'channels.csv')} == {'forward_features'}


def test_parts_that_need_a_pooling_of_ours(error_of, tmp_path, saved):
    message = error_of('--parts', 'chain', 'spectra', arguments=saved('test_resnet')[0])
    assert message.startswith(
        'chain and spectra need a second-order pooling of timm_3g, which test_resnet does not have. The part'
    )
    assert not (tmp_path / 'out').exists()


def test_a_pooling_without_reweighting(tmp_path, images, capsys, saved):
    arguments, _ = saved(reduce_dim=DIM, global_pool='isqrt')
    assert figure1(arguments, images[:2], tmp_path / 'out', '--parts', 'spectra', 'chain') == 0
    assert 'No learned weights: the pooling has no re-weighting.' in capsys.readouterr().out
    rows = read(tmp_path / 'out' / 'chain.csv')
    assert len(rows) == 8 * 2 and not any('learned' in row['link'] for row in rows)
    assert {row['rank_correlation'] == '' for row in rows if 'Sigma' in row['link']} == {True}


def test_grey_images(tmp_path, images, saved):
    arguments, _ = saved(reduce_dim=DIM, in_chans=1)
    grey = ['--input-size', 1, 32, 32, '--mean', 0.5, '--std', 0.25, '--parts', 'spectra']
    assert figure1(arguments, images[:2], tmp_path / 'out', *grey) == 0
    assert len(read(tmp_path / 'out' / 'spectra.csv')) == 5 * DIM


@pytest.mark.parametrize(
    'options, message',
    [
        (['--beta', 0], 'beta must be positive and finite; got 0.0.'),
        (['--lam', 'inf'], 'lam must be positive and finite; got inf.'),
        (['--dim', 0], '--dim must be at least 1; got 0.'),
        (['--groups', -1], '--groups must be at least 1; got -1.'),
        (['--num-images', 0], '--num-images must be at least 1; got 0.'),
        (['--batch-size', 0], '--batch-size must be at least 1; got 0.'),
        (['--channels', 0, DIM], '--channels must lie in 0 to 5 for global_pool.reduce.bn; got 6.'),
        (['--channels', -1], '--channels must lie in 0 to 5 for global_pool.reduce.bn; got -1.'),
        (['--layers', 'layer7'], "--layers must name modules of the model; got 'layer7'. Its top modules are conv1"),
        (
            ['--layers', 'global_pool.reweight'],
            'The layer global_pool.reweight must run once per forward pass; it ran 0 times. Choose',
        ),
        (['--lam', 0.9, '--dim', 2, '--img-size', 8, '--parts', 'spectra'], '--lam must be above 1 with no more'),
        (['--layers', ''], "--layers must name modules of the model; got ''."),
        (['--layers', 'fc'], 'The layer fc must return feature maps (B, C, H, W); got (2, 3). Choose other layers.'),
        (['--checkpoint', 'gone.pth'], 'gone.pth does not exist.'),
    ],
)
def test_bad_options(options, message, error_of):
    assert error_of(*options).startswith(message)


def test_nothing_is_written_where_channels_do_not_exist(error_of, tmp_path):
    error_of('--channels', DIM)
    assert not (tmp_path / 'out').exists()


def test_output_that_is_a_file(error_of, tmp_path):
    (tmp_path / 'out').write_text('precious')
    assert error_of().startswith(f'--output must be a folder; {tmp_path / "out"} is a file.')
    assert (tmp_path / 'out').read_text() == 'precious'


def test_without_a_progress_bar(tmp_path, images, monkeypatch, saved):
    """TQDM_DISABLE: a bar that is off counts nothing."""
    monkeypatch.setattr(sys.modules['timm_3g.figure1.figure1'], 'tqdm', partial(tqdm, disable=True))
    arguments, _ = saved(reduce_dim=DIM)
    assert figure1(arguments, images[:2], tmp_path / 'out', '--parts', 'spectra', '-b', 1) == 0


def test_an_unknown_part_is_refused(tmp_path, images):
    with pytest.raises(SystemExit):
        figure1([SMALL], images, tmp_path, '--parts', 'tails')


def test_images_that_are_not_there_or_cannot_be_read(error_of, tmp_path, images):
    gone, text = tmp_path / 'gone.png', tmp_path / 'text.png'
    assert 'gone.png' in error_of(files=[gone]) and not (tmp_path / 'out').exists()
    text.write_text('no image')
    message = error_of(files=[images[0], text])
    assert message.startswith(f'1 of the images cannot be read, the first {text}: UnidentifiedImageError')
    assert not (tmp_path / 'out').exists()


def test_a_model_whose_pooling_sees_no_maps(error_of, tmp_path, saved):
    message = error_of(arguments=saved('test_vit')[0])
    assert message.startswith('The model has no global_pool, whose input would be recorded. Choose layers.')


# From Python ----------------------------------------------------------------------------------------------------------


def test_a_model_gives_the_rows_that_the_command_line_writes(whole, images, tmp_path):
    out, _, model, _ = whole
    found = run_figure1(model, images, tmp_path, parts=['spectra', 'chain'], batch_size=3, workers=0)
    assert found.files == tuple(images) and list(found.layers) == LAYERS and list(found.findings) == ['spectra', 'chain']
    for name, finding in found.findings.items():
        assert (tmp_path / f'{name}.csv').read_text() == (out / f'{name}.csv').read_text()
        assert len(finding.tables[name]) == len(read(out / f'{name}.csv'))
    with pytest.raises(ValueError, match="parts must be among densities, spectra, chain; got 'tails'"):
        run_figure1(model, images, tmp_path, parts=['tails'])
