"""PyramidNet: the width grows unit by unit.

Paper: Han, Kim, Kim, "Deep Pyramidal Residual Networks", CVPR 2017, https://arxiv.org/abs/1610.02915. Of N units, unit k has
round(64 + k alpha / N) planes and four times as many channels. A unit is BN, 1x1, BN, ReLU, 3x3, BN, ReLU, 1x1, BN, without
ReLU before its first convolution. The shortcut has no parameters: an average over 2 x 2 where the stride is 2, and zeros for
the channels that it lacks. BN and ReLU stand before the last pooling.

Not certain in the paper, and chosen here: its formula rounds down, which gives 62.15 M parameters for 200 layers and alpha =
300. Rounding to the nearest gives 62.37 M, those of the implementation in pytorchcv: with its weights the outputs are the same.
"""

from typing import Any

from timm.layers import DropPath, create_classifier
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from .resnet_3g import first_order_cfg

__all__: list[str] = []

STEM = 64  # channels, and planes of the unit before the first


class PyramidUnit(nn.Module):
    """The bottleneck of PyramidNet.

    Args:
        in_channels: of its input.
        planes: of its 3x3 convolution. It has four times as many channels, not fewer than in_channels.
        stride: of the 3x3 convolution.
        drop_path: probability to drop the residual branch of an image in training.
        device, dtype: of the parameters.

    Raises:
        ValueError: fewer channels than in_channels.

    >>> import torch
    >>> PyramidUnit(64, 20, stride=2)(torch.randn(1, 64, 8, 8)).shape
    torch.Size([1, 80, 4, 4])
    """

    expansion = 4

    def __init__(
        self, in_channels: int, planes: int, stride: int = 1, drop_path: float = 0.0, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        out_channels = planes * self.expansion
        if out_channels < in_channels:
            least = -(-in_channels // self.expansion)
            raise ValueError(f'planes must be at least {least} for {in_channels} input channels; got {planes}.')
        self.bn1 = nn.BatchNorm2d(in_channels, **dd)
        self.conv1 = nn.Conv2d(in_channels, planes, 1, bias=False, **dd)
        self.bn2 = nn.BatchNorm2d(planes, **dd)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False, **dd)
        self.bn3 = nn.BatchNorm2d(planes, **dd)
        self.act3 = nn.ReLU(inplace=True)
        self.conv3 = nn.Conv2d(planes, out_channels, 1, bias=False, **dd)
        self.bn4 = nn.BatchNorm2d(out_channels, **dd)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        # ceil_mode: a side of 7 becomes 4, as by the 3x3 convolution.
        self.downsample = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.zeros = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, 4 planes, H / stride, W / stride)."""
        branch = self.conv1(self.bn1(x))
        branch = self.conv2(self.act2(self.bn2(branch)))
        branch = self.bn4(self.conv3(self.act3(self.bn3(branch))))
        return self.drop_path(branch) + F.pad(self.downsample(x), (0, 0, 0, 0, 0, self.zeros))


class PyramidNet(ResNet):
    """Stem, head and contract of timm's ResNet, and stages of `PyramidUnit`. The last BN and ReLU end layer4.

    Args:
        layers: units of each stage.
        alpha: what is added to the planes between the first unit and the last.
        num_classes: 0 for no classifier.
        in_chans: input channels.
        output_stride: 32 only.
        global_pool: timm's: avg, max, avgmax, catavgmax, or '' for unpooled features.
        drop_rate: of the dropout before the classifier.
        drop_path_rate: of the last unit. It grows linearly from 0.
        device, dtype: of the parameters.

    Raises:
        ValueError: output_stride other than 32, layers that are not four numbers of units, an alpha below 0.

    >>> import timm, torch
    >>> model = timm.create_model('pyramidnet200', layers=(1, 1, 1, 1), alpha=40, num_classes=10).eval()
    >>> model(torch.randn(1, 3, 64, 64)).shape, model.num_features
    (torch.Size([1, 10]), 416)
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        alpha: float,
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if output_stride != 32:
            raise ValueError(f'output_stride must be 32; got {output_stride}. PyramidNet is not dilated.')
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f'layers must be four numbers of units, each at least 1; got {layers}.')
        if not alpha >= 0:
            raise ValueError(f'alpha must be at least 0; got {alpha}.')
        dd = {'device': device, 'dtype': dtype}
        super().__init__(Bottleneck, (0, 0, 0, 0), 0, in_chans, global_pool='', drop_rate=drop_rate, **dd)
        units, channels, done = sum(layers), STEM, 0
        for stage, number in enumerate(layers, 1):
            blocks: list[nn.Module] = []
            for index in range(number):
                done += 1
                planes = round(STEM + done * alpha / units)
                stride = 2 if index == 0 and stage > 1 else 1
                blocks.append(PyramidUnit(channels, planes, stride, drop_path_rate * (done - 1) / max(units - 1, 1), **dd))
                channels = planes * PyramidUnit.expansion
            if stage == len(layers):
                # Not in place: with checkpointing each of them is a segment, whose input must stay.
                blocks += [nn.BatchNorm2d(channels, **dd), nn.ReLU()]
            setattr(self, f'layer{stage}', nn.Sequential(*blocks))
            self.feature_info[stage] = {**self.feature_info[stage], 'num_chs': channels}
        self.num_features = channels
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(channels, num_classes, pool_type=global_pool, **dd)
        self.head_hidden_size = channels * self.global_pool.feat_mult()
        self.init_weights(zero_init_last=False)


default_cfgs = generate_default_cfgs({'pyramidnet200.untrained': first_order_cfg()})


@register_model
def pyramidnet200(pretrained: bool = False, **kwargs: Any) -> PyramidNet:
    """PyramidNet-200 with alpha = 300, the row of Table 3."""
    return build_model_with_cfg(PyramidNet, 'pyramidnet200', pretrained, **{'layers': (3, 24, 36, 3), 'alpha': 300, **kwargs})
