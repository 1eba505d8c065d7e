"""Transforms: scale by the shorter side, colour by PCA, ten crops; what timm's factory makes of them; shares of a data set."""

import functools
import pickle
import random

import numpy as np
import pytest
import torch
from common import image_folder
from PIL import Image
from timm.data import create_dataset, create_transform, transforms_factory
from torchvision import transforms

from timm_3g.data import (
    ColorPCA,
    RandomShorterSide,
    TenCrop,
    install_augmentations,
    names_in_order,
    read_class_map,
    require_data,
    require_split,
    share,
    to_ten_crop,
)


@pytest.fixture
def installed(monkeypatch):
    original = transforms_factory.transforms_imagenet_train
    monkeypatch.setattr(transforms_factory, 'transforms_imagenet_train', original)  # undone after the test
    install_augmentations()
    return original


@pytest.fixture(autouse=True)
def _random():
    random.seed(0)


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize('size', [(60, 40), (40, 60), (50, 50), (301, 40)])
def test_shorter_side(size):
    image, sides = picture(*size), set()
    for _ in range(60):
        out = RandomShorterSide(20, 24)(image)
        side = min(out.size)
        sides.add(side)
        scale = side / min(size)
        assert all(abs(o - scale * i) <= 0.5 for o, i in zip(out.size, size, strict=True))
    assert sides == {20, 21, 22, 23, 24}  # both ends


def test_shorter_side_refuses():
    with pytest.raises(ValueError, match=r'1 <= low <= high pixels; got \[30, 20\]'):
        RandomShorterSide(30, 20)


def test_color_pca_has_the_covariance_of_its_definition():
    """The colour added is sum_i a_i l_i v_i: its covariance is std^2 V diag(l^2) V^T, here in units of [0, 255]."""
    values = np.array([0.2175, 0.0188, 0.0045])
    vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=5e-4)
    grey = Image.new('RGB', (3, 2), (128, 128, 128))
    added = np.array([np.asarray(ColorPCA(0.5)(grey), dtype=float) - 128 for _ in range(4000)])
    assert np.ptp(added, axis=(1, 2)).max() == 0, 'one colour for the whole image'
    expected = 0.25 * 255**2 * vectors @ np.diag(values**2) @ vectors.T
    np.testing.assert_allclose(np.cov(added[:, 0, 0].T), expected, rtol=0.1, atol=1.0)


def test_color_pca_leaves_alone_and_refuses():
    image = picture(5, 4)
    assert np.array_equal(ColorPCA(0.0)(image), image)
    assert ColorPCA(0.1)(image.convert('L')).mode == 'L'
    bright = np.asarray(ColorPCA(50.0)(image))
    assert bright.dtype == np.uint8 and set(bright.flat) <= set(range(256))
    with pytest.raises(ValueError, match='std must not be negative; got -1'):
        ColorPCA(-1)


@pytest.mark.parametrize('prefetcher', [True, False])
def test_timms_factory_takes_the_new_names(installed, prefetcher):
    transform = create_transform(
        24,
        is_training=True,
        train_crop_mode='shorter-side',
        scale=[28.0, 40.0],
        auto_augment='pca-std0.1',
        use_prefetcher=prefetcher,
    )
    kinds = [type(step).__name__ for step in transform.transforms]
    assert kinds[:4] == ['RandomShorterSide', 'RandomCrop', 'RandomHorizontalFlip', 'ColorPCA']
    assert 'ColorJitter' not in kinds and 'RandomResizedCropAndInterpolation' not in kinds
    assert transform.transforms[3].std == 0.1
    for size in [(60, 33), (9, 12)]:
        assert transform(picture(*size)).shape == (3, 24, 24)


def test_one_new_name_alone(installed):
    crop = create_transform(24, is_training=True, train_crop_mode='shorter-side', scale=[28, 40], color_jitter=0.4)
    assert 'ColorJitter' in repr(crop) and 'ColorPCA' not in repr(crop)
    colour = create_transform(24, is_training=True, auto_augment='pca-std0.2', hflip=0.0)
    kinds = [type(step).__name__ for step in colour.transforms]
    assert kinds[:2] == ['RandomResizedCropAndInterpolation', 'ColorPCA']
    parts = create_transform(
        24, is_training=True, train_crop_mode='shorter-side', scale=[28, 40], auto_augment='pca-std0.1', separate=True
    )
    assert len(parts) == 3 and 'RandomShorterSide' in repr(parts[0])
    assert ['ColorPCA' in repr(part) for part in parts] == [False, True, False], 'the clean split stays clean'
    with pytest.raises(ValueError, match='not for --naflex-loader'):
        transforms_factory.transforms_imagenet_train(24, train_crop_mode='shorter-side', scale=[28, 40], naflex=True)


@pytest.mark.parametrize('options', [{}, {'train_crop_mode': 'rkrr'}, {'auto_augment': 'rand-m9'}, {'separate': True}])
def test_every_other_setting_stays_timms(installed, options):
    ours = transforms_factory.transforms_imagenet_train(24, **options)
    assert repr(ours) == repr(installed(24, **options))


def test_install_twice_is_once(installed):
    once = transforms_factory.transforms_imagenet_train
    install_augmentations()
    assert transforms_factory.transforms_imagenet_train is once


def test_a_scale_in_fractions_is_refused(installed):
    with pytest.raises(ValueError, match=r'takes scale in pixels of the shorter side, e.g. --scale 256 512; got \(0.08, 1.0\)'):
        create_transform(24, is_training=True, train_crop_mode='shorter-side', scale=(0.08, 1.0))
    with pytest.raises(ValueError, match=r'takes scale from the size of the crop on; got \[28, 40\] for a crop of'):
        create_transform((3, 24, 32), is_training=True, train_crop_mode='shorter-side', scale=[28, 40])


def test_ten_crops_are_corners_centre_and_their_mirrors():
    image = picture(7, 6)
    pixels = np.asarray(image)
    crops = TenCrop((4, 5), transforms.Compose([transforms.PILToTensor()]))(image).permute(0, 2, 3, 1).numpy()
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    plain = [pixels[y : y + 4, x : x + 5] for y, x in corners]
    mirror = pixels[:, ::-1]
    mirrored = [mirror[y : y + 4, x : x + 5] for y, x in corners]
    assert np.array_equal(crops, np.stack(plain + mirrored))


@pytest.mark.parametrize('prefetcher', [True, False])
def test_to_ten_crop_keeps_the_rest_of_timms_transform(prefetcher):
    one = create_transform(24, crop_pct=0.75, use_prefetcher=prefetcher)
    ten = to_ten_crop(one)
    image = picture(40, 50)
    assert torch.equal(ten(image)[4], one(image))
    with pytest.raises(ValueError, match="crop_mode 'center' or 'squash'"):
        to_ten_crop(create_transform(24, crop_mode='border'))


def test_shares_hold_every_image_once(tmp_path):
    image_folder(tmp_path, {'val': 7}, classes=2)
    whole = create_dataset('', root=str(tmp_path), split='val')
    parts = [share(create_dataset('', root=str(tmp_path), split='val'), rank, 4) for rank in range(4)]
    assert [len(part) for part in parts] == [4, 4, 3, 3]
    parts[0].transform = transforms.PILToTensor()
    assert parts[0][0][0].shape == (3, 32, 32) and parts[0].transform is parts[0].dataset.transform
    labels = [part[i][1] for i in range(4) for part in parts if i < len(part)]
    assert labels == [whole[i][1] for i in range(14)]
    assert len(share(whole, 0, 1)) == len(whole)


def test_a_split_that_is_not_there_is_an_error(tmp_path):
    image_folder(tmp_path, {'train': 1, 'val': 1}, classes=1)
    require_split(str(tmp_path), 'train')
    require_split(str(tmp_path), 'validation')  # timm finds `val`
    with pytest.raises(
        ValueError, match=r"has no split 'tset' and timm would use the images of every split. Its folders: train, val"
    ):
        require_split(str(tmp_path), 'tset')


def wrapped(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize('before', [False, True])
@pytest.mark.parametrize('after', [False, True])
def test_a_foreign_wrapper_is_not_taken_for_ours(before, after, monkeypatch):
    original = transforms_factory.transforms_imagenet_train
    monkeypatch.setattr(transforms_factory, 'transforms_imagenet_train', wrapped(original) if before else original)
    install_augmentations()
    assert 'ColorPCA' in repr(create_transform(24, is_training=True, auto_augment='pca-std0.1'))
    if after:
        transforms_factory.transforms_imagenet_train = wrapped(transforms_factory.transforms_imagenet_train)
    installed = transforms_factory.transforms_imagenet_train
    install_augmentations()
    assert transforms_factory.transforms_imagenet_train is installed, 'twice is once'


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.txt', b'x\ny\nx\n', "has 'x' twice"),
        ('a.txt', b'x\n\ny\n', 'has an empty line'),
        ('a.txt', b'\n', 'is empty'),
        ('a.txt', b'\xef\xbb\xbfx\ny\n', 'begins with a byte order mark'),
        ('a.txt', b'\xff\xfex\0', 'must be UTF-8'),
        ('a.json', b'{}', "must be a .txt with one name per line, or a .pkl of a dict; got '.json'"),
        ('a.pkl', pickle.dumps(print), 'must be a pickled dict of built-in types'),
        ('a.pkl', b'', 'must be a pickled dict of built-in types'),
        ('a.pkl', pickle.dumps(['x']), 'must be a pickled dict of built-in types'),
        ('a.pkl', pickle.dumps({}), 'must map names to indices, which start at 0'),
        ('a.pkl', pickle.dumps({'x': -1}), 'must map names to indices, which start at 0'),
        ('a.pkl', pickle.dumps({'x': '0'}), 'must map names to indices, which start at 0'),
    ],
)
def test_class_maps_that_are_refused(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_map(tmp_path / name)


def test_class_maps(tmp_path):
    (tmp_path / 'c.txt').write_text('tru\u2028ck\ncar\n', encoding='utf-8')  # one line for timm
    assert read_class_map('c.txt', tmp_path) == {'tru\u2028ck': 0, 'car': 1}
    (tmp_path / 'a.txt').write_text('x \ny\n\n')
    assert read_class_map('a.txt', tmp_path) == {'x': 0, 'y': 1}
    (tmp_path / 'b.txt').write_bytes(b'x\r\ny\r\n')
    assert read_class_map('b.txt', tmp_path) == {'x': 0, 'y': 1}
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps({'y': 1, 'x': 0}))
    assert names_in_order(read_class_map(tmp_path / 'a.pkl'), 'a.pkl') == ['x', 'y']
    for wrong, place in (
        ({'x': 0, 'y': 2}, '2 in place of 1'),
        ({'x': 0, 'y': 0}, '0 in place of 1'),
        ({'x': 1}, '1 in place of 0'),
    ):
        with pytest.raises(ValueError, match=place):
            names_in_order(wrong, 'a.pkl')
    with pytest.raises(FileNotFoundError, match='does not exist'):
        read_class_map(tmp_path / 'gone.txt')


def test_data_that_is_not_there(tmp_path):
    require_data(str(tmp_path))
    with pytest.raises(FileNotFoundError, match='nowhere: there is no such folder or tar file'):
        require_data(str(tmp_path / 'nowhere'))
    (tmp_path / 'a.tar').write_text('no tar')
    with pytest.raises(OSError, match='must be a folder or a tar file'):
        require_data(str(tmp_path / 'a.tar'))
