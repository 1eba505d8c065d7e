"""Global covariance pooling: 3G, iSQRT-COV, MPN-COV, plain covariance and the ablations of the 3G paper."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.ops import has_tangent, in_transform

from .matrix_root import create_root
from .paper import Paper
from .reweight import THREE_G, Reweight2d, ReweightURMv1, ReweightURMv2, check_beta
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

ISQRT_COV = Paper(
    title='Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root Normalization',
    authors=('Peihua Li', 'Jiangtao Xie', 'Qilong Wang', 'Zilin Gao'),
    venue='IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)',
    year=2018,
    url='https://arxiv.org/abs/1712.01034',
    where='normalization by the trace, coupled Newton-Schulz steps, compensation by the trace',
    key='li2018towards',
)
MPN_COV = Paper(
    title='Is Second-order Information Helpful for Large-scale Visual Recognition?',
    authors=('Peihua Li', 'Jiangtao Xie', 'Qilong Wang', 'Wangmeng Zuo'),
    venue='IEEE International Conference on Computer Vision (ICCV)',
    year=2017,
    url='https://arxiv.org/abs/1703.08050',
    where='matrix power alpha = 1/2, by eigendecomposition',
    key='li2017second',
)
THREE_G_WITHOUT_ROOT = replace(THREE_G, where='Table 2, 3G without the robust estimator')
URM_V1 = replace(THREE_G, where='Table 1, URM-v1')
URM_V2 = replace(THREE_G, where='Table 1, URM-v2')
PLAIN_COV = replace(THREE_G, where='Table 2, plain covariance')

REWEIGHTS: dict[str, Callable[..., nn.Module]] = {
    '3g': Reweight2d,
    'urm_v1': ReweightURMv1,
    'urm_v2': ReweightURMv2,
}


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) in channels_last on a CPU. On other devices and inside transforms of torch.func, return x itself.

    1x1 convolutions take up to twice as long in NCHW on a CPU, forward and backward. One copy serves eight of them per block.
    """
    if x.device.type != 'cpu':
        return x
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return x.contiguous(memory_format=torch.channels_last)
    # vmap has no memory formats, nor has the one that torch.autograd.functional puts around forward mode
    return x if in_transform() or has_tangent(x) else x.contiguous(memory_format=torch.channels_last)


torch.fx.wrap('channels_last_on_cpu')


class CovPool2d(SecondOrderPool2d):
    """Triangle of a root of the covariance of the features, with optional re-weighting of the positions.

        X = reduce(features);  X_hat = reweight_T(... reweight_1(X, X) ..., X)
        Sigma = (1/N) (X_hat - mean)(X_hat - mean)^T + eps * I
        result = triangle(root(Sigma))

    The result has d (d + 1) / 2 numbers per image. Without options this is iSQRT-COV. `create_global_pool` builds the following
    variants by name:

    - '3g': the chain of re-weightings of eqs. (10) to (13), then Sigma and its root as in iSQRT-COV. Lower triangle, eps =
      1e-7. It is not the maximum-likelihood covariance of eqs. (3) and (4), and the five steps are not the matrix square root.
      Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019,
      https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf
    - '3g_nosqrt': '3g' without the root, "3G without the robust estimator" in Table 2 of that paper.
    - 'urm_v1', 'urm_v2': '3g' with one block of the variants in Table 1 of that paper.
    - 'isqrt': no re-weighting, upper triangle, eps = 0. It differs from '3g' with T = 0 by the order of the entries.
      Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
      Normalization", CVPR 2018, https://arxiv.org/abs/1712.01034
    - 'mpn': the exact root by eigendecomposition, alpha = 1/2. Weights trained for 'isqrt' do not fit it, nor the reverse.
      Li, Xie, Wang, Zuo, "Is Second-order Information Helpful for Large-scale Visual Recognition?", ICCV 2017,
      https://arxiv.org/abs/1703.08050
    - 'cov': Sigma itself, the plain covariance of Table 2 of the 3G paper. It is not normalized: its entries grow with the
      square of the activations.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        root: 'newton_schulz', 'eigh' or 'none'.
        reweight: a key of REWEIGHTS, or None for no re-weighting.
        num_reweights: T, the number of blocks, >= 0. None: one block if reweight is given, else 0.
        reweight_beta: shape parameter of the power in eq. (13), 0 for no power. It applies to reweight '3g' alone.
        num_iters: number of steps of 'newton_schulz', 1 to 60.
        centered: subtract the mean, as the authors' code does. False computes X X^T / N, as the text of the 3G paper says.
        eps: added to the diagonal of Sigma, >= 0. Trained weights fit one value alone.
        triangle: 'lower', 'upper' or 'full'. Trained weights fit one order alone.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = CovPool2d(in_features=8)
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    >>> CovPool2d(8, reweight='3g', num_reweights=3, eps=1e-7, triangle='lower').num_reweights
    3
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
        if not 0 <= eps < math.inf:
            raise ValueError(f'eps must be finite and not negative; got {eps}.')
        if reweight is not None and reweight not in REWEIGHTS:
            raise ValueError(f'reweight must be one of {", ".join(REWEIGHTS)}, or None; got {reweight!r}.')
        if num_reweights is None:
            num_reweights = 0 if reweight is None else 1
        if num_reweights < 0:
            raise ValueError(f'num_reweights must be 0 or more; got {num_reweights}.')
        check_beta(reweight_beta)
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
        """Apply the T re-weightings: (B, d, H, W) to (B, d, H, W). On a CPU the result is in channels_last."""
        if len(self.reweight) > 0:
            x = channels_last_on_cpu(x)
        x_hat = x
        for block in self.reweight:
            x_hat = block(x_hat, x)
        return x_hat

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d (d + 1) / 2)."""
        return self.to_vec(self.root(x))
