"""How well one quantity stands for another, image by image."""

import warnings

import torch
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of each row: (M, N), (M, N) to (M,), float64. NaN where a row is constant.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 8.0, 27.0]]))
    tensor([1.], dtype=torch.float64)
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', ConstantInputWarning)
        pairs = zip(a.double().cpu().numpy(), b.double().cpu().numpy(), strict=True)
        return torch.tensor([spearmanr(x, y).statistic for x, y in pairs], dtype=torch.float64)


def misfit(a: Tensor, b: Tensor) -> Tensor:
    """min over c of |c a - b| / |b|, over all but the first dimension: (M, ...), (M, ...) to (M,).

    This is the sine of the angle between a and b: 0 is proportional, 1 is orthogonal.

    >>> misfit(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 0.0], [0.0, 2.0]]))
    tensor([0., 1.])
    """
    a, b = a.flatten(1), b.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return (1 - cosine.square()).clamp(min=0).sqrt()
