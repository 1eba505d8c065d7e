"""ResNet with double attention blocks: A^2-Net.

Paper: Chen, Kalantidis, Li, Yan, Feng, "A^2-Nets: Double Attention Networks", NeurIPS 2018, https://arxiv.org/abs/1810.11579.
Of ResNet-50, every second unit of conv3 and conv4 (timm's layer2 and layer3) is followed by a block: five blocks.

Not certain in the paper, and chosen here: the features m and the attention maps n of a block are half the channels of its
stage, each. BatchNorm ends a block and starts at 0, so that a new network is the plain ResNet, and weights of a plain ResNet
keep their function. Only V has a bias. The others would change nothing: a constant of B is lost in the softmax over positions,
and a constant of A or of the last convolution in the BatchNorm.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import ResNet
from torch import Tensor, nn

from timm_3g.ops import double_attention

from ._build import build_with_filter
from ._register import register_second_order
from .resnet_3g import RESNET10_MINI, RESNET50, ResNet3G, first_order_cfg, mini_cfg

__all__: list[str] = []


class DoubleAttention(nn.Module):
    """x + BN(W Z), where Z is the double attention of three 1x1 convolutions of x.

    Args:
        channels: of the features, C.
        device, dtype: of the parameters.

    >>> import torch
    >>> DoubleAttention(64)(torch.randn(2, 64, 7, 7)).shape
    torch.Size([2, 64, 7, 7])
    """

    def __init__(self, channels: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        inner = channels // 2
        self.features = nn.Conv2d(channels, inner, 1, bias=False, **dd)
        self.gather = nn.Conv2d(channels, inner, 1, bias=False, **dd)
        self.distribute = nn.Conv2d(channels, inner, 1, **dd)
        self.project = nn.Conv2d(inner, channels, 1, bias=False, **dd)
        self.bn = nn.BatchNorm2d(channels, **dd)
        nn.init.zeros_(self.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        features = self.features(x)
        z = double_attention(features.flatten(2), self.gather(x).flatten(2), self.distribute(x).flatten(2))
        return x + self.bn(self.project(z.reshape(features.shape)))


class _WithDoubleAttention:
    """Mixed into a ResNet, before it in the bases: a `DoubleAttention` behind every second unit of layer2 and layer3.

    A stage of one unit has a block behind that.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        dd = {'device': kwargs.get('device'), 'dtype': kwargs.get('dtype')}
        net: Any = self
        for number in (2, 3):
            stage = getattr(net, f'layer{number}')
            channels = net.feature_info[number]['num_chs']
            setattr(net, f'layer{number}', _with_attention(stage, channels, **dd))

    @torch.jit.ignore
    def init_weights(self, *args: Any, **kwargs: Any) -> None:
        """As the network without blocks, and the blocks as a new network has them."""
        super().init_weights(*args, **kwargs)  # type: ignore[misc]
        net: Any = self
        for block in net.modules():
            if isinstance(block, DoubleAttention):
                for module in block.modules():
                    if isinstance(module, nn.Conv2d):
                        module.reset_parameters()


def _with_attention(stage: nn.Sequential, channels: int, **dd: Any) -> nn.Sequential:
    """The units under their names, and a block named 1_attention behind unit 1: of the same group in `group_matcher`."""
    whole = nn.Sequential()
    for name, unit in stage.named_children():
        whole.add_module(name, unit)
        if int(name) % 2 == 1 or len(stage) == 1:
            whole.add_module(f'{name}_attention', DoubleAttention(channels, **dd))
    return whole


class ResNetA2(_WithDoubleAttention, ResNet):
    """timm's ResNet with a `DoubleAttention` behind every second unit of layer2 and layer3.

    Args:
        kwargs: those of timm's ResNet.

    >>> import timm, torch
    >>> model = timm.create_model('resnet50_a2', num_classes=10).eval()
    >>> model(torch.randn(1, 3, 64, 64)).shape, sum(isinstance(module, DoubleAttention) for module in model.modules())
    (torch.Size([1, 10]), 5)
    """


class ResNet3GA2(_WithDoubleAttention, ResNet3G):
    """The same on `ResNet3G`, with its stem for small images and its poolings.

    Args:
        kwargs: those of `ResNet3G`.

    >>> import timm
    >>> model = timm.create_model('resnet10_mini_a2', num_classes=10)
    >>> [name for name, module in model.named_modules() if isinstance(module, DoubleAttention)]
    ['layer2.0_attention', 'layer3.0_attention']
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._set_batch_norm(self)


default_cfgs = generate_default_cfgs({'resnet10_mini_a2.untrained': mini_cfg(), 'resnet50_a2.untrained': first_order_cfg()})


@register_second_order(global_pool='avg', reduce_dim=64)
def resnet10_mini_a2(pretrained: bool = False, **kwargs: Any) -> ResNet3GA2:
    """The small member with a double attention block in layer2 and in layer3, and average pooling."""
    return build_with_filter(ResNet3GA2, 'resnet10_mini_a2', pretrained, **{**RESNET10_MINI, **kwargs})


@register_model
def resnet50_a2(pretrained: bool = False, **kwargs: Any) -> ResNetA2:
    """ResNet-50 with five double attention blocks, the row of Table 3."""
    return build_model_with_cfg(
        ResNetA2, 'resnet50_a2', pretrained, pretrained_filter_fn=_with_new_blocks, **{**RESNET50, **kwargs}
    )


def _with_new_blocks(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Weights of a plain ResNet with the blocks of a new network, which change nothing."""
    new = {name: tensor for name, tensor in model.state_dict().items() if '_attention.' in name}
    return weights if new.keys() & weights.keys() else {**weights, **new}
