"""Second moments of a set of feature vectors.

Notation of the papers: X is d x N, one column per position. The divisor is N everywhere, never N - 1."""

import torch
from torch import Tensor

from ._dispatch import without_autocast


def covariance(x: Tensor, centered: bool = True, eps: float = 0.0) -> Tensor:
    """Covariance or second moment of the columns of each matrix.

        centered:      (1/N) (X - mean)(X - mean)^T + eps * I
        not centered:  (1/N) X X^T + eps * I

    The mean is subtracted from the features. Public implementations multiply by an N x N centering matrix, which loses all
    digits when the mean is large. The result is symmetric to rounding. It is not the unbiased estimate. Centered and without
    eps its rank is at most N - 1.

    Source: Li, Xie, Wang, Zuo, MPN-COV, ICCV 2017, https://arxiv.org/abs/1703.08050
    The 3G paper's text writes X X^T without centering, its authors' code centers.

    Args:
        x: features (..., d, N), N >= 1.
        centered: subtract the mean over N first.
        eps: added to the diagonal, >= 0. Trained weights fit one value alone.

    Returns:
        (..., d, d), in the dtype of x, with or without autocast. For N = 1 and centered: eps * I.

    Raises:
        ValueError: eps is negative or NaN.

    >>> x = torch.tensor([[1.0, 3.0], [0.0, 4.0]])
    >>> covariance(x)
    tensor([[1., 2.], [2., 4.]])
    >>> covariance(x, centered=False)
    tensor([[5., 6.], [6., 8.]])
    """
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return _covariance(x, centered, eps)
    if not eps >= 0:
        raise ValueError(f'eps must not be negative; got {eps}.')
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
    Recognition", CVPR 2017, https://doi.org/10.1109/CVPR.2017.689: the embedding matrix before its square root.

    Args:
        x: features (..., d, N), N >= 1.

    Returns:
        (..., d + 1, N), in the dtype of x.

    >>> covariance(append_ones(torch.tensor([[1.0, 3.0]])), centered=False)
    tensor([[5., 2.], [2., 1.]])
    """
    return torch.cat([x, torch.ones_like(x[..., :1, :])], dim=-2)
