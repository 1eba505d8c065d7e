"""Corruptions of images against their definitions, and their place in timm's transform."""

import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from timm.data import create_transform

from timm_3g.data import Corrupt, to_corrupted, to_ten_crop

# Grey levels of 255 on white noise, the hardest image. Seen: 1.0 and 3.1.
BLUR_RMS = 1.5
BLUR_MAX = 4.0


def picture(width=60, height=40, mode='RGB'):
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def grey(value=128, size=(200, 150)):
    return Image.new('RGB', size, (value,) * 3)


def test_noise_has_its_standard_deviation_and_nothing_else():
    added = np.asarray(Corrupt('noise-std0.1')(grey())).astype(float) - 128
    assert added.std() == pytest.approx(25.5, rel=0.02) and abs(added.mean()) < 0.3
    assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02, 'channels are independent'
    assert abs(np.corrcoef(added[:, 1:, 0].ravel(), added[:, :-1, 0].ravel())[0, 1]) < 0.02, 'pixels are independent'
    white = np.asarray(Corrupt('noise-std0.1')(grey(255)))
    assert white.min() > 100 and (white == 255).mean() == pytest.approx(0.5, abs=0.02), 'clipped, not wrapped'


def test_noise_is_that_of_the_image():
    noise = Corrupt('noise-std0.2')
    first, other = (np.asarray(noise(image)).astype(int) - np.asarray(image) for image in (grey(128), grey(129)))
    assert np.array_equal(np.asarray(noise(grey())), np.asarray(pickle.loads(pickle.dumps(noise))(grey())))
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize('std', [1.0, 2.5])
def test_blur_is_gaussian(std):
    """Pillow approximates the kernel by boxes and rounds. Near the border it pads in a way of its own."""
    image, border = picture(64, 48, 'L'), math.ceil(4 * std)
    expected = gaussian_filter(np.asarray(image, dtype=float), std)
    error = (np.asarray(Corrupt(f'blur-std{std}')(image)) - expected)[border:-border, border:-border]
    assert np.sqrt((error**2).mean()) < BLUR_RMS and np.abs(error).max() < BLUR_MAX


@pytest.mark.parametrize('std', [1.0, 2.5])
def test_blur_has_its_standard_deviation(std):
    """The derivative of a blurred edge is the kernel."""
    edge = Image.fromarray(np.repeat(np.where(np.arange(60) < 30, 0, 255)[None], 8, 0).astype(np.uint8))
    kernel = np.diff(np.asarray(Corrupt(f'blur-std{std}')(edge))[4].astype(float)) / 255
    places = np.arange(59) - (kernel * np.arange(59)).sum()
    assert np.sqrt((kernel * places**2).sum()) == pytest.approx(std, rel=0.03)


def test_jpeg_is_pillows():
    image, file = picture(), io.BytesIO()
    image.save(file, 'JPEG', quality=20)
    assert np.array_equal(np.asarray(Corrupt('jpeg-q20')(image)), np.asarray(Image.open(file)))
    sharp, coarse = (np.abs(np.asarray(Corrupt(f'jpeg-q{q}')(image)).astype(int) - np.asarray(image)).mean() for q in (95, 5))
    assert sharp < coarse


@pytest.mark.parametrize('name', ['noise-std0.1', 'blur-std1', 'jpeg-q20'])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('size', [(60, 40), (1, 1)])
def test_size_and_mode_stay(name, mode, size):
    image = picture(*size, mode)
    before = image.tobytes()
    out = Corrupt(name)(image)
    assert (out.size, out.mode) == (size, mode) and image.tobytes() == before


@pytest.mark.parametrize('mode', ['RGBA', 'P', 'F', 'I;16'])
def test_other_modes_are_refused(mode):
    with pytest.raises(ValueError, match=f'takes images of mode L or RGB; got {mode}'):
        Corrupt('jpeg-q20')(Image.new(mode, (4, 4)))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('fog-std1', r'must be one of noise-stdS, blur-stdS, jpeg-qQ, for example noise-std0\.1; got .fog-std1.'),
        ('noise-q1', 'must be one of'),
        ('noise-std', 'must be one of'),
        ('noise-std-1', 'must be one of'),
        ('noise-std0.1x', 'must be one of'),
        (3, 'must be one of'),
        ('', 'must be one of'),
        ('noise-std\u0660.\u0661', 'must be one of'),
        ('noise-std0', r'std of noise must be from 0\.002, half a grey level, to 1, as in noise-std0\.1; got .noise-std0.'),
        ('noise-std1.5', 'to 1, as in'),
        ('blur-std0', r'std of blur must be from 0\.1 to 100 pixels, as in blur-std1\.0; got .blur-std0.'),
        (f'blur-std{"9" * 400}', 'to 100 pixels'),
        ('jpeg-q0', 'q of jpeg must be an integer from 1 to 95, as in jpeg-q20'),
        ('jpeg-q96', 'an integer from 1 to 95'),
        ('jpeg-q2.5', 'an integer from 1 to 95'),
    ],
)
def test_invalid_names(name, message):
    with pytest.raises(ValueError, match=message):
        Corrupt(name)


@pytest.mark.parametrize('prefetcher', [True, False])
@pytest.mark.parametrize('crop_mode', ['center', 'squash', 'border'])
def test_it_stands_behind_the_crop(prefetcher, crop_mode):
    """What the network sees is the corrupted crop, not the crop of a corrupted image."""
    clean = create_transform(24, use_prefetcher=prefetcher, crop_mode=crop_mode, mean=(0, 0, 0), std=(1, 1, 1))
    image = picture()
    seen, before = (np.asarray(t(image)).astype(float) for t in (to_corrupted(clean, 'noise-std0.1'), clean))
    scale = 255 if prefetcher else 1
    assert seen.shape == before.shape and np.std((seen - before) / scale) == pytest.approx(0.1, rel=0.2)


def test_ten_crops_are_corrupted_each():
    clean = create_transform(24, mean=(0, 0, 0), std=(1, 1, 1))
    noise = to_ten_crop(to_corrupted(clean, 'noise-std0.1'))(picture()) - to_ten_crop(clean)(picture())
    assert noise.shape == (10, 3, 24, 24)
    assert all(one.std().item() == pytest.approx(0.1, rel=0.2) for one in noise)


def test_one_corruption_has_many_spellings():
    assert len({Corrupt(name) for name in ('jpeg-q20', 'jpeg-q020', 'jpeg-q20.0')}) == 1
    assert len({Corrupt('noise-std0.5'), Corrupt('blur-std0.5'), Corrupt('blur-std.6')}) == 3


def test_a_transform_without_a_tensor():
    with pytest.raises(ValueError, match='needs a transform that makes tensors; got Resize'):
        to_corrupted(type(create_transform(24))(create_transform(24).transforms[:1]), 'jpeg-q20')
