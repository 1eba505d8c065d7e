"""The regularized robust covariance as a pooling: the estimator that 3G's re-weighting approximates, without learning."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from timm_3g.mggd import check_options, robust_covariance, subtract, unrolled_covariance

from .precision import as_float64
from .reweight import THREE_G
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

THREE_G_ESTIMATOR = replace(THREE_G, where='eqs. (5) and (6), with 2 lam for lam in eq. (6)')

torch.fx.wrap('as_float64')
torch.fx.wrap('robust_covariance')
torch.fx.wrap('subtract')


class MGGDPool2d(SecondOrderPool2d):
    """Triangle of the regularized robust covariance of a generalized Gaussian.

        X = reduce(features);  result = triangle(argmin J),  J of `mggd.regularized_covariance`

    The result has d (d + 1) / 2 numbers per image. The blocks and the root of '3g' (eqs. (10) to (13)) approximate this
    estimator. Here it is iterated to its fixed point, and the gradient is that of the fixed point. It serves comparisons, not
    speed: every step decomposes a d x d matrix per image in float64.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eqs. (5) and (6), with 2 lam for lam
    in eq. (6),
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        beta: shape of the generalized Gaussian, > 0. 1/2 is the paper's multivariate Laplace distribution.
        lam: weight of the divergence from the identity, > 0. At 1 the result is the square root of the weighted covariance,
            which needs more positions than channels (N > d). Above 1 any features will do, and every eigenvalue is at least
            (lam - 1) / lam. The default 1.1 is close to the root.
        weights: 'mm' or 'pascal', see `mggd.regularized_covariance`.
        centered: subtract the mean first.
        triangle: order of the entries, 'lower', 'upper' or 'full'.

    Raises:
        ValueError: an argument is out of range. The forward pass raises it for lam <= 1 and features without full rank.

    In TorchScript and traced graphs a constant map has NaN for its gradient, where the eager pooling has 0.

    >>> pool = MGGDPool2d(in_features=4)
    >>> pool(torch.rand(2, 4, 5, 5)).shape
    torch.Size([2, 10])
    """

    onnx_obstacle = 'its number of steps depends on the image, and eigh has no ONNX operator'

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
        """(B, d, N) to (B, d (d + 1) / 2), float64. An image with NaN or infinity gives NaN."""
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
        """The line of `SecondOrderPool2d`, then beta, lam, weights, centered."""
        return (
            f'{super().extra_repr()}, beta={self.beta:g}, lam={self.lam:g}, weights={self.weights!r}, centered={self.centered}'
        )
