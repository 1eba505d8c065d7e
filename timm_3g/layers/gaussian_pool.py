"""Global Gaussian pooling: the root of one matrix that holds both mean and covariance."""

from typing import Any

from torch import Tensor

from timm_3g.ops import append_ones

from .matrix_root import create_root
from .paper import Paper
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

G2DENET = Paper(
    title='G2DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual Recognition',
    authors=('Qilong Wang', 'Peihua Li', 'Lei Zhang'),
    venue='IEEE Conference on Computer Vision and Pattern Recognition (CVPR)',
    year=2017,
    url='https://doi.org/10.1109/CVPR.2017.689',
    where='the square root of the Gaussian embedding matrix',
    key='wang2017g2denet',
)


class GaussianPool2d(SecondOrderPool2d):
    """G2DeNet: triangle of the root of the Gaussian embedding [[Sigma + mu mu^T, mu], [mu^T, 1]].

    The result has (d + 1)(d + 2) / 2 numbers per image. Mean and covariance enter one matrix before the root, so the result is
    not their concatenation. The paper uses the exact root, here root='eigh'. The default is the five steps of iSQRT-COV, which
    are faster and export to ONNX. They are not the exact root: see `ops.sqrtm_newton_schulz`.

    Source: Wang, Li, Zhang, "G2DeNet: Global Gaussian Distribution Embedding Network and Its Application to Visual
    Recognition", CVPR 2017, https://doi.org/10.1109/CVPR.2017.689

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        root: 'newton_schulz', 'eigh', or 'none' for the embedding itself.
        num_iters: number of steps of 'newton_schulz', >= 1.
        triangle: order of the entries, 'lower', 'upper' or 'full'.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = GaussianPool2d(in_features=8)
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 45])
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
