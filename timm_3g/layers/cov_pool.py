"""Global covariance pooling, with or without re-weighting and root: 3G, iSQRT-COV, MPN-COV, plain COV, ablations."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.ops import in_transform

from .matrix_root import create_root
from .reweight import Reweight2d, ReweightURMv1, ReweightURMv2
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

REWEIGHTS: dict[str, Callable[..., nn.Module]] = {
    '3g': Reweight2d,
    'urm_v1': ReweightURMv1,
    'urm_v2': ReweightURMv2,
}


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """x (B, C, H, W) in channels_last if it is on a CPU, else as it is, and as it is inside transforms of torch.func.

    1x1 convolutions, forward and backward, take up to twice as long in NCHW there. One copy serves eight of them per block.
    """
    if x.device.type != 'cpu':
        return x
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return x.contiguous(memory_format=torch.channels_last)
    # vmap has no memory formats
    return x if in_transform() else x.contiguous(memory_format=torch.channels_last)


torch.fx.wrap('channels_last_on_cpu')


class CovPool2d(SecondOrderPool2d):
    """Triangle of a root of the covariance of (re-weighted) features: d (d + 1) / 2 numbers.

        X = reduce(features);  X_hat = reweight_T(... reweight_1(X, X) ..., X)
        Sigma = (1/N) (X_hat - mean)(X_hat - mean)^T + eps * I
        vec = triangle(root(Sigma))

    By name in `create_global_pool` (defaults in its table):

    - '3g', the covariance of a generalized Gaussian: Wang et al., "Deep Global Generalized Gaussian Networks", CVPR 2019: the
      chain eqs. (10)-(13) of re-weightings, then Sigma and its root as in iSQRT-COV. Lower triangle, eps = 1e-7. It is not
      the maximum-likelihood covariance of eqs. (3)-(4), and the root is five steps, not the matrix square root.
    - '3g_nosqrt': the same without the root ("3G without the robust estimator" of Table 2).
    - 'urm_v1', 'urm_v2': 3G with one block of the variants of Table 1.
    - 'isqrt': Li et al., "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
      Normalization", CVPR 2018. No re-weighting, upper triangle, eps = 0. Not `3g` with T = 0: the order differs.
    - 'mpn': Li et al., "Is Second-order Information Helpful for Large-scale Visual Recognition?", ICCV 2017, alpha = 1/2:
      the exact root, by eigendecomposition. Not interchangeable with 'isqrt' on the same weights.
    - 'cov': Sigma itself (plain COV of Table 2). Not normalised: entries grow with the square of the activations.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        root: 'newton_schulz', 'eigh' or 'none'.
        reweight: a key of REWEIGHTS, or None for no re-weighting.
        num_reweights: T, the number of blocks, >= 0. None: one block if reweight is given, else 0.
        reweight_beta: shape parameter of eq. (13)'s power, 0 = off; for reweight '3g' only.
        num_iters: steps of 'newton_schulz'.
        centered: subtract the mean (the authors' code); False: X X^T / N (the 3G paper's text).
        eps, triangle: as above. Both are part of what weights mean.

    Raises:
        ValueError: any argument out of range.
    """

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        root: str = 'newton_schulz',
        reweight: str | None = None,
        num_reweights: int | None = None,
        reweight_beta: float = 0.0,
        num_iters: int = 5,
        centered: bool = True,
        eps: float = 0.0,
        triangle: str = 'upper',
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        dd = {'device': device, 'dtype': dtype}
        super().__init__(in_features, reduce_dim, **dd)
        if eps < 0:
            raise ValueError(f'eps must not be negative; got {eps}.')
        if reweight is not None and reweight not in REWEIGHTS:
            raise ValueError(f'reweight must be one of {", ".join(REWEIGHTS)}, or None; got {reweight!r}.')
        if num_reweights is None:
            num_reweights = 0 if reweight is None else 1
        if num_reweights < 0:
            raise ValueError(f'num_reweights must be 0 or more; got {num_reweights}.')
        if reweight is None and num_reweights > 0:
            raise ValueError(f'num_reweights={num_reweights} needs a reweight: one of {", ".join(REWEIGHTS)}.')
        self.eps = float(eps)
        self.centered = bool(centered)
        self.triangle = triangle
        self.num_reweights = int(num_reweights)
        self.reweight = nn.ModuleList()
        if reweight is not None:
            block_args = {'beta': reweight_beta} if reweight == '3g' else {}
            self.reweight.extend(REWEIGHTS[reweight](self.dim, **block_args, **dd) for _ in range(num_reweights))
        self.root = create_root(root, num_iters, self.centered, self.eps)
        self.num_iters = num_iters if root == 'newton_schulz' else 0
        self.onnx_obstacle = self.root.onnx_obstacle
        self.to_vec = SymToVec(self.dim, triangle)
        self.out_features = self.to_vec.out_features

    def refine(self, x: Tensor) -> Tensor:
        """The T re-weightings, (B, d, H, W) to the same; on a CPU channels_last, whatever the layout of x."""
        if len(self.reweight) > 0:
            x = channels_last_on_cpu(x)
        x_hat = x
        for block in self.reweight:
            x_hat = block(x_hat, x)
        return x_hat

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d (d + 1) / 2)."""
        return self.to_vec(self.root(x))
