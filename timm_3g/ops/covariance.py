"""Second moments of a set of feature vectors.

Notation of the papers: X is d x N, one column a position. The normaliser is 1/N everywhere, never 1/(N - 1).
"""

import torch
from torch import Tensor

from ._dispatch import without_autocast


def covariance(x: Tensor, centered: bool = True, eps: float = 0.0) -> Tensor:
    """Covariance (or second moment) of the columns of each matrix.

        centered:      (1/N) (X - mean)(X - mean)^T + eps * I
        not centered:  (1/N) X X^T + eps * I

    The mean is subtracted once from the features; the N x N centring matrix of the public codes loses all digits when the
    mean is large. Order of a sum over N is the only freedom, so the result is symmetric to rounding.

    Args:
        x: features (..., d, N), N >= 1.
        centered: subtract the mean over N first. The authors' code centres, the text of the 3G paper writes X X^T.
        eps: added to the diagonal. It is part of the function that weights were trained with, not a free choice.

    Returns:
        (..., d, d), in the dtype of x, autocast or not. With N = 1 and centered: eps * I.

    What it is not: unbiased; of full rank (rank <= N - 1 when centred, plus the eps * I).
    """
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return _covariance(x, centered, eps)
    with without_autocast(x):
        return _covariance(x, centered, eps)


def _covariance(x: Tensor, centered: bool, eps: float) -> Tensor:
    if centered:
        x = x - x.mean(dim=-1, keepdim=True)
    cov = torch.matmul(x, x.transpose(-2, -1)) / x.shape[-1]
    if eps > 0:
        cov = cov + eps * torch.eye(x.shape[-2], device=x.device, dtype=x.dtype)
    return cov


def append_ones(x: Tensor) -> Tensor:
    """[X; 1^T]: features whose second moment is the Gaussian N(mu, Sigma) of the columns of X as one matrix.

        covariance(append_ones(x), centered=False) = [[Sigma + mu mu^T, mu], [mu^T, 1]]

    Source: Wang, Li, Zhang, "G2DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual
    Recognition", CVPR 2017: the embedding matrix, before its square root.

    Args:
        x: features (..., d, N), N >= 1.

    Returns:
        (..., d + 1, N), in the dtype of x.
    """
    return torch.cat([x, torch.ones_like(x[..., :1, :])], dim=-2)
