"""Right answers, counted."""

from dataclasses import dataclass

import torch
from torch import Tensor

from timm_3g.checkpoints import NotFiniteError


@dataclass
class Counts:
    """Number of images, and of those whose label is the first or among the first five classes.

    >>> counts = Counts()
    >>> counts.add(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.tensor([0, 0]))
    >>> counts
    Counts(images=2, top1=1, top5=2)
    """

    images: int = 0
    top1: int = 0
    top5: int = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: logits (B, classes), target (B,) of class indices.

        Raises:
            NotFiniteError: logits that are not finite.
            ValueError: a label that the model has no class for, or images without labels, which
                some data sets mark with -1.
        """
        finite = logits.isfinite().all(1)
        if not finite.all():
            raise NotFiniteError(
                f'The logits of image {self.images + int((~finite).int().argmax()) + 1} of this process are not finite. The '
                f'weights, mean or std are damaged, or amp overflows. The accuracy cannot be computed.'
            )
        if len(target) and int(target.min()) < 0:
            raise ValueError(f'The data set has class {int(target.min())}: this split has no labels. Choose another split.')
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise ValueError(
                f'The data set has class {int(target.max())}, but the model has classes 0 to {logits.shape[1] - 1}. Choose '
                f'weights and a number of classes that match the data, or a class map.'
            )
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == target[:, None]
        self.images += len(target)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())

    def over_processes(self, device: torch.device) -> 'Counts':
        """The sum over all processes. Every process must call it.

        >>> Counts(3, 2, 3).over_processes(torch.device('cpu'))
        Counts(images=3, top1=2, top5=3)
        """
        if not torch.distributed.is_initialized():
            return self
        numbers = torch.tensor([self.images, self.top1, self.top5], device=device)
        torch.distributed.all_reduce(numbers)
        return Counts(*numbers.tolist())
