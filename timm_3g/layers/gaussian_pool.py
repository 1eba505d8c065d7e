"""Global Gaussian pooling: the square root of the embedding of mean and covariance in one matrix."""

from typing import Any

from torch import Tensor

from timm_3g.ops import append_ones

from .matrix_root import create_root
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec


class GaussianPool2d(SecondOrderPool2d):
    """G2DeNet: triangle of the root of [[Sigma + mu mu^T, mu], [mu^T, 1]]: (d + 1)(d + 2) / 2 numbers.

    Source: Wang, Li, Zhang, "G2DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual
    Recognition", CVPR 2017. There the root is exact, here root='eigh'; the default is the five steps of iSQRT-COV, which
    is faster and exports, and which is not the exact root (`ops.sqrtm_newton_schulz` says how far off). mean and covariance
    enter one matrix: the vector is not their concatenation.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        root: 'newton_schulz', 'eigh', or 'none' for the embedding itself.
        num_iters: steps of 'newton_schulz'.
        triangle: order of the entries.

    Raises:
        ValueError: any argument out of range.
    """

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        root: str = 'newton_schulz',
        num_iters: int = 5,
        triangle: str = 'upper',
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        self.triangle = triangle
        self.root = create_root(root, num_iters, centered=False)
        self.num_iters = num_iters if root == 'newton_schulz' else 0
        self.onnx_obstacle = self.root.onnx_obstacle
        self.to_vec = SymToVec(self.dim + 1, triangle)
        self.out_features = self.to_vec.out_features

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, (d + 1)(d + 2) / 2)."""
        return self.to_vec(self.root(append_ones(x)))
