"""CRU-Net: residual units that share their first two convolutions.

Paper: Chen, Jin, Kang, Feng, Yan, "Sharing Residual Units Through Collective Tensor Factorization To Improve Deep Neural
Networks", IJCAI 2018, https://www.ijcai.org/proceedings/2018/88. CRU-Net-116 is a pre-activation ResNeXt (32x4d): three units
of three convolutions at 56 x 56 and at 7 x 7, and 24 collective units of four between them, at 28 x 28 and 14 x 14.

        y = x + C4(C3(S2(S1(x)))),  each convolution behind a BatchNorm and a ReLU of its own

S1, 1x1, and S2, 3x3 in groups, are shared by several units. C3 and C4, 1x1, are not.

Not certain in what we could read, and chosen here: 6 units at 28 x 28 and 18 at 14 x 14, 320 and 640 channels between S1 and
C4, and three units to a pair of shared convolutions. The first unit of a stage has another width and stride, and shares
nothing. With these numbers the weights have the published sizes: 168 MB with 1,000 classes and 163 MB with 365. Others have
them, too, and doubled widths are not the 318 MB of the published network of twice the width.
"""

from collections.abc import Sequence
from typing import Any

from timm.layers import BatchNormAct2d, DropPath, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import DownsampleConv, PreActBottleneck, ResNetV2
from torch import Tensor, nn

from .resnet_3g import first_order_cfg

__all__: list[str] = []


class CollectiveUnit(nn.Module):
    """What a collective residual unit has of its own: four BatchNorms with ReLU, and two 1x1 convolutions.

    >>> CollectiveUnit(64, 64, 32).conv4.weight.shape
    torch.Size([64, 32, 1, 1])
    """

    def __init__(self, in_channels: int, channels: int, width: int, drop_path: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.norm1 = BatchNormAct2d(in_channels, **dd)
        self.norm2 = BatchNormAct2d(width, **dd)
        self.norm3 = BatchNormAct2d(width, **dd)
        self.conv3 = create_conv2d(width, width, 1, **dd)
        self.norm4 = BatchNormAct2d(width, **dd)
        self.conv4 = create_conv2d(width, channels, 1, **dd)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()


class CollectiveUnits(nn.Module):
    """Residual units with two convolutions in common, one unit after the other.

    Args:
        in_channels: of the input. Other than channels, or stride 2, only for a single unit, which projects its shortcut.
        channels: of the output.
        width: channels between the first convolution and the last.
        groups: of the 3x3 convolution.
        stride: of the 3x3 convolution.
        drop_paths: for each unit, the probability to drop its residual branch of an image in training.
        device, dtype: of the parameters.

    Raises:
        ValueError: several units, and another width or stride.

    >>> import torch
    >>> units = CollectiveUnits(64, 64, 32, groups=8, drop_paths=(0.0, 0.0, 0.0))
    >>> units(torch.randn(1, 64, 7, 7)).shape, len(units.units)
    (torch.Size([1, 64, 7, 7]), 3)
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        width: int,
        groups: int,
        stride: int = 1,
        drop_paths: Sequence[float] = (0.0,),
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        projects = in_channels != channels or stride != 1
        if projects and len(drop_paths) > 1:
            raise ValueError(
                f'Units that share convolutions must keep channels and stride; got {in_channels} to {channels} channels and '
                f'stride {stride} for {len(drop_paths)} units. Put a single unit in front of them.'
            )
        self.conv1 = create_conv2d(in_channels, width, 1, **dd)
        self.conv2 = create_conv2d(width, width, 3, stride=stride, groups=groups, **dd)
        self.projects = projects
        self.downsample = (
            DownsampleConv(in_channels, channels, stride, conv_layer=create_conv2d, **dd) if projects else nn.Identity()
        )
        self.units: Any = nn.ModuleList(CollectiveUnit(in_channels, channels, width, rate, **dd) for rate in drop_paths)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        for unit in self.units:
            branch = unit.norm1(x)
            shortcut = self.downsample(branch) if self.projects else x
            branch = self.conv2(unit.norm2(self.conv1(branch)))
            branch = unit.conv4(unit.norm4(unit.conv3(unit.norm3(branch))))
            x = shortcut + unit.drop_path(branch)
        return x


class CRUNet(ResNetV2):
    """Stem, plain stages, head and contract of timm's ResNetV2, and stages of `CollectiveUnits`.

    Args:
        layers: units of each of the four stages.
        widths: of each stage, channels inside a unit.
        collective: for each stage, how many units share two convolutions. 0: plain ResNeXt units, which share none.
        groups: of every 3x3 convolution.
        channels: of each stage.
        output_stride: 32 only.
        drop_path_rate: of the last unit. It grows linearly from 0.
        device, dtype: of the parameters.
        kwargs: num_classes, in_chans, global_pool and drop_rate of timm's ResNetV2.

    Raises:
        ValueError: output_stride other than 32, or not four numbers for four stages.

    >>> import timm, torch
    >>> model = timm.create_model('crunet116', layers=(1, 3, 2, 1), num_classes=10).eval()
    >>> model(torch.randn(1, 3, 64, 64)).shape
    torch.Size([1, 10])
    """

    def __init__(
        self,
        layers: tuple[int, ...] = (3, 6, 18, 3),
        widths: tuple[int, ...] = (128, 320, 640, 1024),
        collective: tuple[int, ...] = (0, 3, 3, 0),
        groups: int = 32,
        channels: tuple[int, ...] = (256, 512, 1024, 2048),
        output_stride: int = 32,
        drop_path_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if output_stride != 32:
            raise ValueError(f'output_stride must be 32; got {output_stride}. CRU-Net is not dilated.')
        for name, numbers in (('layers', layers), ('widths', widths), ('collective', collective), ('channels', channels)):
            if len(numbers) != 4 or min(numbers) < (0 if name == 'collective' else 1):
                raise ValueError(f'{name} must be four numbers, one for each stage; got {numbers}.')
        dd = {'device': device, 'dtype': dtype}
        super().__init__([0, 0, 0, 0], channels, conv_layer=create_conv2d, norm_layer=BatchNormAct2d, **dd, **kwargs)
        rates = [drop_path_rate * unit / max(sum(layers) - 1, 1) for unit in range(sum(layers))]
        before, done = self.feature_info[0]['num_chs'], 0
        for index, stage in enumerate(self.stages):
            stage.blocks = _blocks(
                before,
                channels[index],
                widths[index],
                groups,
                stride=1 if index == 0 else 2,
                collective=collective[index],
                drop_paths=rates[done : done + layers[index]],
                **dd,
            )
            before, done = channels[index], done + layers[index]
        self.init_weights(zero_init_last=False)


def _blocks(
    before: int, channels: int, width: int, groups: int, stride: int, collective: int, drop_paths: list[float], **dd: Any
) -> nn.Sequential:
    """The blocks of a stage: units that share nothing, or the first unit alone and then `collective` of them to a block."""
    if collective:
        rest = drop_paths[1:]
        runs = [rest[start : start + collective] for start in range(0, len(rest), collective)]
        first = CollectiveUnits(before, channels, width, groups, stride, drop_paths[:1], **dd)
        return nn.Sequential(first, *(CollectiveUnits(channels, channels, width, groups, 1, run, **dd) for run in runs))
    layers: dict[str, Any] = {'conv_layer': create_conv2d, 'norm_layer': BatchNormAct2d}
    given = {'bottle_ratio': width / channels, 'groups': groups, **layers, **dd}
    first = PreActBottleneck(before, channels, stride=stride, proj_layer=DownsampleConv, drop_path_rate=drop_paths[0], **given)
    return nn.Sequential(
        first, *(PreActBottleneck(channels, channels, drop_path_rate=rate, **given) for rate in drop_paths[1:])
    )


default_cfgs = generate_default_cfgs({'crunet116.untrained': first_order_cfg(first_conv='stem.conv', classifier='head.fc')})


@register_model
def crunet116(pretrained: bool = False, **kwargs: Any) -> CRUNet:
    """CRU-Net-116 (32x4d, collective units at 28 x 28 and 14 x 14), the row of Table 4."""
    return build_model_with_cfg(CRUNet, 'crunet116', pretrained, feature_cfg={'flatten_sequential': True}, **kwargs)
