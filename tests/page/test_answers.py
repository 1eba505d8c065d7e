"""What the page answers, without a browser: photographs, models, maps, tables, errors in words."""

import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from common import SMALL
from PIL import Image

import timm_3g
from timm_3g.figure1.activations import Recorder, default_layers
from timm_3g.layers import record_weights
from timm_3g.ops import covariance
from timm_3g.page import page
from timm_3g.page.look import Look, look, prepare
from timm_3g.page.options import SHIPPED, PageOptions
from timm_3g.page.photo import open_photo
from timm_3g.page.pictures import SIDE, overlays
from timm_3g.page.shelf import Shelf, distinct, names_of
from timm_3g.page.statistics import draw_statistics
from timm_3g.page.table import COLUMNS, table_of, write_table

MEGAPIXELS = 50


@pytest.fixture(scope='module')
def shelf(tmp_path_factory):
    """The weights that ship, the same in a file and in a folder, and a network without re-weighting."""
    folder = tmp_path_factory.mktemp('models')
    file = timm.get_pretrained_cfg(SHIPPED).file
    torch.save({'state_dict': timm.create_model('resnet10t').state_dict()}, folder / 'timms.pth')
    return Shelf([SHIPPED, f'{SMALL}={file}', f'local-dir:{Path(file).parent}', f'resnet10t={folder / "timms.pth"}'], 'cpu')


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    files = []
    for index in range(6):
        files.append(folder / f'{index}.png')
        Image.fromarray(rng.integers(0, 256, (40 + index, 60, 3), dtype=np.uint8)).save(files[-1])
    return files


def png_of(width: int, height: int, file: Path) -> Path:
    """A PNG that says it is so large, with hardly any data."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    head = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    file.write_bytes(b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b''))
    return file


def test_the_answer_is_that_of_predict(shelf, photos):
    model = shelf.get(SHIPPED)
    for file, prediction in zip(photos, timm_3g.predict(SHIPPED, photos, device='cpu', workers=0), strict=True):
        expected = {c.name: c.probability for c in prediction.classes}
        assert look(model, file, MEGAPIXELS).top(model.classes) == pytest.approx(expected, rel=1e-4)


def test_maps_are_those_of_the_network(shelf, photos):
    model = shelf.get(SHIPPED)
    with record_weights(model.net) as maps, torch.no_grad():
        model.net(prepare(model, photos[0], MEGAPIXELS))
    found = look(model, photos[0], MEGAPIXELS)
    torch.testing.assert_close(found.maps, torch.cat(maps, 1)[0])
    pictures = overlays(found, 0.5)
    assert [caption.split(':')[0] for _, caption in pictures] == ['block 1', 'block 2', 'block 3', 'product']
    assert all(max(picture.size) == SIDE for picture, _ in pictures)
    assert pictures[3][1] == f'product: {found.maps.prod(0).min():.3f} to {found.maps.prod(0).max():.3f}'


def test_a_map_is_dark_where_its_weight_is_small_and_the_photograph_shows_through():
    weights = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    found = Look(torch.ones(1), weights, torch.full((3, 4, 4), 0.5), 0.0)
    opaque, clear = (np.asarray(overlays(found, opacity)[0][0]).astype(int) for opacity in (1.0, 0.0))
    assert opaque[:160, :160].mean() < opaque[:160, 160:].mean() - 50
    assert (clear == 128).all()


def test_a_flat_map_looks_flat():
    found = Look(torch.ones(1), torch.rand(1, 8, 8) * 1e-3, torch.full((3, 4, 4), 0.5), 0.0)
    assert np.ptp(np.asarray(overlays(found, 1.0)[0][0]).astype(int).sum(2)) < 30


def test_two_visitors_at_once_do_not_get_each_others_maps(shelf, photos):
    model = shelf.get(SHIPPED)
    alone = [look(model, file, MEGAPIXELS) for file in photos]
    found: dict[int, Look] = {}
    threads = [
        threading.Thread(target=lambda i=i, f=file: found.update({i: look(model, f, MEGAPIXELS)}))
        for i, file in enumerate(photos)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        torch.testing.assert_close(found[index].maps, expected.maps)
        torch.testing.assert_close(found[index].probabilities, expected.probabilities)


def test_models_are_those_of_the_list_each_once(shelf):
    assert shelf.get(SHIPPED) is shelf.get(SHIPPED)
    for name in shelf.names[1:3]:
        assert shelf.get(name).classes[3] == 'cat'
    for name in ('resnet50', 'local-dir:/etc', 'hf-hub:a/b', '../../x', SMALL):
        with pytest.raises(ValueError, match='This page has no model'):
            shelf.get(name)
    with pytest.raises(ValueError, match='is no architecture of timm or timm_3g'):
        Shelf(['resnet10_mini_3gg'])


def test_a_network_of_timm_without_maps(shelf, photos):
    model = shelf.get(shelf.names[3])
    found = look(model, photos[0], MEGAPIXELS)
    assert overlays(found, 0.5) == [] and list(found.top(model.classes)) and len(found.probabilities) == 1000
    with pytest.raises(ValueError, match='has no second-order pooling'):
        draw_statistics(model, photos[0], 0, MEGAPIXELS)


@pytest.mark.parametrize('names', [['crane', 'cat', 'crane'], ['a', 'a, 2', 'a', 'a'], ['a', 'a', 'a, 2', 'a, 2'], ['x'] * 5])
def test_no_two_classes_have_one_name(names):
    found = distinct(names)
    assert len(set(found)) == len(names)
    assert all(shown == name or shown.startswith(f'{name}, ') for shown, name in zip(found, names, strict=True))
    assert set(names) <= set(found)


def test_no_two_models_have_one_name():
    models = ['local-dir:x/birds, 2', 'local-dir:a/birds', 'local-dir:b/birds', 'local-dir:runs/lr=0.1', f'{SMALL}=a/b=c.pth']
    assert names_of(models) == ('birds, 2', 'birds', 'birds, 3', 'lr=0.1', f'{SMALL} (b=c.pth)')
    assert names_of(['local-dir:.']) == (Path.cwd().name,)


def test_what_is_wrong_with_a_model_is_for_who_runs_the_page(tmp_path, capsys):
    """A path that is not there is an error at the start. A file that cannot be loaded gives visitors no path."""
    for missing in (f'{SMALL}={tmp_path / "gone.pth"}', f'local-dir:{tmp_path / "gone"}'):
        with pytest.raises(FileNotFoundError, match='gone'):
            Shelf([missing])
    (tmp_path / 'bad.pth').write_bytes(b'Hello.')
    shelf = Shelf([f'{SMALL}={tmp_path / "bad.pth"}'], 'cpu')
    with pytest.raises(ValueError, match=rf'^The model {SMALL} \(bad\.pth\) could not be loaded\.$'):
        shelf.get(shelf.names[0])
    assert str(tmp_path) in capsys.readouterr().err


def test_a_model_that_loads_holds_up_nobody_else(shelf, monkeypatch):
    """The second model is asked for while the first one loads."""
    file = timm.get_pretrained_cfg(SHIPPED).file
    slow = Shelf([SHIPPED, f'{SMALL}={file}'], 'cpu')
    ready, go = slow.get(SHIPPED), threading.Event()
    started = threading.Event()

    def load(*args):
        started.set()
        assert go.wait(60)
        return ready

    monkeypatch.setattr('timm_3g.page.shelf._load', load)
    thread = threading.Thread(target=slow.get, args=(slow.names[1],))
    thread.start()
    assert started.wait(60)
    assert slow.get(SHIPPED) is ready  # without waiting
    go.set()
    thread.join()


def test_statistics_are_those_of_the_activations(shelf, photos):
    model = shelf.get(SHIPPED)
    figure = draw_statistics(model, photos[0], 5, MEGAPIXELS)
    left, right = figure.axes
    with torch.no_grad(), Recorder(model.net, default_layers(model.net)) as recorder:
        model.net(prepare(model, photos[0], MEGAPIXELS))
    found = recorder.activations([photos[0]])
    heights = [patch.get_height() * patch.get_width() for patch in left.patches]
    assert sum(heights) == pytest.approx(1) and len(heights) == 20
    edges = [patch.get_x() for patch in left.patches]
    assert edges[0] == pytest.approx(float(found.layers['global_pool.reduce.bn'][0, 5].min()), rel=1e-4)
    eigenvalues = torch.linalg.eigvalsh(covariance(found.reduced[0].double())).flip(0)
    drawn = torch.as_tensor(right.lines[0].get_ydata())
    torch.testing.assert_close(drawn, (eigenvalues / eigenvalues.sum()).clamp(min=1e-12), rtol=1e-4, atol=1e-9)
    assert len(right.lines) == 2


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'Hello.', 'This file is not an image that can be read here'),
        (b'', 'This file is not an image that can be read here'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'This file is not an image that can be read here'),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 'This file is not an image that can be read here'),
    ],
)
def test_what_is_no_image(content, message, tmp_path):
    (tmp_path / 'a.png').write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_photo(tmp_path / 'a.png', 'RGB', MEGAPIXELS)


def test_a_damaged_image(photos, tmp_path):
    (tmp_path / 'half.png').write_bytes(photos[0].read_bytes()[:600])
    with pytest.raises(ValueError, match='This image is damaged: '):
        open_photo(tmp_path / 'half.png', 'RGB', MEGAPIXELS)
    with pytest.raises(ValueError, match=r'^This image is no longer here\. Choose it again\.$'):
        open_photo(tmp_path / 'gone.png', 'RGB', MEGAPIXELS)
    with pytest.raises(ValueError, match='This file is not an image'):
        open_photo(tmp_path, 'RGB', MEGAPIXELS)
    with pytest.raises(ValueError, match='Choose an image first'):
        open_photo(None, 'RGB', MEGAPIXELS)


@pytest.mark.parametrize(
    ('size', 'message'),
    [
        ((9_000, 9_000), '9000 x 9000 pixels, 81 megapixels. At most 50 can be read'),
        ((10_000, 10_000), 'at most 50 megapixels'),
        ((65_000, 65_000), 'at most 50 megapixels'),
        ((1, 1_000_000), '1 x 1000000 pixels: too long. One side can be at most 20 times the other'),
        ((2_000, 99), 'too long'),
    ],
)
def test_what_is_too_large_is_not_decoded(size, message, tmp_path, monkeypatch):
    monkeypatch.setattr('timm_3g.page.photo.read_photograph', lambda *_: pytest.fail('it was decoded'))
    with pytest.raises(ValueError, match=message):
        open_photo(png_of(*size, tmp_path / 'large.png'), 'RGB', MEGAPIXELS)


def test_an_icon_is_not_read_because_pillow_would_decode_it_to_learn_its_size(photos, tmp_path):
    with Image.open(photos[0]) as image:
        image.save(tmp_path / 'a.ico')
    with pytest.raises(ValueError, match='This file is not an image that can be read here'):
        open_photo(tmp_path / 'a.ico', 'RGB', MEGAPIXELS)


def test_a_table_of_files_good_and_bad(shelf, photos, tmp_path):
    (tmp_path / '=1+1.png').write_bytes(b'Hello.')
    rows = table_of(shelf.get(SHIPPED), [str(photos[0]), str(tmp_path / '=1+1.png')], MEGAPIXELS)
    (expected, *_) = timm_3g.predict(SHIPPED, photos[0], device='cpu', workers=0)
    assert rows[0][:2] == ['0.png', expected.classes[0].name]
    assert float(rows[0][2]) == pytest.approx(expected.classes[0].probability, abs=1e-3)
    assert rows[1][0] == '=1+1.png' and rows[1][5].startswith('This file is not an image')
    lines = write_table(rows, tmp_path).read_text().splitlines()
    assert lines[0] == ','.join(COLUMNS) and lines[2].startswith("'=1+1.png,")


def test_options():
    assert not PageOptions().is_open and PageOptions(host='0.0.0.0').is_open and PageOptions(share=True).is_open
    for wrong, message in (
        ({'port': 70000}, 'port must be from 1 to 65535'),
        ({'models': ()}, 'got none'),
        ({'megapixels': 90}, 'at most 89'),
    ):
        with pytest.raises(ValueError, match=message):
            PageOptions(**wrong)


@pytest.mark.parametrize(
    ('options', 'warning'),
    [
        ({}, ''),
        ({'host': '0.0.0.0'}, 'The page is open to other machines of the network'),
        ({'share': True}, 'The page is open to everybody who has the address'),
    ],
)
def test_a_page_that_others_can_reach_is_announced(options, warning, monkeypatch, capsys):
    asked = {}

    class Blocks:
        def launch(self, **given):
            asked.update(given)
            return None, 'http://here/', ''

        def block_thread(self): ...

        def close(self, **_): ...

    monkeypatch.setattr('timm_3g.page.serve.build_page', lambda _: Blocks())
    before = os.environ.get('GRADIO_TEMP_DIR'), signal.getsignal(signal.SIGTERM)
    page(**options)
    assert (os.environ.get('GRADIO_TEMP_DIR'), signal.getsignal(signal.SIGTERM)) == before
    assert (asked['server_name'], asked['share']) == (options.get('host', '127.0.0.1'), options.get('share', False))
    said = capsys.readouterr()
    assert said.out.startswith('The page is at http://here/') and (warning in said.err if warning else not said.err)


def test_without_gradio_the_command_names_the_extra(monkeypatch, capsys):
    from timm_3g_cli import _name_extra

    assert _name_extra('page', ModuleNotFoundError("No module named 'gradio'", name='gradio')) == 1
    assert "pip install 'timm_3g[page] @ git+https://" in capsys.readouterr().err


def test_the_package_does_not_import_gradio():
    code = 'import sys, timm_3g, timm_3g.cli.predict; assert "gradio" not in sys.modules'
    subprocess.run([sys.executable, '-c', code], check=True)
