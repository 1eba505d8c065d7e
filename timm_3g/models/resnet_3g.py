"""ResNets whose last pooling is of second order: 3G-Net and its family.

Papers: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019; the networks it compares with are in
`resnet_gcp.py`, on the same class.
Backbone: timm's ResNet v1 (torchvision's, stride on the 3x3 convolution) with the last stage at stride 1.

What departs from timm's ResNet: stage 4 has stride 1 *without* dilation, so 224 px give 14 x 14 features (timm's
output_stride=16 dilates instead: same shapes, another function); residual BatchNorms are not zero-initialised; `global_pool` is
a module of `layers.create_global_pool` that holds the 1x1 reduction. Everything else is timm's, by inheritance.
"""

from typing import TYPE_CHECKING, Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn

from timm_3g.checkpoints import checkpoint_filter_fn
from timm_3g.checkpoints.hub import on_hub
from timm_3g.checkpoints.shipped import shipped_file
from timm_3g.layers import classify, open_gates

from ._build import build_with_filter
from ._head import SecondOrderHead, pop_pool_options
from ._register import register_second_order

STEM_TYPES = ('', 'deep', 'deep_tiered', 'cifar')

__all__ = ['ResNet3G', 'checkpoint_filter_fn']


class ResNet3G(SecondOrderHead, ResNet):
    """timm's ResNet with stage 4 at stride 1 and a pooling of `timm_3g.list_pools()`.

    All arguments are plain data (block apart), so that config.json is the model.

    Args:
        block, layers: as in timm; the entry points set them.
        num_classes: 0 for no classifier.
        in_chans: input channels.
        output_stride: 32 only.
        global_pool: a name of `timm_3g.list_pools()`, or '' for unpooled 4-D features.
        reduce_dim: channels after the 1x1 reduction of second-order poolings; 0: no reduction.
        stem_type: timm's, or 'cifar': 3x3 convolution at stride 1 without max-pool, for images of 32 to 64 px.
        zero_init_last: zero-initialise the last BatchNorm of each residual branch. The authors do not.
        bn_momentum, bn_eps: of every BatchNorm, those of the head included; None: PyTorch's 0.1 and 1e-5.
        head_init: 'open' or 'orig': where the re-weighting starts, see `timm_3g.create_global_pool`. 'orig' is the authors'.
        head_norm: a BatchNorm on the vector, between pooling and classifier. True: its weights start at 1; a float: there.
        device, dtype: of the parameters.
        kwargs: options of the pooling (num_reweights=3, num_iters=5, centered=True, eps, triangle, ...: the table in
            `layers/create_pool.py`), and timm's ResNet arguments (drop_rate, drop_path_rate, drop_block_rate, ...).

    Raises:
        ValueError: output_stride other than 32, unknown global_pool, an option out of range.
        TypeError: an argument that neither the ResNet nor the pooling has.

    >>> import timm, torch
    >>> model = timm.create_model('resnet18_3g', num_classes=10, reduce_dim=64).eval()
    >>> model(torch.randn(2, 3, 64, 64)).shape, model.head_hidden_size
    (torch.Size([2, 10]), 2080)
    """

    if TYPE_CHECKING:  # TorchScript would read it
        fc: nn.Module

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = '3g',
        reduce_dim: int = 256,
        stem_type: str = '',
        zero_init_last: bool = False,
        bn_momentum: float | None = None,
        bn_eps: float | None = None,
        head_init: str = 'open',
        head_norm: bool | float = False,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if output_stride != 32:
            raise ValueError(
                f'output_stride must be 32; got {output_stride}. This network already keeps stage 4 at stride 1 (14 x 14 '
                f'features from 224 px); timm would dilate it, which is another function. Use a larger image instead.'
            )
        if stem_type not in STEM_TYPES:
            raise ValueError(f'stem_type must be one of {", ".join(map(repr, STEM_TYPES))}; got {stem_type!r}.')
        if kwargs.get('aa_layer') is not None:
            raise ValueError(
                f'aa_layer must be None: it would stride in stage 4, which has stride 1; got {kwargs["aa_layer"]!r}.'
            )
        pool_options = pop_pool_options(kwargs)
        cifar_stem = stem_type == 'cifar'
        super().__init__(
            block,
            layers,
            num_classes=0,
            in_chans=in_chans,
            global_pool='',
            stem_type='' if cifar_stem else stem_type,
            zero_init_last=zero_init_last,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        _set_stage4_stride_1(self)
        if cifar_stem:
            _set_cifar_stem(self, in_chans, device=device, dtype=dtype)
        self._set_head(
            num_classes,
            global_pool,
            pool_options,
            reduce_dim,
            bn_momentum,
            bn_eps,
            head_init,
            head_norm,
            device=device,
            dtype=dtype,
        )

    def classify(self, x: Tensor) -> Tensor:
        """The vector (B, head_hidden_size) to logits (B, num_classes)."""
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return self.fc(x)
        return classify(self.fc, x)

    @torch.jit.ignore
    def init_weights(self, zero_init_last: bool = False) -> None:
        """kaiming_normal fan_out / relu for every convolution, and gates as `head_init` says; residual BatchNorms stay at 1."""
        super().init_weights(zero_init_last=zero_init_last)
        if self.head_init == 'open':
            open_gates(self)
        self.start_head_norm()


def _set_stage4_stride_1(model: ResNet) -> None:
    """Stage 4 at stride 1, without dilation. Shapes of the weights, and so plain ResNet checkpoints, stay as they are."""
    first = model.layer4[0]
    first.stride = 1
    strided = first.conv2 if isinstance(first, Bottleneck) else first.conv1
    if isinstance(first.downsample[0], (nn.AvgPool2d, nn.Identity)):  # avg_down
        first.downsample[0] = nn.Identity()
    for conv in [strided, *(m for m in first.downsample.modules() if isinstance(m, nn.Conv2d))]:
        conv.stride = (1, 1)
    model.feature_info[-1]['reduction'] //= 2


def _set_cifar_stem(model: ResNet, in_chans: int, **dd: Any) -> None:
    """3x3 convolution at stride 1 and no max-pool: every reduction is a quarter of the usual, that of the stem a half."""
    model.conv1 = nn.Conv2d(in_chans, model.conv1.out_channels, 3, padding=1, bias=False, **dd)
    nn.init.kaiming_normal_(model.conv1.weight, mode='fan_out', nonlinearity='relu')
    model.maxpool = nn.Identity()
    for info in model.feature_info:
        info['reduction'] //= 2 if info['module'] == 'act1' else 4


def create_resnet_3g(variant: str, pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """Build a network of this file's class, or load it."""
    return build_with_filter(ResNet3G, variant, pretrained, **kwargs)


_3G_NET = 'Their code, https://github.com/csqlwang/3G-Net, may link other copies (Baidu).'


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        'num_classes': 1000,
        'input_size': (3, 224, 224),
        'pool_size': (14, 14),
        'crop_pct': 0.875,
        'interpolation': 'bilinear',
        'mean': IMAGENET_DEFAULT_MEAN,
        'std': IMAGENET_DEFAULT_STD,
        'first_conv': 'conv1',
        'classifier': 'fc',
        'license': 'apache-2.0',
        **kwargs,
    }


def mini_cfg(**kwargs: Any) -> dict[str, Any]:
    """A cfg of the small member: images of 32 px, as of CIFAR-10."""
    return _cfg(**{'num_classes': 10, 'input_size': (3, 32, 32), 'pool_size': (8, 8), 'crop_pct': 1.0, **kwargs})


def first_order_cfg(**kwargs: Any) -> dict[str, Any]:
    """A cfg of a network without weights whose last map has the usual stride of 32."""
    return _cfg(**{'pool_size': (7, 7), **kwargs})


def _drive_cfg(file_id: str, page: str = _3G_NET, **kwargs: Any) -> dict[str, Any]:
    """Weights on their authors' Google Drive, no licence granted. No `url`: timm would save Drive's confirmation page."""
    return _cfg(origin_url=f'https://drive.google.com/open?id={file_id}', license='unknown', notes=(page,), **kwargs)


CIFAR10 = ('airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck')


def _shipped_cfg(key: str) -> dict[str, Any]:
    """Weights of the small member that ship."""
    return mini_cfg(file=shipped_file(key), label_names=CIFAR10)


default_cfgs = generate_default_cfgs(
    on_hub(
        {
            'resnet10_mini_3g.open_cifar10': _shipped_cfg('resnet10_mini_3g.open_cifar10'),  # the default: it stands first
            'resnet10_mini_3g.cifar10': _shipped_cfg('resnet10_mini_3g.cifar10'),
            'resnet18_3g.untrained': _cfg(),
            'resnet23_3g.untrained': _cfg(),
            'resnet34_3g.untrained': _cfg(),
            'resnet50_3g.orig_in1k': _drive_cfg('1hN8Q5rlIOQa0YYkcen9jpN9YatPB1j4D'),
            'resnet50_3g.orig_places365': _drive_cfg('1VMVw35h-iW-d4AYH6ecV58_kECDyNzib', num_classes=365),
            'resnet101_3g.orig_in1k': _drive_cfg('14vJLFYqlRJyiIHjoG0lOm0RhB1NRF4Xc'),
            'resnet101_3g.orig_places365': _drive_cfg('1dOCeQkLBwR3AJSiH8w1qTq9-kT00T7_G', num_classes=365),
            'resnet152_3g.untrained': _cfg(),
        }
    )
)

RESNET10_MINI: dict[str, Any] = {
    'block': BasicBlock,
    'layers': (1, 1, 1, 1),
    'channels': (32, 64, 128, 128),
    'stem_type': 'cifar',
}
RESNET18: dict[str, Any] = {'block': BasicBlock, 'layers': (2, 2, 2, 2)}
RESNET23: dict[str, Any] = {'block': Bottleneck, 'layers': (1, 2, 2, 2)}
RESNET34: dict[str, Any] = {'block': BasicBlock, 'layers': (3, 4, 6, 3)}
RESNET50: dict[str, Any] = {'block': Bottleneck, 'layers': (3, 4, 6, 3)}
RESNET101: dict[str, Any] = {'block': Bottleneck, 'layers': (3, 4, 23, 3)}
RESNET152: dict[str, Any] = {'block': Bottleneck, 'layers': (3, 8, 36, 3)}


@register_second_order(reduce_dim=64)
def resnet10_mini_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """The small member, for images of 32 to 64 px: 3x3 stem at stride 1, one BasicBlock a stage, 8 x 8 features at 32 px."""
    return create_resnet_3g('resnet10_mini_3g', pretrained, **{**RESNET10_MINI, **kwargs})


@register_second_order()
def resnet18_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on ResNet-18."""
    return create_resnet_3g('resnet18_3g', pretrained, **{**RESNET18, **kwargs})


@register_second_order()
def resnet23_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on the authors' ResNet-23: bottlenecks (1, 2, 2, 2)."""
    return create_resnet_3g('resnet23_3g', pretrained, **{**RESNET23, **kwargs})


@register_second_order()
def resnet34_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on ResNet-34."""
    return create_resnet_3g('resnet34_3g', pretrained, **{**RESNET34, **kwargs})


@register_second_order()
def resnet50_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on ResNet-50, the network of the paper's tables."""
    return create_resnet_3g('resnet50_3g', pretrained, **{**RESNET50, **kwargs})


@register_second_order()
def resnet101_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on ResNet-101."""
    return create_resnet_3g('resnet101_3g', pretrained, **{**RESNET101, **kwargs})


@register_second_order()
def resnet152_3g(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """3G-Net on ResNet-152."""
    return create_resnet_3g('resnet152_3g', pretrained, **{**RESNET152, **kwargs})
