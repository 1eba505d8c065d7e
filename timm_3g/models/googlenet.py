"""torchvision's GoogLeNet in timm's registry.

Paper: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842. torchvision's network has
BatchNorm behind each convolution, and 3x3 where the paper has 5x5. The two auxiliary classifiers are left out: timm's train.py
takes one output. The row of Table 4 appears to be the Caffe network that the authors of Places trained, which has no BatchNorm.
"""

from contextlib import nullcontext
from typing import Any

import torch
from timm.layers import create_classifier, get_device_dtype
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import GoogLeNet

from timm_3g.compat import feature_take_indices

from .resnet_3g import first_order_cfg

__all__: list[str] = []

# The stages whose last map timm's features_only gives: channels, and the modules in their order.
STAGES = (
    (64, ('conv1',)),
    (192, ('maxpool1', 'conv2', 'conv3')),
    (480, ('maxpool2', 'inception3a', 'inception3b')),
    (832, ('maxpool3', 'inception4a', 'inception4b', 'inception4c', 'inception4d', 'inception4e')),
    (1024, ('maxpool4', 'inception5a', 'inception5b')),
)
BLOCKS = [name for _, names in STAGES for name in names if name.startswith('inception')]


class GoogLeNetTimm(GoogLeNet):
    """torchvision's GoogLeNet with the methods of a timm model. The names of its parameters are torchvision's.

    Args:
        num_classes: 0 for no classifier.
        in_chans: input channels.
        output_stride: 32 only.
        global_pool: timm's: avg, max, avgmax, catavgmax, or '' for unpooled features.
        drop_rate: of the dropout before the classifier. torchvision's is 0.2.
        device, dtype: of the parameters.

    Raises:
        ValueError: output_stride other than 32.

    >>> import timm
    >>> model = timm.create_model('googlenet_places', num_classes=10).eval()
    >>> model(torch.randn(1, 3, 64, 64)).shape, model.num_features
    (torch.Size([1, 10]), 1024)
    """

    def __init__(
        self,
        num_classes: int = 365,
        in_chans: int = 3,
        output_stride: int = 32,
        global_pool: str = 'avg',
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if output_stride != 32:
            raise ValueError(f'output_stride must be 32; got {output_stride}. GoogLeNet is not dilated.')
        with torch.device(device) if device is not None else nullcontext():
            super().__init__(1, aux_logits=False, init_weights=True)
            if in_chans != 3:
                self.conv1.conv = nn.Conv2d(in_chans, 64, 7, stride=2, padding=3, bias=False)
                nn.init.trunc_normal_(self.conv1.conv.weight, std=0.01, a=-2, b=2)  # as torchvision starts the others
        del self.aux1, self.aux2, self.avgpool, self.dropout
        self.drop_rate = drop_rate
        self.num_classes = num_classes
        self.num_features = 1024
        self.in_chans = in_chans
        self.grad_checkpointing = False
        self.feature_info = [
            {'num_chs': channels, 'reduction': 2 ** (index + 1), 'module': names[-1]}
            for index, (channels, names) in enumerate(STAGES)
        ]
        self.to(dtype=dtype)
        self._set_head(global_pool, device=device, dtype=dtype)

    def _set_head(self, global_pool: str, **dd: Any) -> None:
        self.global_pool, self.fc = create_classifier(self.num_features, self.num_classes, pool_type=global_pool, **dd)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.global_pool.train(self.training)
        self.fc.train(self.training)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns of the stem and of the blocks, as timm's layer decay reads them."""
        fine = [(f'^{name}', (index,)) for index, name in enumerate(BLOCKS)]
        return {'stem': r'^conv\d', 'blocks': r'^inception(\d)' if coarse else fine}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the blocks compute their activations again in the backward pass, to save memory."""
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The Linear, or an Identity where num_classes is 0."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifier, and another pooling where one is named. 0: no classifier."""
        self.num_classes = num_classes
        self._set_head(self.global_pool.pool_type if global_pool is None else global_pool, **get_device_dtype(self))

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The last maps of stages, as timm's models give them.

        Args:
            x: images (B, in_chans, H, W).
            indices: of the stages 0 to 4; n for the last n; None for all.
            norm: for timm's sake. There is no last norm.
            stop_early: do not compute the stages after the last that is asked for.
            output_fmt: NCHW only.
            intermediates_only: the list alone.

        Returns:
            The last map and the list of maps, or the list alone.

        Raises:
            ValueError: another output_fmt.
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'output_fmt must be NCHW; got {output_fmt!r}.')
        taken, last = feature_take_indices(len(STAGES), indices)
        maps = []
        for index, (_, names) in enumerate(STAGES[: last + 1] if stop_early else STAGES):
            modules = [self.get_submodule(name) for name in names]
            x = checkpoint_seq(modules, x) if self.grad_checkpointing else nn.Sequential(*modules)(x)
            if index in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    @torch.jit.ignore
    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Replace what the maps of these stages do not need by Identity. Returns the indices of the stages."""
        taken, last = feature_take_indices(len(STAGES), indices)
        for _, names in STAGES[last + 1 :]:
            for name in names:
                setattr(self, name, nn.Identity())
        self.num_features = STAGES[last][0]
        if prune_head or last < len(STAGES) - 1:
            self.reset_classifier(0, '')
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to (B, 1024, H / 32, W / 32)."""
        if not torch.jit.is_scripting() and self.grad_checkpointing:
            return self.forward_intermediates(x)[0]
        x = self.conv3(self.conv2(self.maxpool1(self.conv1(x))))
        x = self.inception3b(self.inception3a(self.maxpool2(x)))
        x = self.inception4b(self.inception4a(self.maxpool3(x)))
        x = self.inception4e(self.inception4d(self.inception4c(x)))
        return self.inception5b(self.inception5a(self.maxpool4(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits (B, num_classes), or to the vector (B, head_hidden_size) before the classifier."""
        x = self.global_pool(x)
        if self.drop_rate > 0.0:
            x = F.dropout(x, p=float(self.drop_rate), training=self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to logits (B, num_classes), in training too."""
        return self.forward_head(self.forward_features(x))


default_cfgs = generate_default_cfgs(
    {'googlenet_places.untrained': first_order_cfg(num_classes=365, first_conv='conv1.conv', license='bsd-3-clause')}
)


@register_model
def googlenet_places(pretrained: bool = False, **kwargs: Any) -> GoogLeNetTimm:
    """GoogLeNet for the 365 classes of Places365, the row of Table 4."""
    return build_model_with_cfg(
        GoogLeNetTimm, 'googlenet_places', pretrained, pretrained_filter_fn=_without_auxiliary_heads, **kwargs
    )


def _without_auxiliary_heads(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """torchvision's weights without the two classifiers that serve its training."""
    return {name: tensor for name, tensor in weights.items() if not name.startswith(('aux1.', 'aux2.'))}
