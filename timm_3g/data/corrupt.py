"""Noise, blur and JPEG on the images of an evaluation. How much accuracy a network keeps is its robustness to them."""

import io
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter
from timm.data.transforms import MaybePILToTensor, MaybeToTensor, ToNumpy
from torchvision import transforms

CORRUPTIBLE = ('L', 'RGB')  # modes of Pillow


@dataclass(frozen=True)
class Kind:
    """A kind of corruption.

    Attributes:
        parameter: its name in that of a corruption.
        example: a value.
        accepts: whether a value is in range, and `rule` in words.
        rule: of the values.
        apply: from an image and a value to the corrupted image, of the same size and mode.
    """

    parameter: str
    example: str
    accepts: Callable[[float], bool]
    rule: str
    apply: Callable[[Image.Image, float], Image.Image]


def _noise(image: Image.Image, std: float) -> Image.Image:
    """The pixels are the seed: the same crop has the same noise, for any model, in any order and any process."""
    values = np.asarray(image)
    noise = np.random.default_rng(zlib.crc32(values.tobytes())).normal(0.0, 255 * std, values.shape)
    return Image.fromarray(np.clip(values + noise, 0, 255).round().astype(np.uint8))


def _blur(image: Image.Image, std: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(std))


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    file = io.BytesIO()
    image.save(file, 'JPEG', quality=int(quality))
    return Image.open(file).convert(image.mode)


KINDS = {
    'noise': Kind('std', '0.1', lambda std: 0.002 <= std <= 1, 'must be from 0.002, half a grey level, to 1', _noise),
    'blur': Kind('std', '1.0', lambda std: 0.1 <= std <= 100, 'must be from 0.1 to 100 pixels', _blur),
    'jpeg': Kind('q', '20', lambda q: 1 <= q <= 95 and q == int(q), 'must be an integer from 1 to 95', _jpeg),
}


class Corrupt:
    """One corruption of an image, by name.

    - 'noise-stdS': Gaussian noise of standard deviation S, with 1 the range of a pixel, clipped and rounded. The pixels are the
      seed.
    - 'blur-stdS': Pillow's Gaussian blur, whose radius is the standard deviation in pixels.
    - 'jpeg-qQ': compression by Pillow at quality Q with its 4:2:0 chroma.

    Args:
        name: of the corruption.

    Raises:
        ValueError: no such kind, or a value out of range.

    Two of one kind and value are equal, however they are written.

    Source of the kinds: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations", ICLR 2019. The values are the caller's, not their five severities.

    >>> Corrupt('blur-std1.5')(Image.new('L', (3, 2), 7)).getpixel((1, 1))
    7
    >>> Corrupt('fog-std1')
    Traceback (most recent call last):
    ValueError: A corruption must be one of noise-stdS, blur-stdS, jpeg-qQ, for example noise-std0.1; got 'fog-std1'.
    """

    def __init__(self, name: str) -> None:
        found = re.fullmatch(r'([a-z]+)-([a-z]+)([0-9]+|[0-9]*\.[0-9]+)', name) if isinstance(name, str) else None
        kind = KINDS.get(found[1]) if found else None
        if not found or not kind or found[2] != kind.parameter:
            forms = ', '.join(f'{key}-{one.parameter}{one.parameter[0].upper()}' for key, one in KINDS.items())
            raise ValueError(f'A corruption must be one of {forms}, for example noise-std0.1; got {name!r:.80}.')
        self.name, self.kind, self.value = name, found[1], float(found[3])
        if not kind.accepts(self.value):
            raise ValueError(
                f'{kind.parameter} of {found[1]} {kind.rule}, as in {found[1]}-{found[2]}{kind.example}; got {name!r:.80}.'
            )

    def __call__(self, image: Image.Image) -> Image.Image:
        """The corrupted image. Size and mode stay.

        Raises:
            ValueError: an image that is neither RGB nor grey with eight bits.
        """
        if image.mode not in CORRUPTIBLE:
            raise ValueError(f'{self.name} takes images of mode {" or ".join(CORRUPTIBLE)}; got {image.mode}.')
        return KINDS[self.kind].apply(image, self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Corrupt) and (self.kind, self.value) == (other.kind, other.value)

    def __hash__(self) -> int:
        return hash((self.kind, self.value))

    def __repr__(self) -> str:
        return f'Corrupt({self.name!r})'


def to_corrupted(transform: transforms.Compose, name: str) -> transforms.Compose:
    """Corrupt images in timm's transform for evaluation: after the crop, at the size that the network sees.

    Raises:
        ValueError: what `Corrupt` raises, or a transform that makes no tensor.

    >>> from timm.data import create_transform
    >>> [type(step).__name__ for step in to_corrupted(create_transform(24), 'jpeg-q20').transforms]
    ['Resize', 'CenterCrop', 'Corrupt', 'MaybeToTensor', 'Normalize']
    """
    steps = list(transform.transforms)
    for i, step in enumerate(steps):
        if isinstance(step, _TO_TENSOR):
            return transforms.Compose([*steps[:i], Corrupt(name), *steps[i:]])
    raise ValueError(f'A corruption needs a transform that makes tensors; got {", ".join(type(s).__name__ for s in steps)}.')


_TO_TENSOR = (ToNumpy, MaybeToTensor, MaybePILToTensor, transforms.ToTensor, transforms.PILToTensor)
