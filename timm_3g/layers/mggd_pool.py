"""The estimator that 3G's re-weighting stands for, without learning: the regularized robust covariance as a pooling."""

from typing import Any

import torch
from torch import Tensor

from timm_3g.mggd import check_options, robust_covariance, subtract, unrolled_covariance

from .precision import as_float64
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

torch.fx.wrap('as_float64')
torch.fx.wrap('robust_covariance')
torch.fx.wrap('subtract')


class MGGDPool2d(SecondOrderPool2d):
    """Triangle of the regularized robust covariance of a generalized Gaussian: d (d + 1) / 2 numbers.

        X = reduce(features);   vec = triangle(argmin J),   J of `mggd.regularized_covariance`

    Source: Wang et al., "Deep Global Generalized Gaussian Networks", CVPR 2019, eq. (5), solved by (6) with 2 lam for its
    lam. It is what the blocks of '3g' (eqs. (10)-(13)) and the root behind them approximate, iterated to its fixed point; the
    gradient is the fixed point's. For comparison, not for speed: every step decomposes every image's d x d matrix, in float64.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        beta: shape of the generalized Gaussian, > 0; 1/2 is the paper's multivariate Laplace.
        lam: weight of the divergence to the identity, > 0. At 1 the result is the square root of the weighted covariance, and
            needs more positions than channels (N > d). Above 1 any features do, with eigenvalues of (lam - 1) / lam and more;
            1.1, the default, is near the root.
        weights: 'mm' or 'pascal'.
        centered: subtract the mean first.
        triangle: order of the entries.

    Raises:
        ValueError: any argument out of range; in the forward, lam <= 1 and features of less than full rank.
    """

    onnx_obstacle = 'it iterates as long as an image needs, and eigh has no ONNX operator'

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        beta: float = 0.5,
        lam: float = 1.1,
        weights: str = 'mm',
        centered: bool = True,
        triangle: str = 'upper',
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        check_options(beta, lam, weights)
        self.beta = float(beta)
        self.lam = float(lam)
        self.weights = weights
        self.centered = bool(centered)
        self.triangle = triangle
        self.to_vec = SymToVec(self.dim, triangle)
        self.out_features = self.to_vec.out_features

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d (d + 1) / 2), float64. NaN or infinity in an image gives NaN for that image."""
        samples = as_float64(x).transpose(1, 2)
        pascal = self.weights == 'pascal'
        if self.centered:
            samples = subtract(samples, samples.mean(1, keepdim=True))
        if torch.jit.is_scripting() or torch.jit.is_tracing():  # neither knows operators that look at the data
            finite = torch.isfinite(samples).flatten(1).all(1)[:, None, None]
            scatter = unrolled_covariance(torch.where(finite, samples, 0.0), self.beta, self.lam, pascal)
            return self.to_vec(torch.where(finite, scatter, float('nan')))
        return self.to_vec(self._estimate(samples, pascal))

    @torch.jit.unused
    def _estimate(self, samples: Tensor, pascal: bool) -> Tensor:
        return robust_covariance(samples, self.beta, self.lam, pascal)

    def extra_repr(self) -> str:
        """As `SecondOrderPool2d`, and beta, lam, weights, centered."""
        return (
            f'{super().extra_repr()}, beta={self.beta:g}, lam={self.lam:g}, weights={self.weights!r}, centered={self.centered}'
        )
