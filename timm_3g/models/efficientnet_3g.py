"""EfficientNet-Lite with a pooling of second order in place of the average: a small backbone with ImageNet weights at hand.

Backbone: Tan & Le, "EfficientNet", ICML 2019, in its Lite form (no squeeze-and-excitation, ReLU6), as timm has it; the 3G
authors used ResNets only. The poolings are those of `resnet_3g.py`.

What departs from timm's EfficientNet: `global_pool` is a module of `layers.create_global_pool`, which reduces the 1280 channels
of conv_head to 256, and the classifier is as long as its vector. What departs from `resnet_3g.py`: the strides stay timm's, so
224 px give 7 x 7 features and plain weights mean what they meant. Covariances of 49 positions have rank 48 at most; larger
images have more. With global_pool='avg' the function is timm's own.
"""

from typing import TYPE_CHECKING, Any

import torch
from timm.data import IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.layers import Conv2dSame, conv2d_same
from timm.models import generate_default_cfgs
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn
from timm_3g.compat import decode_arch_def
from timm_3g.layers import classify

from ._build import build_with_filter
from ._head import SecondOrderHead, pop_pool_options
from ._register import register_second_order

__all__ = ['EfficientNet3G']


torch.fx.wrap('conv2d_same')


class _Conv2dSame(Conv2dSame):
    """timm's convolution with TensorFlow's padding, as one node for torch.fx: the padding depends on the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same with out_channels and the stride's size."""
        return conv2d_same(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class EfficientNet3G(SecondOrderHead, EfficientNet):
    """timm's EfficientNet with a pooling of `timm_3g.list_pools()`.

    All arguments are plain data, so that config.json is the model.

    Args:
        arch_def: the stages in timm's notation of blocks; the entry points set it.
        num_classes: 0 for no classifier.
        in_chans: input channels.
        output_stride: 32 only.
        global_pool: a name of `timm_3g.list_pools()`, or '' for unpooled 4-D features.
        reduce_dim: channels after the 1x1 reduction of second-order poolings; 0: no reduction.
        bn_momentum, bn_eps: of every BatchNorm, those of the head included; None: PyTorch's 0.1 and 1e-5. The entry points'
            eps is TensorFlow's 1e-3, as the weights have it.
        device, dtype: of the parameters.
        kwargs: options of the pooling (num_reweights=3, num_iters=5, centered=True, eps, triangle, ...: the table in
            `layers/create_pool.py`), and timm's EfficientNet arguments (drop_rate, drop_path_rate, act_layer, ...).

    Raises:
        ValueError: output_stride other than 32, unknown global_pool, an option out of range.
        TypeError: an argument that neither the EfficientNet nor the pooling has.
    """

    classifier_name = 'classifier'
    if TYPE_CHECKING:  # TorchScript would read it
        classifier: nn.Module

    def __init__(
        self,
        arch_def: list[list[str]],
        num_classes: int = 1000,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = '3g',
        reduce_dim: int = 256,
        bn_momentum: float | None = None,
        bn_eps: float | None = None,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        if output_stride != 32:
            raise ValueError(
                f'output_stride must be 32; got {output_stride}. timm would dilate, which is another function that no weights '
                f'tell apart. For more than 7 x 7 features use a larger image than 224 px.'
            )
        pool_options = pop_pool_options(kwargs)
        super().__init__(
            decode_arch_def(arch_def),
            num_classes=0,
            in_chans=in_chans,
            global_pool='',
            device=device,
            dtype=dtype,
            **kwargs,
        )
        for module in self.modules():
            if type(module) is Conv2dSame:
                module.__class__ = _Conv2dSame
        self._set_head(num_classes, global_pool, pool_options, reduce_dim, bn_momentum, bn_eps, device=device, dtype=dtype)

    def classify(self, x: Tensor) -> Tensor:
        """The vector (B, head_hidden_size) to logits (B, num_classes)."""
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return self.classifier(x)
        return classify(self.classifier, x)


def _create_efficientnet_3g(variant: str, pretrained: bool = False, **kwargs: Any) -> EfficientNet3G:
    """features_only goes through forward_intermediates: timm's own way is another class, without what the filter checks."""
    return build_with_filter(EfficientNet3G, variant, pretrained, **{'feature_cfg': {'feature_cls': 'getter'}, **kwargs})


def _cfg(**kwargs: Any) -> dict[str, Any]:
    return {
        'num_classes': 1000,
        'input_size': (3, 224, 224),
        'pool_size': (7, 7),
        'crop_pct': 0.875,
        'interpolation': 'bicubic',
        'mean': IMAGENET_INCEPTION_MEAN,
        'std': IMAGENET_INCEPTION_STD,
        'first_conv': 'conv_stem',
        'classifier': 'classifier',
        'license': 'apache-2.0',
        **kwargs,
    }


default_cfgs = generate_default_cfgs({'tf_efficientnet_lite0_3g.untrained': _cfg()})

LITE0: dict[str, Any] = {
    'arch_def': [
        ['ds_r1_k3_s1_e1_c16'],
        ['ir_r2_k3_s2_e6_c24'],
        ['ir_r2_k5_s2_e6_c40'],
        ['ir_r3_k3_s2_e6_c80'],
        ['ir_r3_k5_s1_e6_c112'],
        ['ir_r4_k5_s2_e6_c192'],
        ['ir_r1_k3_s1_e6_c320'],
    ],
    'act_layer': 'relu6',
    'pad_type': 'same',
}


@register_second_order(bn_eps=1e-3)
def tf_efficientnet_lite0_3g(pretrained: bool = False, **kwargs: Any) -> EfficientNet3G:
    """3G pooling on EfficientNet-Lite0, with TensorFlow's padding and BatchNorm as timm's `tf_efficientnet_lite0`."""
    return _create_efficientnet_3g('tf_efficientnet_lite0_3g', pretrained, **{**LITE0, **kwargs})
