"""Re-weighting of positions: what stands for the robust estimator in 3G-Net, and the two variants of its Table 1.

Every block maps (x_hat, x) to the next x_hat, all (B, d, H, W): x_hat is the result of the previous block, x the input of the
first. The map w in [0, 1] multiplies features, so a chain of blocks weighs x x^T by the square of the product of its maps.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import is_ordinary

from ._fold import fold_batch_norms
from .paper import Paper
from .reduce import Reduce2d, conv1x1

THREE_G = Paper(
    title='Deep Global Generalized Gaussian Networks',
    authors=('Qilong Wang', 'Peihua Li', 'Qinghua Hu', 'Pengfei Zhu', 'Wangmeng Zuo'),
    venue='IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)',
    year=2019,
    url='https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf',
    where='eqs. (10) to (13): the re-weighting module',
    key='wang2019deep',
    pages='5080-5088',
)


class Squeeze2d(nn.Module):
    """a = conv_g(ReLU(BN(conv_f(x)))), d to d // 4 to 1 channels: one number per position, without a BatchNorm on it."""

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        squeeze_dim = max(dim // 4, 1)
        self.conv_f = conv1x1(dim, squeeze_dim, **dd)
        self.bn_f = nn.BatchNorm2d(squeeze_dim, **dd)
        self.conv_g = conv1x1(squeeze_dim, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, H, W) to (B, 1, H, W)."""
        return self.conv_g(F.relu(self.bn_f(self.conv_f(x))))

    def reparameterize(self) -> None:
        """Fold the BatchNorm into its convolution, for inference. See `PositionReweight2d.reparameterize`."""
        fold_batch_norms(self)


BOUND = 1e15


class _BoundedReLU(torch.autograd.Function):
    """`F.hardtanh(x, 0, 1e15)` that keeps its result for the backward, as `F.relu` does, where F.hardtanh keeps x.

    What follows keeps the result in any case, so that a block keeps 12.5 maps of the size of its input, not 15.5. F.hardtanh in
    place keeps a copy of x.
    """

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return F.hardtanh(x, 0.0, BOUND)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return torch.ops.aten.hardtanh_backward(grad, *ctx.saved_tensors, 0.0, BOUND)


def bounded_relu(x: Tensor) -> Tensor:
    """ReLU, bounded by 1e15 in values and gradient. NaN stays NaN.

    The block is of fourth degree in the activations, and float32 ends at 3e38. In float16 the bound is 65504.
    """
    if x.dtype == torch.float16:
        return F.hardtanh(x, 0.0, 65504.0)
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return F.hardtanh(x, 0.0, 999999999999999.9)  # TorchScript writes 1e15 into a file as an integer, which it cannot read
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or not (torch.is_grad_enabled() and x.requires_grad):
        return F.hardtanh(x, 0.0, 1e15)
    return _BoundedReLU.apply(x) if is_ordinary(x) else F.hardtanh(x, 0.0, 1e15)


torch.fx.wrap('bounded_relu')


class PositionReweight2d(nn.Module):
    """X_hat <- w * X_hat. Subclasses compute the map w."""

    if TYPE_CHECKING:  # TorchScript would read it
        squeeze: Squeeze2d

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        raise NotImplementedError

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """Two (B, d, H, W) to one (B, d, H, W)."""
        return self.weight(x_hat, x) * x_hat

    def reparameterize(self) -> None:
        """Fold every BatchNorm into its convolution. The function in eval mode stays the same, and training is over.

        timm.utils.reparameterize_model(model) calls this and `squeeze.reparameterize` on a copy of the model.
        """
        fold_batch_norms(self)


def check_beta(beta: float) -> None:
    """Raise ValueError for a shape parameter of the power in eq. (13) that is out of range."""
    if not 0.0 <= beta <= 1.0:
        raise ValueError(f'reweight_beta must be in [0, 1], 0 for no power; got {beta}.')


class Reweight2d(PositionReweight2d):
    """One unrolled re-weighting step of 3G-Net, as the authors' code computes it: two (B, d, H, W) to one.

        Z = ReLU(BN(conv_a X_hat) * BN(conv_b X_hat) + BN(conv_c X))
        L = ReLU(BN(conv_d Z)) * ReLU(BN(conv_e Z))
        a = squeeze(L)
        w = sigmoid(a + conv_h(a^(1 - beta)))            X_hat <- w * X_hat

    With beta = 0, the default, the power of eq. (13) is left out as in the authors' code, and w = sigmoid((1 + h) a). For
    numbers of either sign the power is a * (|a| + 1e-5)^(-beta). The map is not the maximum-likelihood weight of a generalized
    Gaussian (eq. (3)): it is learned, and bounded by 1.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eqs. (10) to (13),
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        dim: d, the number of channels. A block has 5 d^2 + 10 d + (d // 4)(d + 3) + 1 parameters: 346,817 at d = 256.
        beta: shape parameter of the power in eq. (13), in [0, 1]. 0 turns it off.

    Raises:
        ValueError: beta is outside [0, 1].

    >>> block, x = Reweight2d(8), torch.rand(2, 8, 5, 5)
    >>> block(x, x).shape, block.weight(x, x).shape
    (torch.Size([2, 8, 5, 5]), torch.Size([2, 1, 5, 5]))
    """

    def __init__(self, dim: int, beta: float = 0.0, **dd: Any) -> None:
        super().__init__()
        check_beta(beta)
        self.beta = float(beta)
        self.conv_a, self.bn_a = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_b, self.bn_b = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_c, self.bn_c = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_d, self.bn_d = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_e, self.bn_e = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.squeeze = Squeeze2d(dim, **dd)
        self.conv_h = conv1x1(1, 1, **dd)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        c = self.bn_c(self.conv_c(x))
        z = bounded_relu(torch.addcmul(c, self.bn_a(self.conv_a(x_hat)), self.bn_b(self.conv_b(x_hat))))
        a = self.squeeze(bounded_relu(self.bn_d(self.conv_d(z))) * bounded_relu(self.bn_e(self.conv_e(z))))
        # 1e-5 keeps the derivative of a^(1 - beta) finite at a = 0.
        power = a if self.beta == 0.0 else a * (a.abs() + 1e-5).pow(-self.beta)
        return torch.sigmoid(a + self.conv_h(power))


class ReweightURMv1(PositionReweight2d):
    """URM-v1 of the 3G paper: w = sigmoid(squeeze(X_hat)), X_hat <- w * X_hat. It is of first order and ignores x.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, Table 1,
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        dim: d, the number of channels.

    >>> x = torch.rand(2, 8, 5, 5)
    >>> ReweightURMv1(8)(x, x).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        self.squeeze = Squeeze2d(dim, **dd)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        return torch.sigmoid(self.squeeze(x_hat))


class ReweightURMv2(PositionReweight2d):
    """URM-v2 of the 3G paper: w = sigmoid(squeeze(ReLU(BN(conv_d X_hat)) * ReLU(BN(conv_e X_hat)))), X_hat <- w * X_hat.

    It ignores x.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, Table 1,
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        dim: d, the number of channels.

    >>> x = torch.rand(2, 8, 5, 5)
    >>> ReweightURMv2(8)(x, x).shape
    torch.Size([2, 8, 5, 5])
    """

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        self.conv_d, self.bn_d = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_e, self.bn_e = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.squeeze = Squeeze2d(dim, **dd)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        product = bounded_relu(self.bn_d(self.conv_d(x_hat))) * bounded_relu(self.bn_e(self.conv_e(x_hat)))
        return torch.sigmoid(self.squeeze(product))


HEAD_INITS = ('open', 'orig')
# a = conv_g(...) of open gates, by whether a reduction follows whose BatchNorm makes up for them: w = sigmoid(a).
OPEN = {True: 1.0, False: 3.0}


def checked_head_init(head_init: str) -> str:
    """Return head_init. Raises ValueError unless it is one of HEAD_INITS."""
    if head_init not in HEAD_INITS:
        raise ValueError(f'head_init must be one of {", ".join(map(repr, HEAD_INITS))}; got {head_init!r:.80}.')
    return head_init


@torch.no_grad()
def open_gates(pool: nn.Module) -> None:
    """Start a pooling with re-weighting as the same pooling without it. Its function, parameters and names stay.

    The authors' initialization saturates most maps at random, so that a new network sees few positions. Here every map is the
    same number everywhere at the start, and can leave it from the first step: BN_f is the constant 1 (scale 0, shift 1), conv_g
    is a / (d // 4) and conv_h is 0, so that w = sigmoid(a).

    - Behind a reduction a = 1, w = 0.731, and the scale of the reduction's BatchNorm is w^-T. The product of the T maps times
      the features is what it would be without them.
    - Without a reduction there is no such scale. There a = 3, w = 0.953, and the vector of a covariance's root is 0.953^T as
      long as without them.

    Args:
        pool: a new pooling of `create_global_pool`. One without re-weighting stays as it is.

    >>> pool = create_global_pool('3g', in_features=8, reduce_dim=4, head_init='orig')
    >>> open_gates(pool)
    >>> with record_weights(pool) as maps:
    ...     vector = pool(torch.rand(2, 8, 5, 5))
    >>> [round(float(w.unique()), 4) for w in maps]
    [0.7311, 0.7311, 0.7311]
    """
    blocks = [m for m in pool.modules() if isinstance(m, PositionReweight2d)]
    reductions = [m for m in pool.modules() if isinstance(m, Reduce2d)]
    start = OPEN[bool(reductions)]
    for reduction in reductions if blocks else ():
        reduction.bn.weight.fill_((1 + math.exp(-start)) ** len(blocks))  # sigmoid(start)^-T
    for block in blocks:
        squeeze = block.squeeze
        squeeze.bn_f.weight.zero_()
        squeeze.bn_f.bias.fill_(1.0)
        squeeze.conv_g.weight.fill_(start / squeeze.conv_g.in_channels)
        if isinstance(block, Reweight2d):
            block.conv_h.weight.zero_()


class _Keeping:
    """The method `weight` of a block, which appends what it returns. A copy of the block has one that does not."""

    def __init__(self, block: PositionReweight2d, inner: '_Keeping | None', maps: list[Tensor] | None) -> None:
        self.block, self.inner, self.maps = block, inner, maps

    def __call__(self, x_hat: Tensor, x: Tensor) -> Tensor:
        w = self.inner(x_hat, x) if self.inner else type(self.block).weight(self.block, x_hat, x)
        if self.maps is not None:
            self.maps.append(w.detach())
        return w

    def __deepcopy__(self, memo: dict[int, Any]) -> '_Keeping':
        return _Keeping(deepcopy(self.block, memo), None, None)


@contextmanager
def record_weights(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the re-weighting maps w of every block inside `module` while the context is active.

    Args:
        module: a pooling, or a network that holds one.

    Yields:
        A list. Each forward pass appends its T maps in order: (B, 1, H, W), values in [0, 1], without gradient. The list stays
        empty where there is no re-weighting.

    >>> pool = create_global_pool('3g', in_features=8, reduce_dim=0, num_reweights=2)
    >>> with record_weights(pool) as maps:
    ...     vector = pool(torch.rand(1, 8, 4, 6))
    >>> [tuple(w.shape) for w in maps]
    [(1, 1, 4, 6), (1, 1, 4, 6)]
    """
    maps: list[Tensor] = []

    # What the forward computes is kept. To compute it again would update the running statistics of a training step twice.
    blocks = [m for m in module.modules() if isinstance(m, PositionReweight2d)]
    outer = [block.__dict__.get('weight') for block in blocks]  # of another `record_weights` around this one
    for block in blocks:
        block.__dict__['weight'] = _Keeping(block, block.__dict__.get('weight'), maps)
    try:
        yield maps
    finally:
        for block, before in zip(blocks, outer, strict=True):
            del block.__dict__['weight']
            if before:
                block.__dict__['weight'] = before
