"""Features, centered and divided by the root of the trace: the start of both forms of the root."""

import torch
from torch import Tensor

# A trace below 1e-30 belongs to a constant map (activations under 1e-15) and is not divided by. See `sqrtm_newton_schulz`.
SMALLEST_SCALE = 1e-15


def normalize(x: Tensor, centered: bool, eps: float) -> tuple[Tensor, Tensor]:
    """X_hat = (X - mean) / sqrt(N t), and sqrt(t), t = trace of the covariance + d eps.

    Args:
        x: (B, d, N).

    Returns:
        X_hat (B, d, N), a new tensor in the layout of x, and sqrt(t) (B, 1, 1).
    """
    d, n = x.shape[1:]
    x_hat = x - x.mean(2, keepdim=True) if centered else x.clone()
    norm = torch.linalg.vector_norm(x_hat, dim=(1, 2), keepdim=True) * n**-0.5
    scale = (norm.square() + d * eps).sqrt().clamp(min=SMALLEST_SCALE)
    return x_hat.div_(scale * n**0.5), scale


def gram(x_hat: Tensor, shift: Tensor, thin: bool) -> Tensor:
    """X_hat^T X_hat + shift I (B, N, N) if thin, else X_hat X_hat^T + shift I (B, d, d)."""
    mat = torch.bmm(x_hat.mT, x_hat) if thin else torch.bmm(x_hat, x_hat.mT)
    mat.diagonal(dim1=1, dim2=2).add_(shift.squeeze(2))
    return mat
