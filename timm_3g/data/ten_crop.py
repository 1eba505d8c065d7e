"""Ten crops of one image for evaluation. timm's transforms have one."""

import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms


class TenCrop:
    """Four corners and the centre, then their mirror images.

    Args:
        size: height and width of a crop.
        then: from a PIL crop to a tensor (C, H, W).

    >>> TenCrop((4, 4), transforms.Compose([transforms.PILToTensor()]))(Image.new('RGB', (8, 6))).shape
    torch.Size([10, 3, 4, 4])
    """

    def __init__(self, size: tuple[int, int], then: transforms.Compose) -> None:
        self.crops = transforms.TenCrop(list(size))
        self.then = then

    def __call__(self, image: Image.Image) -> Tensor:
        """Crop a PIL image: (10, C, H, W).

        Raises:
            ValueError: the image is smaller than a crop.
        """
        return torch.stack([torch.as_tensor(self.then(crop)) for crop in self.crops(image)])

    def __repr__(self) -> str:
        return f'TenCrop(size={self.crops.size}, then={self.then})'


def to_ten_crop(transform: transforms.Compose) -> transforms.Compose:
    """Replace the central crop of timm's transform for evaluation by ten crops. The other steps are kept.

    Raises:
        ValueError: a transform without a central crop (crop_mode 'border').

    >>> from timm.data import create_transform
    >>> [type(step).__name__ for step in to_ten_crop(create_transform(24)).transforms]
    ['Resize', 'TenCrop']
    """
    steps = list(transform.transforms)
    for i, step in enumerate(steps):
        if isinstance(step, transforms.CenterCrop):
            height, width = step.size
            return transforms.Compose([*steps[:i], TenCrop((height, width), transforms.Compose(steps[i + 1 :]))])
    names = ', '.join(type(step).__name__ for step in steps)
    raise ValueError(f"Ten crops need a transform with a central crop (crop_mode 'center' or 'squash'); got {names}.")
