"""Bilinear pooling (B-CNN) with the BatchNorm that the 3G paper puts behind it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import covariance, signed_sqrt

from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

torch.fx.wrap('covariance')


class BilinearPool2d(SecondOrderPool2d):
    """B-CNN: element-wise signed root and l2 norm of X X^T, then BatchNorm1d: d^2 numbers.

        B = (1/N) X X^T;  y = sign(B) * sqrt(|B| + eps);  z = vec(y) / ||vec(y)||_2;  vec = BN(z)

    Source: Lin, RoyChowdhury, Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015; the BatchNorm is
    the 3G paper's (Table 2, "B-CNN (+BN)"). The root is element-wise: it is not a matrix root, and B is not centred. In
    training the BatchNorm needs more than one image.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        eps: inside the signed root, > 0; below 1e-5 its gradient at 0 gets out of hand.
        triangle: 'full' for all d^2 entries, or 'lower' / 'upper' for d (d + 1) / 2.

    Raises:
        ValueError: any argument out of range.
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
        if eps <= 0:
            raise ValueError(f'eps of the signed root must be positive (its gradient at 0 is 1 / (2 sqrt(eps))); got {eps}.')
        self.eps = float(eps)
        self.triangle = triangle
        self.to_vec = SymToVec(self.dim, triangle)
        self.out_features = self.to_vec.out_features
        self.bn = nn.BatchNorm1d(self.out_features, device=device, dtype=dtype)

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d^2)."""
        z = F.normalize(self.to_vec(signed_sqrt(covariance(x, centered=False), self.eps)), dim=1)
        return self.bn(z.to(self.bn.weight.dtype))
