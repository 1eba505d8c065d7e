"""`timm-3g figure1` and the function: files, printed lines and errors, against scipy, numpy or the model run by hand."""

import io
import sys
from contextlib import redirect_stdout
from functools import cache, partial

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from activations_by_hand import CSV, DIM, LAYERS, by_hand, column, read, tiny
from common import SMALL, image_folder
from matplotlib.figure import Figure
from PIL import Image
from timm.data import create_transform, resolve_data_config
from tqdm import tqdm

from timm_3g.__main__ import main
from timm_3g.figure1 import figure1 as run_figure1
from timm_3g.utils.files import save_figure

QUICK = ['--groups', '2', '--dim', '3', '--device', 'cpu', '-j', '0']
DRAW_ONE = ['--channels', 1]  # drawing takes time


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
    monkeypatch.setattr(sys.modules['timm_3g.figure1.figure1'], 'save_figure', lambda _, file: save_figure(Figure(), file))


def figure1(arguments, images, output, *options):
    model, *rest = arguments
    return main(['figure1', *map(str, (model, *images, *rest, *QUICK, '--output', output, *options))])


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Four files, in order."""
    return sorted(image_folder(tmp_path_factory.mktemp('figure1'), {'images': 2}, classes=2).rglob('*.png'))


@pytest.fixture(scope='module')
def whole(tmp_path_factory, images, saved):
    """The verb, once, all parts: folder, what it printed, the model, its input."""
    root = tmp_path_factory.mktemp('whole')
    arguments, model = saved(reduce_dim=DIM, head_init='orig')
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
    save_figure(Figure(), out / 'densities.png')  # of an earlier run
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


def test_a_model_gives_the_rows_that_the_command_line_writes(whole, images, tmp_path):
    out, _, model, _ = whole
    found = run_figure1(model, images, tmp_path, parts=['spectra', 'chain'], batch_size=3, workers=0)
    assert found.files == tuple(images) and list(found.layers) == LAYERS and list(found.findings) == ['spectra', 'chain']
    for name, finding in found.findings.items():
        assert (tmp_path / f'{name}.csv').read_text() == (out / f'{name}.csv').read_text()
        assert len(finding.tables[name]) == len(read(out / f'{name}.csv'))
    with pytest.raises(ValueError, match="parts must be among densities, spectra, chain; got 'tails'"):
        run_figure1(model, images, tmp_path, parts=['tails'])


def test_no_part_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r'parts must name at least one of densities'):
        run_figure1(f'{SMALL}.cifar10', tmp_path, tmp_path / 'out', parts=())


def test_nothing_of_another_origin_is_overwritten(tmp_path):
    Image.new('RGB', (32, 32), 'red').save(tmp_path / 'spectra.png')
    for name in ('spectra.png', 'images.csv'):
        before = (tmp_path / name).read_bytes() if name.endswith('png') else b'my labels'
        (tmp_path / name).write_bytes(before)
        part = 'spectra' if name.endswith('png') else 'densities'
        with pytest.raises(FileExistsError, match=f'{name} exists, and figure1 did not write it'):
            run_figure1(f'{SMALL}.cifar10', tmp_path, tmp_path, parts=[part], workers=0, device='cpu')
        assert (tmp_path / name).read_bytes() == before


def test_its_own_files_are_replaced(tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('a', 'b'):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / 'in' / f'{name}.png')
    for _ in range(2):
        run_figure1(f'{SMALL}.cifar10', tmp_path / 'in', tmp_path / 'out', parts=['spectra'], workers=0, device='cpu')
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['spectra.csv', 'spectra.png']
