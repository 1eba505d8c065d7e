"""One photograph through one model: its classes, its re-weighting maps, the time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from timm_3g.inference.images import image_mode
from timm_3g.inference.model import forward
from timm_3g.layers import record_weights

from .photo import open_photo
from .shelf import ShelfModel


@dataclass(frozen=True, eq=False)
class Look:
    """What a model made of a photograph.

    Attributes:
        probabilities: (classes,), float32: the softmax of the logits.
        maps: (T, h, w) in [0, 1], the re-weighting maps. T = 0 without re-weighting.
        pixels: (C, H, W) in [0, 1], the photograph as the model got it.
        seconds: of the forward pass.
    """

    probabilities: Tensor
    maps: Tensor
    pixels: Tensor
    seconds: float

    def top(self, classes: Sequence[str], k: int = 5) -> dict[str, float]:
        """The k most probable classes and their probabilities, in descending order.

        >>> look = Look(torch.tensor([0.25, 0.75]), torch.zeros(0, 1, 1), torch.zeros(3, 1, 1), 0.0)
        >>> look.top(['cat', 'dog'])
        {'dog': 0.75, 'cat': 0.25}
        """
        values, indices = self.probabilities.topk(min(k, len(self.probabilities)))
        return {classes[i]: p for p, i in zip(values.tolist(), indices.tolist(), strict=True)}


def prepare(model: ShelfModel, file: str | Path | None, megapixels: int) -> Tensor:
    """The photograph as the model gets it: (1, C, H, W).

    Raises:
        ValueError: see `open_photo`.
    """
    photo: Image.Image = open_photo(file, image_mode(model.config), megapixels)
    return model.transform(photo).unsqueeze(0)


def look(model: ShelfModel, file: str | Path | None, megapixels: int) -> Look:
    """Classify a photograph.

    Raises:
        ValueError: see `open_photo` and `see`.

    >>> import tempfile
    >>> from timm_3g.page.shelf import Shelf
    >>> file = Path(tempfile.mkdtemp(), 'photo.png')
    >>> Image.new('RGB', (32, 32), 'skyblue').save(file)
    >>> model = Shelf(['resnet10_mini_3g.open_cifar10'], device='cpu').get('resnet10_mini_3g.open_cifar10')
    >>> found = look(model, file, megapixels=50)
    >>> next(iter(found.top(model.classes))), found.maps.shape
    ('bird', torch.Size([3, 8, 8]))
    """
    return see(model, prepare(model, file, megapixels))


@torch.inference_mode()
def see(model: ShelfModel, images: Tensor) -> Look:
    """Classify what `prepare` returns.

    Raises:
        ValueError: logits that are not finite.
    """
    with model.lock, record_weights(model.net) as recorded:
        start = time.perf_counter()
        logits = forward(model.net, images, model.options).float().cpu()[0]
        seconds = time.perf_counter() - start
        maps = torch.cat(recorded, 1).float().cpu()[0] if recorded else logits.new_zeros(0, 1, 1)
    if not logits.isfinite().all():
        raise ValueError(f'{model.name} gives logits that are not finite for this image.')
    mean, std = (torch.tensor(model.config[name]).view(-1, 1, 1) for name in ('mean', 'std'))
    return Look(logits.softmax(0), maps, (images[0] * std + mean).clamp(0, 1), seconds)
