"""Re-weighting of positions: the part of 3G-Net that stands for the robust estimator, and the two variants of its Table 1.

Every block maps (x_hat, x) to the next x_hat, all (B, d, H, W): x_hat is what the block before returned, x what the first one
got. The weight w in [0, 1] multiplies features, so a chain of blocks weighs x x^T by the square of the product of its w.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._fold import fold_batch_norms
from .reduce import conv1x1


class Squeeze2d(nn.Module):
    """a = conv_g(ReLU(BN(conv_f(x)))), d -> d // 4 -> 1 channels: one number a position, without BN on it."""

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
        """Fold the BatchNorm into its convolution, for inference; see `PositionReweight2d.reparameterize`."""
        fold_batch_norms(self)


def bounded_relu(x: Tensor) -> Tensor:
    """ReLU, values and gradient, up to 1e15: the block is of fourth degree, and float32 ends at 3e38. NaN stays NaN.

    In float16 up to its largest number, 65504. In place, as timm's activations are: autograd then keeps the result, which what
    follows keeps in any case, and a block keeps 12.5 maps of the size of its input, not 15.5.
    """
    bound = 65504.0 if x.dtype == torch.float16 else 1e15
    return F.hardtanh(x, 0.0, bound, inplace=True)


torch.fx.wrap('bounded_relu')


class PositionReweight2d(nn.Module):
    """X_hat <- w * X_hat; a subclass gives the weight w."""

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        raise NotImplementedError

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """(B, d, H, W) twice to (B, d, H, W)."""
        return self.weight(x_hat, x) * x_hat

    def reparameterize(self) -> None:
        """Fold every BatchNorm into its convolution: the same function in eval mode, and for inference only.

        timm.utils.reparameterize_model(model) calls this, and that of `squeeze`, on a copy of the model.
        """
        fold_batch_norms(self)


class Reweight2d(PositionReweight2d):
    """One unrolled re-weighting step of 3G-Net, as the authors' code computes it.

        Z = ReLU(BN(conv_a X_hat) * BN(conv_b X_hat) + BN(conv_c X))
        L = ReLU(BN(conv_d Z)) * ReLU(BN(conv_e Z))
        a = squeeze(L)
        w = sigmoid(a + conv_h(a^(1 - beta)))            X_hat <- w * X_hat

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, section on the re-weighting module
    (eqs. (10)-(13) and the figure of the module). beta = 0, the default, is the authors' code, where the power of eq. (13)
    is left out and w = sigmoid((1 + h) a). The power of a number of either sign is taken as a * (|a| + 1e-5)^(-beta).

    What it is not: the maximum-likelihood weight of a generalized Gaussian (eq. (3)). It is learned, and bounded by 1.

    Args:
        dim: channels d; one block has 5 d^2 + 10 d + (d // 4)(d + 3) + 1 parameters, 346,817 at d = 256.
        beta: shape parameter of eq. (13)'s power, in [0, 1]; 0 is off.
    """

    def __init__(self, dim: int, beta: float = 0.0, **dd: Any) -> None:
        super().__init__()
        if not 0.0 <= beta <= 1.0:
            raise ValueError(f'reweight_beta must lie in [0, 1], 0 being off; got {beta}.')
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
    """URM-v1 of the 3G paper's Table 1: w = sigmoid(squeeze(X_hat)), X_hat <- w * X_hat. First order only; x is not used."""

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        self.squeeze = Squeeze2d(dim, **dd)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        return torch.sigmoid(self.squeeze(x_hat))


class ReweightURMv2(PositionReweight2d):
    """URM-v2 of the 3G paper's Table 1: w = sigmoid(squeeze(ReLU(BN(conv_d X_hat)) * ReLU(BN(conv_e X_hat)))), without x."""

    def __init__(self, dim: int, **dd: Any) -> None:
        super().__init__()
        self.conv_d, self.bn_d = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.conv_e, self.bn_e = conv1x1(dim, dim, **dd), nn.BatchNorm2d(dim, **dd)
        self.squeeze = Squeeze2d(dim, **dd)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The map w, (B, 1, H, W), values in [0, 1]."""
        product = bounded_relu(self.bn_d(self.conv_d(x_hat))) * bounded_relu(self.bn_e(self.conv_e(x_hat)))
        return torch.sigmoid(self.squeeze(product))


@contextmanager
def record_weights(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the maps w of every re-weighting inside `module` while it runs, for looking at them.

    with record_weights(model) as maps:
        logits = model(images)

    Yields:
        A list that each forward pass extends by its T maps in order, (B, 1, H, W) each, values in [0, 1], without gradient;
        it stays empty where there is no re-weighting.
    """
    maps: list[Tensor] = []

    @torch.no_grad()
    def keep(block: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        assert isinstance(block, PositionReweight2d)
        maps.append(block.weight(*inputs))

    blocks = [m for m in module.modules() if isinstance(m, PositionReweight2d)]
    handles = [block.register_forward_pre_hook(keep) for block in blocks]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
