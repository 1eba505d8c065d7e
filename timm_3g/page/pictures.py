"""The re-weighting maps over the photograph, and their product."""

import numpy as np
from matplotlib import colormaps
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .look import Look

SIDE = 320  # pixels of the longer side
FLAT = 0.05  # range of the colour scale at least, so that a map that varies little looks flat


def overlays(found: Look, opacity: float) -> list[tuple[Image.Image, str]]:
    """A picture and its caption for each map, then for their product. [] without maps.

    Each cell of a map is drawn as a square of its own, dark where the weight is small. Every map has its own scale, whose range
    the caption says.

    Args:
        found: a look at a photograph.
        opacity: of the map over the photograph, in [0, 1].

    >>> found = Look(torch.ones(1), torch.rand(3, 8, 8), torch.rand(3, 32, 32), 0.0)
    >>> [caption.split(':')[0] for _, caption in overlays(found, 0.6)], overlays(found, 0.6)[0][0].size
    (['block 1', 'block 2', 'block 3', 'product'], (320, 320))
    """
    if not len(found.maps):
        return []
    maps = [*found.maps, found.maps.prod(0)]
    names = [*(f'block {number}' for number in range(1, len(maps))), 'product']
    photo = _sized(found.pixels)
    return [
        (_over(photo, one, opacity), f'{name}: {one.min():.3f} to {one.max():.3f}')
        for name, one in zip(names, maps, strict=True)
    ]


def _sized(pixels: Tensor) -> np.ndarray:
    """(C, H, W) in [0, 1] to grey values (h, w, 3), the longer side SIDE pixels."""
    height, width = pixels.shape[1:]
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    grey = F.interpolate(pixels.mean(0, keepdim=True)[None], size, mode='nearest')[0, 0]
    return grey.numpy()[:, :, None].repeat(3, 2)


def _over(photo: np.ndarray, weights: Tensor, opacity: float) -> Image.Image:
    low, high = float(weights.min()), float(weights.max())
    low = min(low, high - FLAT)
    cells = F.interpolate(((weights - low) / (high - low))[None, None], photo.shape[:2], mode='nearest')[0, 0]
    colours = colormaps['viridis'](cells.numpy())[:, :, :3]
    return Image.fromarray((255 * ((1 - opacity) * photo + opacity * colours)).round().astype(np.uint8))
