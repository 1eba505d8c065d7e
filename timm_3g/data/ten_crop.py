"""Ten crops of one image, for evaluation: timm's transforms give one."""

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms


class TenCrop:
    """Four corners and the centre, and their mirror images: (10, C, size, size) in this order, after `then` on each crop.

    Args:
        size: height and width of a crop.
        then: what turns a PIL crop into a tensor (C, H, W).
    """

    def __init__(self, size: tuple[int, int], then: transforms.Compose) -> None:
        self.crops = transforms.TenCrop(list(size))
        self.then = then

    def __call__(self, image: Image.Image) -> Tensor:
        """A PIL image no smaller than a crop to (10, C, H, W).

        Raises:
            ValueError: the image is smaller than a crop.
        """
        return torch.stack([torch.as_tensor(self.then(crop)) for crop in self.crops(image)])

    def __repr__(self) -> str:
        return f'TenCrop(size={self.crops.size}, then={self.then})'


def to_ten_crop(transform: transforms.Compose) -> transforms.Compose:
    """timm's transform for evaluation with ten crops where it has the central one; resizing and what follows stay timm's.

    Raises:
        ValueError: no central crop in it (crop_mode 'border').
    """
    steps = list(transform.transforms)
    for i, step in enumerate(steps):
        if isinstance(step, transforms.CenterCrop):
            height, width = step.size
            return transforms.Compose([*steps[:i], TenCrop((height, width), transforms.Compose(steps[i + 1 :]))])
    names = ', '.join(type(step).__name__ for step in steps)
    raise ValueError(f"Ten crops need a transform with a central crop (crop_mode 'center' or 'squash'); got {names}.")
