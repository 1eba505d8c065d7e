"""Training augmentations of the papers that timm lacks: scale by the shorter side, and colour along PCA axes.

`install_augmentations` adds them to timm's factory, so that timm's unmodified train.py takes
`--train-crop-mode shorter-side --scale 256 512` and `--aa pca-std0.1`.
"""

import inspect
import random
import re
from functools import wraps
from typing import Any

import numpy as np
from PIL import Image
from timm.data import transforms_factory
from timm.data.transforms import (
    CenterCropOrPad,
    RandomCropOrPad,
    RandomResizedCropAndInterpolation,
    ResizeKeepRatio,
    str_to_pil_interp,
)
from torchvision import transforms

CROP_MODE = 'shorter-side'
MARK = '_timm_3g_augmentations'  # on our wrapper of timm's factory
PCA_PATTERN = re.compile(r'pca-std(\d*\.?\d+)')

# Eigenvalues and eigenvectors (columns) of the covariance of ImageNet's RGB values in [0, 1]: the numbers in common use since
# the first public reimplementations of AlexNet.
IMAGENET_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
IMAGENET_AXES = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


class RandomShorterSide:
    """Resize so that the shorter side is an integer drawn uniformly from [low, high] pixels. The aspect ratio is kept.

    Source: Simonyan and Zisserman, ICLR 2015, section 3.1 (training scale S in [256, 512]); He et al., CVPR 2016, section 3.4.

    Args:
        low, high: range of the shorter side in pixels, both ends included.
        interpolation: timm's name, or 'random' (bilinear or bicubic).

    Raises:
        ValueError: unless 1 <= low <= high.

    >>> RandomShorterSide(48, 48)(Image.new('RGB', (32, 64))).size
    (48, 96)
    """

    def __init__(self, low: int, high: int, interpolation: str = 'bilinear') -> None:
        if not 1 <= low <= high:
            raise ValueError(f'The shorter side must be drawn from 1 <= low <= high pixels; got [{low}, {high}].')
        self.low, self.high = low, high
        self.interpolation = interpolation

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize a PIL image."""
        name = random.choice(['bilinear', 'bicubic']) if self.interpolation == 'random' else self.interpolation
        side = random.randint(self.low, self.high)
        scale = side / min(image.size)
        width, height = (max(side, round(length * scale)) for length in image.size)
        return image.resize((width, height), str_to_pil_interp(name))

    def __repr__(self) -> str:
        return f'RandomShorterSide({self.low}, {self.high}, interpolation={self.interpolation!r})'


class ColorPCA:
    """Add one random colour to the whole image, drawn along the principal axes of ImageNet's colours.

    Source: Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section
    4.1. The colour is sum_i a_i l_i v_i with a_i ~ N(0, std^2), l_i the eigenvalues and v_i the eigenvectors above.

    Args:
        std: standard deviation of a_i, 0.1 in the paper.

    Raises:
        ValueError: negative std.

    >>> random.seed(0)
    >>> grey = Image.new('RGB', (2, 2), (128, 128, 128))
    >>> ColorPCA(1.0)(grey).getpixel((0, 0))
    (93, 98, 102)
    """

    def __init__(self, std: float = 0.1) -> None:
        if std < 0:
            raise ValueError(f'std must not be negative; got {std}.')
        self.std = std

    def __call__(self, image: Image.Image) -> Image.Image:
        """Add the colour to a PIL image in RGB, clipped to [0, 255]. Images in other modes are returned unchanged."""
        if image.mode != 'RGB':
            return image
        draws = np.array([random.gauss(0.0, self.std) for _ in range(3)])
        colour = 255.0 * IMAGENET_AXES @ (draws * IMAGENET_EIGENVALUES)
        return Image.fromarray(np.clip(np.asarray(image, dtype=np.float64) + colour, 0, 255).round().astype(np.uint8))

    def __repr__(self) -> str:
        return f'ColorPCA(std={self.std})'


def install_augmentations() -> None:
    """Add CROP_MODE and 'pca-std...' to timm's factory of training transforms. Every other setting works as before.

    Calling it again changes nothing. In the installed factory:

    - train_crop_mode='shorter-side': `RandomShorterSide(*scale)`, then a random crop of img_size.
    - auto_augment='pca-stdS': `ColorPCA(S)` after the flips, instead of colour jitter, as any auto_augment.

    --no-aug disables both, as it disables those of timm.

    >>> from timm.data import create_transform
    >>> timms = transforms_factory.transforms_imagenet_train
    >>> install_augmentations()
    >>> create_transform(224, is_training=True, train_crop_mode='shorter-side', scale=(256, 512)).transforms[0]
    RandomShorterSide(256, 512, interpolation='bilinear')
    >>> transforms_factory.transforms_imagenet_train = timms  # to undo it
    """
    original = transforms_factory.transforms_imagenet_train
    if _is_installed(original):
        return

    @wraps(original)
    def transforms_imagenet_train(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind(*args, **kwargs)
        given.apply_defaults()
        options = given.arguments
        pca = PCA_PATTERN.fullmatch(options['auto_augment'] or '')
        shorter_side = options['train_crop_mode'] == CROP_MODE
        if not pca and not shorter_side:
            return original(*args, **kwargs)
        if options['naflex']:
            raise ValueError(f'{CROP_MODE!r} and pca-std... are for images of one size, not for --naflex-loader.')
        size, scale, interpolation = options['img_size'], options['scale'], options['interpolation']
        options |= {'auto_augment': None, 'color_jitter': None} if pca else {}
        options |= {'scale': None, 'train_crop_mode': None} if shorter_side else {}
        made = original(**options)
        stages = [list(stage.transforms) for stage in (made if isinstance(made, tuple) else (made,))]
        if shorter_side:
            low, high = _pixels(scale)
            if low < max(size if isinstance(size, (tuple, list)) else (size,)):
                raise ValueError(f'{CROP_MODE!r} takes scale from the size of the crop on; got {scale} for a crop of {size}.')
            assert isinstance(stages[0][0], RandomResizedCropAndInterpolation)  # its place is what ours take
            stages[0][:1] = [RandomShorterSide(low, high, interpolation), transforms.RandomCrop(size)]
        if pca and len(stages) > 1:  # as any auto_augment: not in the first stage, which the clean split shares
            stages[1].insert(0, ColorPCA(float(pca[1])))
        elif pca:
            flips = max(i for i, step in enumerate(stages[0]) if isinstance(step, _GEOMETRIC)) + 1
            stages[0].insert(flips, ColorPCA(float(pca[1])))
        composed = tuple(transforms.Compose(stage) for stage in stages)
        return composed if isinstance(made, tuple) else composed[0]

    setattr(transforms_imagenet_train, MARK, transforms_imagenet_train)
    transforms_factory.transforms_imagenet_train = transforms_imagenet_train


def _is_installed(function: Any) -> bool:
    """Whether ours is in this chain of wrappers. functools.wraps copies attributes, so a mark counts only on its owner."""
    while function is not None:
        if getattr(function, MARK, None) is function:
            return True
        function = getattr(function, '__wrapped__', None)
    return False


_GEOMETRIC = (
    RandomResizedCropAndInterpolation,
    ResizeKeepRatio,
    CenterCropOrPad,
    RandomCropOrPad,
    RandomShorterSide,
    transforms.RandomCrop,
    transforms.RandomHorizontalFlip,
    transforms.RandomVerticalFlip,
)


def _pixels(scale: Any) -> tuple[int, int]:
    low, high = scale or (0, 0)
    if low < 2:  # timm's fractions of the area, its default among them
        raise ValueError(
            f'train_crop_mode={CROP_MODE!r} takes scale in pixels of the shorter side, e.g. --scale 256 512; got {scale}.'
        )
    return int(low), int(high)
