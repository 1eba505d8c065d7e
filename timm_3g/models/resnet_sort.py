"""ResNet with second-order residual units: SORT.

Paper: Wang, Xie, Liu, Qiao, Zhang, Zhang, Tian, Yuille, "SORT: Second-Order Response Transform for Visual Recognition", ICCV
2017, https://arxiv.org/abs/1703.06993. In every unit y = relu(x + F(x) + sqrt(relu(x) relu(F(x)) + 0.01)), where timm's ResNet
has relu(x + F(x)). No parameter is added, so weights of a plain ResNet fit; they mean another function.

Not certain in the paper, and chosen here: all units have the term, those with a projection too (x is then what the projection
gives); BatchNorm ends F as in ResNet v1.
"""

from typing import TYPE_CHECKING, Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from timm_3g.ops import second_order_response

from ._register import register_second_order
from .resnet_3g import RESNET10_MINI, RESNET50, RESNET101, ResNet3G, create_resnet_3g, first_order_cfg, mini_cfg

__all__: list[str] = []


class _Sort:
    """Mixed into a unit of timm's, before it in the bases: how its two branches come together."""

    if TYPE_CHECKING:  # TorchScript would read it
        se: nn.Module | None
        drop_path: nn.Module | None
        downsample: nn.Module | None

    def respond(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Input and residual of the unit to `second_order_response` of its two branches."""
        if self.se is not None:
            x = self.se(x)
        if self.drop_path is not None:
            x = self.drop_path(x)
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        return second_order_response(shortcut, x)


class SortBottleneck(_Sort, Bottleneck):
    """timm's bottleneck with `second_order_response` in place of the sum.

    >>> import torch
    >>> SortBottleneck(256, 64)(torch.randn(1, 256, 7, 7)).shape
    torch.Size([1, 256, 7, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) to (B, 4 planes, H / stride, W / stride)."""
        shortcut = x
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.aa(self.act2(self.drop_block(self.bn2(self.conv2(x)))))
        x = self.bn3(self.conv3(x))
        return self.act3(self.respond(shortcut, x))


class SortBasicBlock(_Sort, BasicBlock):
    """timm's basic block with `second_order_response` in place of the sum.

    >>> import torch
    >>> SortBasicBlock(64, 64)(torch.randn(1, 64, 7, 7)).shape
    torch.Size([1, 64, 7, 7])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, inplanes, H, W) to (B, planes, H / stride, W / stride)."""
        shortcut = x
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        x = self.bn2(self.conv2(x))
        return self.act2(self.respond(shortcut, x))


default_cfgs = generate_default_cfgs(
    {
        'resnet10_mini_sort.untrained': mini_cfg(),
        'resnet50_sort.untrained': first_order_cfg(),
        'resnet101_sort.untrained': first_order_cfg(),
    }
)


@register_second_order(global_pool='avg', reduce_dim=64)
def resnet10_mini_sort(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """The small member with SORT and average pooling."""
    return create_resnet_3g('resnet10_mini_sort', pretrained, **{**RESNET10_MINI, 'block': SortBasicBlock, **kwargs})


@register_model
def resnet50_sort(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-50 with SORT, the row of Table 3."""
    return build_model_with_cfg(ResNet, 'resnet50_sort', pretrained, **{**RESNET50, 'block': SortBottleneck, **kwargs})


@register_model
def resnet101_sort(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """ResNet-101 with SORT."""
    return build_model_with_cfg(ResNet, 'resnet101_sort', pretrained, **{**RESNET101, 'block': SortBottleneck, **kwargs})
