"""1x1 convolutions of the head with their initialization, and the channel reduction before every second-order pooling."""

from typing import Any

import torch
from torch import Tensor, nn

from ._fold import fold_batch_norms

LINEAR = 3.0  # standard deviations below the mean where ReLU begins to cut, after `Reduce2d.project`


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

    @torch.no_grad()
    def project(self, mean: Tensor, covariance: Tensor) -> None:
        """Start as a projection onto the first d principal directions of features with this mean and covariance.

            conv = (v_1, ..., v_d)^T,    BN scale_i = s sqrt(l_i / l),    BN shift_i = 3 BN scale_i

        v_i are eigenvectors of the covariance, l_i its eigenvalues in falling order, l their mean over i <= d, and s the scale
        of the BatchNorm before, 2.56 behind three open gates. So every direction keeps its share of the variance, which
        on average is s^2, and ReLU cuts only what lies three standard deviations below the mean: a centered covariance does
        not see the shift. The running statistics are those of the features. Each v_i has its largest number positive.

        Args:
            mean: (C,), any floating dtype.
            covariance: (C, C).

        Raises:
            ValueError: another shape, a number that is not finite, more directions than channels, or fewer than d directions
                in which the features vary.

        >>> reduction = Reduce2d(3, 2)
        >>> reduction.project(torch.zeros(3), torch.diag(torch.tensor([1.0, 9.0, 0.5])))
        >>> reduction.conv.weight.flatten(1).tolist()
        [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
        """
        channels, dim = self.conv.in_channels, self.conv.out_channels
        if mean.shape != (channels,) or covariance.shape != (channels, channels):
            raise ValueError(
                f'The moments must have shapes ({channels},) and ({channels}, {channels}); got {tuple(mean.shape)} and '
                f'{tuple(covariance.shape)}.'
            )
        if not (mean.isfinite().all() and covariance.isfinite().all()):
            raise ValueError('The moments of the features must be finite. Check the images and the weights of the backbone.')
        values, vectors = torch.linalg.eigh(covariance.double())
        values, vectors = values.flip(0)[:dim], vectors.flip(1)[:, :dim]
        if len(values) < dim or values[-1] <= values[0] * torch.finfo(torch.float32).eps:
            rank = int((values > values[0] * torch.finfo(torch.float32).eps).sum())
            raise ValueError(
                f'The features must vary in {dim} directions; they vary in {rank}. Give more images or a smaller d.'
            )
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        vectors = vectors * largest.sign()
        # BatchNorm divides by the root of variance + eps, which is not that of a small variance.
        scale = self.bn.weight.double() * ((values + self.bn.eps) / values.mean()).sqrt()
        self.conv.weight.copy_(vectors.T[:, :, None, None])
        self.bn.weight.copy_(scale)
        self.bn.bias.copy_(LINEAR * scale)
        assert self.bn.running_mean is not None and self.bn.running_var is not None
        self.bn.running_mean.copy_(vectors.T @ mean.double())
        self.bn.running_var.copy_(values)

    def reparameterize(self) -> None:
        """Fold the BatchNorm into the convolution, for inference. `timm.utils.reparameterize_model` calls this."""
        fold_batch_norms(self)
