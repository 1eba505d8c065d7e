"""What people's own photographs are read as, and which files a command line names."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from timm_3g.inference import Images, find_images, read_photograph
from timm_3g.inference.explain import Explainer
from timm_3g.inference.images import read_batches
from timm_3g.inference.photograph import UPRIGHT
from timm_3g.inference.predict import PredictOptions

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
RAMP = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
AS_STORED = {  # what a camera writes for each orientation, by flips and turns of the upright array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize('suffix', ['png', 'tiff', 'webp'])
@pytest.mark.parametrize('orientation', AS_STORED)
def test_every_orientation_is_turned_upright(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / f'phone.{suffix}'
    Image.fromarray(np.ascontiguousarray(AS_STORED[orientation](PIXELS))).save(file, exif=exif, lossless=True)
    assert np.array_equal(read_photograph(file, 'RGB'), PIXELS)
    assert set(UPRIGHT) == set(AS_STORED) - {1}


@pytest.mark.parametrize('block', [b'', b'Exif\0\0', b'Exif\0\0MM\0*\0\0\0\x08\xff\xff', b'Exif\0\0' + bytes(range(64))])
def test_a_broken_exif_block_does_not_lose_the_image(block, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png', exif=block)
    assert np.array_equal(read_photograph(tmp_path / 'a.png', 'RGB'), PIXELS)


def test_an_orientation_that_does_not_exist(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 9
    Image.fromarray(PIXELS).save(tmp_path / 'a.png', exif=exif)
    assert np.array_equal(read_photograph(tmp_path / 'a.png', 'RGB'), PIXELS)


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize(
    ('pixels', 'suffix'),
    [
        (RAMP.astype(np.uint16) * 257, 'png'),
        (RAMP.astype(np.uint16) * 257, 'tiff'),
        (RAMP.astype(np.uint16) * 257, 'pgm'),
        (RAMP.astype(np.int32) * 257, 'tiff'),
        (RAMP.astype(np.int32), 'tiff'),
        (RAMP.astype(np.float32) / 255, 'tiff'),
        (RAMP.astype(np.float32), 'tiff'),
        (RAMP, 'png'),
    ],
)
def test_grey_of_any_depth_is_what_it_is_in_eight_bits(pixels, suffix, mode, tmp_path):
    Image.fromarray(pixels).save(tmp_path / f'grey.{suffix}')
    found = np.asarray(read_photograph(tmp_path / f'grey.{suffix}', mode))
    assert np.array_equal(found, RAMP if mode == 'L' else np.repeat(RAMP[..., None], 3, 2))


def test_pixels_without_a_range_are_stretched(tmp_path):
    Image.fromarray(RAMP.astype(np.float32) * 1e6 - 5e5).save(tmp_path / 'a.tiff')
    found = np.asarray(read_photograph(tmp_path / 'a.tiff', 'L'))
    assert found.min() == 0 and found.max() == 255 and (np.diff(found.ravel().astype(int)) > 0).all()
    Image.fromarray(np.full((3, 3), np.nan, dtype=np.float32)).save(tmp_path / 'nan.tiff')
    with pytest.raises(ValueError, match='NaN or infinite'):
        read_photograph(tmp_path / 'nan.tiff', 'L')


@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'P', 'CMYK', '1'])
def test_other_modes_are_what_timm_makes_of_them(mode, tmp_path):
    """Transparency is dropped there; a palette with transparency is read without a warning."""
    file = tmp_path / ('a.tiff' if mode == 'CMYK' else 'a.png')
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(file, **({'transparency': bytes([0, 128, 255])} if mode == 'P' else {}))
    assert np.array_equal(read_photograph(file, 'RGB'), image.convert('RGB'))


def test_postscript_is_never_started(tmp_path, monkeypatch):
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    (tmp_path / 'photo.png').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n')
    _, image, error = Images([tmp_path / 'photo.png'], None, 'RGB')[0]
    assert image is None and 'UnidentifiedImageError' in error and '\n' not in error


@pytest.mark.parametrize('orientation', [3, 6, 8])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_an_uncompressed_tiff_is_turned_as_a_png_is(dtype, orientation, tmp_path):
    pixels = np.zeros((4, 6), dtype)
    pixels[0] = np.iinfo(dtype).max
    exif = Image.Exif()
    exif[0x112] = orientation
    for suffix in ('tiff', 'png'):
        Image.fromarray(pixels).save(tmp_path / f'a.{suffix}', exif=exif)
    turned = read_photograph(tmp_path / 'a.tiff', 'L')
    assert np.array_equal(turned, read_photograph(tmp_path / 'a.png', 'L'))
    assert np.array_equal(turned, np.rot90(pixels // max(1, np.iinfo(dtype).max // 255), {3: 2, 6: -1, 8: 1}[orientation]))


def test_float_grey_a_little_above_one_is_not_black(tmp_path):
    Image.fromarray(RAMP.astype(np.float32) / RAMP.max() * 1.02).save(tmp_path / 'a.tiff')
    assert np.asarray(read_photograph(tmp_path / 'a.tiff', 'L')).max() == 255


def test_an_image_that_would_take_all_memory_is_one_error(tmp_path):
    Image.new('1', (60000, 1)).save(tmp_path / 'thin.png')
    Image.new('L', (600, 1)).save(tmp_path / 'long.png')
    config = {'input_size': (3, 64, 64), 'crop_pct': 1.0, 'mean': (0,) * 3, 'std': (1,) * 3, 'interpolation': 'bilinear'}
    files = [tmp_path / 'thin.png', tmp_path / 'long.png']
    for crop_mode, readable in (('center', [False, True]), ('squash', [True, True])):
        options = PredictOptions('resnet10_mini_3g.cifar10', files, workers=0)
        (batch,) = read_batches(files, {**config, 'crop_mode': crop_mode}, options, 2)
        assert [image.pixels is not None for image in batch] == readable
        assert ['one side may be 21845 times the other' in image.error for image in batch] == [not one for one in readable]


def test_many_images_in_a_batch_take_few_file_descriptors(tmp_path):
    """A worker that ran out of them would hang the process."""
    file = tmp_path / 'a.png'
    Image.fromarray(PIXELS).save(file)
    (tmp_path / 'b.png').write_text('no image')
    program = (
        'import resource, pathlib, sys\n'
        'from timm_3g.inference.images import read_batches\n'
        'from timm_3g.inference.predict import PredictOptions\n'
        'resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n'
        'files = [pathlib.Path(name) for name in sys.argv[1:]] * 100\n'
        'config = dict(input_size=(3, 8, 8), crop_pct=1.0, crop_mode="center", mean=(0,) * 3, std=(1,) * 3)\n'
        'config["interpolation"] = "bilinear"\n'
        'batches = list(read_batches(files, config, PredictOptions("resnet10_mini_3g.cifar10", files, workers=1), 100))\n'
        'print([sum(image.pixels is not None for image in batch) for batch in batches])\n'
    )
    with (tmp_path / 'said').open('w') as said:  # a worker that hangs would keep a pipe open
        line = [sys.executable, '-c', program, file, tmp_path / 'b.png']
        subprocess.run(line, stdout=said, stderr=said, timeout=120, check=True)
    assert (tmp_path / 'said').read_text().strip().endswith('[50, 50]')


def test_a_file_that_is_named_twice_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('in').mkdir()
    Image.fromarray(PIXELS).save('a.png')
    assert find_images(['a.png', 'in/../a.png', tmp_path / 'a.png', '.']) == [Path('a.png')]
    with pytest.raises(FileNotFoundError, match="'' names no image"):
        find_images('')


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch, capsys):
    (tmp_path / 'secret').mkdir()
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    access = os.access
    monkeypatch.setattr(os, 'access', lambda path, mode: Path(path).name != 'secret' and access(path, mode))
    assert find_images(tmp_path) == [tmp_path / 'a.png']
    assert f'Skipped folders that cannot be read: {tmp_path / "secret"}.' in capsys.readouterr().err


def test_a_decompression_bomb_is_one_error(tmp_path, monkeypatch):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    _, image, error = Images([tmp_path / 'a.png'], None, 'RGB')[0]
    assert image is None and error.startswith('DecompressionBombError')


def test_text_chunks_do_not_matter(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text('Orientation', '6')
    Image.fromarray(PIXELS).save(tmp_path / 'a.png', pnginfo=info)
    assert np.array_equal(read_photograph(tmp_path / 'a.png', 'RGB'), PIXELS)


def test_linked_folders_are_searched_and_circles_end(tmp_path, monkeypatch):
    for folder in ('store', 'album/y2023'):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(PIXELS).save(tmp_path / folder / 'a.png')
    (tmp_path / 'album' / 'a_link').symlink_to('../store')
    for name in ('l1', 'l2'):
        (tmp_path / 'album' / name).symlink_to('.')
    files = [tmp_path / 'album' / name / 'a.png' for name in ('a_link', 'y2023')]
    assert find_images([str(tmp_path / 'album')]) == files
    assert find_images([str(tmp_path / 'album' / '**' / '*.png')]) == files
    assert find_images([str(tmp_path / '**' / 'album' / '**' / 'a.png')]) == files
    monkeypatch.chdir(tmp_path)
    assert [str(f) for f in find_images(['album/**/*.png'])] == ['album/a_link/a.png', 'album/y2023/a.png']
    assert [str(f) for f in find_images(['**/y2023/*.png'])] == ['album/y2023/a.png']


def test_what_is_skipped_in_folders_is_said(tmp_path, capsys):
    Image.fromarray(PIXELS).save(tmp_path / 'a.png')
    for name in ('b.webp', 'c.WEBP', 'd.txt', 'README'):
        (tmp_path / name).touch()
    assert find_images([str(tmp_path)]) == [tmp_path / 'a.png']
    out, err = capsys.readouterr()
    assert err.startswith('Skipped in folders: 1 .txt, 2 .webp, 1 without a suffix.') and err.count('\n') == 1 and not out
    os.remove(tmp_path / 'a.png')
    with pytest.raises(FileNotFoundError, match=r'a folder with images.*The folder has: 1 .txt, 2 .webp'):
        find_images([str(tmp_path)])


def test_what_is_skipped_counts_once_and_not_if_it_is_named(tmp_path, capsys):
    (tmp_path / 's' / 't').mkdir(parents=True)
    for name in ('a.png', 's/t/n.txt'):
        (tmp_path / name).touch()
    assert (
        find_images([tmp_path, tmp_path]) == [tmp_path / 'a.png'] and 'Skipped in folders: 1 .txt.' in capsys.readouterr().err
    )
    assert tmp_path / 's' / 't' / 'n.txt' in find_images(f'{tmp_path}/**') and 'Skipped' not in capsys.readouterr().err


def test_a_class_name_is_no_mathematics(tmp_path):
    explainer = Explainer(tmp_path, [tmp_path / 'a.png'], mean=[0.5] * 3, std=[0.2] * 3)
    assert explainer.draw(0, torch.rand(3, 8, 8), torch.rand(1, 4, 4), '$1_to_5_$ 98.0 %').is_file()
