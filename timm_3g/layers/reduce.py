"""1x1 convolutions of the head with their initialization, and the channel reduction before every second-order pooling."""

from typing import Any

from torch import Tensor, nn

from ._fold import fold_batch_norms


def conv1x1(in_channels: int, out_channels: int, **dd: Any) -> nn.Conv2d:
    """1x1 convolution without bias. kaiming_normal, fan_out, relu: the authors initialize every convolution so."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False, **dd)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class Reduce2d(nn.Module):
    """Reduce the channels before a covariance is taken: ReLU(BN(conv1x1(features))), (B, C, H, W) to (B, d, H, W).

    Source: Li, Xie, Wang, Gao, iSQRT-COV, CVPR 2018, https://arxiv.org/abs/1712.01034
    The 3G paper and its authors' code do the same (`layer_reduce`).

    Args:
        in_channels: C, >= 1.
        out_channels: d, >= 1.

    >>> Reduce2d(512, 64)(torch.rand(2, 512, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, in_channels: int, out_channels: int, **dd: Any) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, out_channels, **dd)
        self.bn = nn.BatchNorm2d(out_channels, **dd)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H, W)."""
        return self.act(self.bn(self.conv(x)))

    def reparameterize(self) -> None:
        """Fold the BatchNorm into the convolution, for inference. `timm.utils.reparameterize_model` calls this."""
        fold_batch_norms(self)
