"""Element-wise signed square root."""

from torch import Tensor


def signed_sqrt(x: Tensor, eps: float) -> Tensor:
    """sign(x) * sqrt(|x| + eps), element by element.

    Source: Lin, RoyChowdhury, Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015,
    https://openaccess.thecvf.com/content_iccv_2015/html/Lin_Bilinear_CNN_Models_ICCV_2015_paper.html
    The paper has no eps. Without it the gradient is infinite at 0, with it at most 1 / (2 sqrt(eps)): 158 for 1e-5.

    Args:
        x: any shape.
        eps: > 0.

    Returns:
        Shape and dtype of x. It is 0 with zero gradient at x = 0 and jumps by 2 sqrt(eps) there.

    >>> signed_sqrt(torch.tensor([-4.0, 0.0, 9.0]), eps=1e-5)
    tensor([-2.0000,  0.0000,  3.0000])
    """
    return x.sign() * (x.abs() + eps).sqrt()
