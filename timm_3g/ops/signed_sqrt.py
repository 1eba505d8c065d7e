"""Element-wise signed square root."""

from torch import Tensor


def signed_sqrt(x: Tensor, eps: float) -> Tensor:
    """sign(x) * sqrt(|x| + eps), element by element.

    Source: Lin, RoyChowdhury, Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015, there
    without eps. Without it the gradient is infinite at 0; with it the gradient is at most 1 / (2 sqrt(eps)), 158 at 1e-5.

    Args:
        x: any shape.
        eps: > 0.

    Returns:
        Shape and dtype of x; 0 at x = 0 (with zero gradient), so there is a jump of 2 sqrt(eps) across zero.
    """
    return x.sign() * (x.abs() + eps).sqrt()
