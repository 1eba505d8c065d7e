"""1x1 convolutions of the head: how they are initialised, and the channel reduction in front of every second-order pooling."""

from typing import Any

from torch import Tensor, nn

from ._fold import fold_batch_norms


def conv1x1(in_channels: int, out_channels: int, **dd: Any) -> nn.Conv2d:
    """1x1 convolution without bias, kaiming_normal fan_out / relu: the initialisation of the authors, for every convolution."""
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=False, **dd)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class Reduce2d(nn.Module):
    """X = ReLU(BN(conv1x1(features))): fewer channels before their covariance is taken.

    Source: Li et al., iSQRT-COV, CVPR 2018; the same in the 3G-Net paper and in its authors' code (`layer_reduce`).
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
        """Fold the BatchNorm into the convolution, for inference; `timm.utils.reparameterize_model` calls this."""
        fold_batch_norms(self)
