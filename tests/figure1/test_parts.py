"""The parts of figure1 on activations made up, against scipy and numpy; what their pictures show."""

from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from activations_by_hand import CSV, DIM, FIXED_POINT, FLOAT32_SPECTRUM, LAYERS, by_hand, column, fit_gennorm, read, tiny
from common import EXACT
from matplotlib.figure import Figure

from timm_3g.figure1 import PARTS, Figure1Options, Finding
from timm_3g.figure1.activations import Activations, Recorder
from timm_3g.figure1.chain import chain_of
from timm_3g.figure1.csv_file import write_csv
from timm_3g.figure1.densities import draw_densities
from timm_3g.figure1.heldout import compare, gaussian_like
from timm_3g.utils.files import save_figure


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
    """Measure, write and draw a part, but do not render its picture. Its summary."""
    finding = PARTS[part].measure(found, options)
    for table, rows in finding.tables.items():
        write_csv(rows, options.output / f'{table}.csv')
    PARTS[part].draw(found, finding, options)
    return finding.summary


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
