"""Bilinear pooling (B-CNN), followed by the BatchNorm of the 3G paper."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import covariance, signed_sqrt

from .paper import Paper
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

B_CNN = Paper(
    title='Bilinear CNN Models for Fine-grained Visual Recognition',
    authors=('Tsung-Yu Lin', 'Aruni RoyChowdhury', 'Subhransu Maji'),
    venue='IEEE International Conference on Computer Vision (ICCV)',
    year=2015,
    url='https://openaccess.thecvf.com/content_iccv_2015/html/Lin_Bilinear_CNN_Models_ICCV_2015_paper.html',
    where='bilinear pooling, signed square root, l2 normalization',
    key='lin2015bilinear',
)

torch.fx.wrap('covariance')


class BilinearPool2d(SecondOrderPool2d):
    """B-CNN: signed square root and l2 normalization of X X^T, then a BatchNorm1d.

        B = (1/N) X X^T;  y = sign(B) * sqrt(|B| + eps);  z = vec(y) / ||vec(y)||_2;  result = BN(z)

    The result has d^2 numbers per image. The root is element-wise, not a matrix root, and B is not centered. In training mode
    the BatchNorm needs at least two images.

    Source: Lin, RoyChowdhury, Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015,
    https://openaccess.thecvf.com/content_iccv_2015/html/Lin_Bilinear_CNN_Models_ICCV_2015_paper.html
    The BatchNorm follows Table 2 of the 3G paper, "B-CNN (+BN)".

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        eps: added inside the signed root, > 0. Below 1e-5 the gradient at 0 becomes very large.
        triangle: 'full' for all d^2 entries, 'lower' or 'upper' for d (d + 1) / 2 of them.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = BilinearPool2d(in_features=8).eval()
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 64])
    """

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        eps: float = 1e-5,
        triangle: str = 'full',
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        if not 0 < eps < math.inf:
            raise ValueError(
                f'eps of the signed root must be positive and finite (its gradient at 0 is 1 / (2 sqrt(eps))); got {eps}.'
            )
        self.eps = float(eps)
        self.triangle = triangle
        self.to_vec = SymToVec(self.dim, triangle)
        self.out_features = self.to_vec.out_features
        self.bn = nn.BatchNorm1d(self.out_features, device=device, dtype=dtype)

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d^2)."""
        z = F.normalize(self.to_vec(signed_sqrt(covariance(x, centered=False), self.eps)), dim=1)
        return self.bn(z.to(self.bn.weight.dtype))
