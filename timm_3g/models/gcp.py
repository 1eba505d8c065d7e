"""The network behind `timm.create_model('gcp', backbone='convnext_atto', global_pool='3g')`: timm's own, with another head.

It keeps the class, the names and the methods that it has in timm. What is exchanged is its head: pooling and classifier. So
plain weights of the backbone keep their names, and what timm can do with the backbone it can do with the result.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from math import inf
from types import FunctionType
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.layers import ClassifierHead
from timm.models import group_modules, group_parameters
from torch import Tensor, nn

from timm_3g.compat import FeatureGetterNet, feature_take_indices
from timm_3g.layers import WithAverage2d, classify, open_gates

from ._head import SecondOrderHead, pop_pool_options
from .backbones import (
    INTERMEDIATES,
    LAST_STAGE_ALONE,
    PRUNED_WITH_HEAD,
    WHOLE_PATCHES,
    create_backbone,
    family_of,
    form_of,
    remove_head,
    takes_norm,
)

_logger = logging.getLogger(__name__)

REDUCE_DIM = 256  # channels after the reduction, where the map has more


class GCP(SecondOrderHead):
    """A network of timm with a pooling of `timm_3g.list_pools()` and a classifier called `classifier`.

    Each is an instance of this class and of the backbone's own class in timm. `build_gcp` makes them.

    Attributes:
        backbone: name of the backbone in timm's registry, with its tag if one was given.
        out_index: the stage whose map is pooled, as in `forward_intermediates`. None: the map of `forward_features`.
        first_order: whether the average of the last map is joined to the vector.
        output_stride: the stride that the backbone was dilated to. None for its own.

    >>> import timm, timm_3g
    >>> from timm.models.convnext import ConvNeXt
    >>> model = timm.create_model('gcp', backbone='convnext_atto', global_pool='isqrt', num_classes=10)
    >>> isinstance(model, GCP), isinstance(model, ConvNeXt), model.head_hidden_size
    (True, True, 32896)
    """

    classifier_name = 'classifier'
    batch_norm = (None, None)  # those of the backbone
    if TYPE_CHECKING:  # TorchScript would read it
        classifier: nn.Module
        backbone: str
        out_index: int | None
        first_order: bool
        output_stride: int | None
        family: str  # of the backbone in timm
        form: str  # of its features, see `form_of`
        num_stages: int
        stage: int  # whose map is pooled, where it is not that of forward_features
        stage_norm: bool
        last_features: int  # channels of the last map
        prefix_tokens: int
        made_of: tuple[str, Any]  # what `class_of` was called with
        reduction: int  # the stride of a token
        padding: int  # rows of an image that its last row of tokens may lack
        feature_info: Any
        forward_features: Any
        backbone_features: Any  # the backbone's own forward_features
        backbone_intermediates: Any  # the backbone's own forward_intermediates
        forward_intermediates: Any

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def classify(self, x: Tensor) -> Tensor:
        """The vector (B, head_hidden_size) to logits (B, num_classes)."""
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return self.classifier(x)
        return classify(self.classifier, x)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """A Linear, what the pooling has in its place, or an Identity where num_classes is 0."""
        return self.classifier

    def _maps_of(self, x: Tensor, stages: list[int]) -> list[Tensor]:
        """The maps (B, C, H, W) of some stages, by timm's forward_intermediates."""
        return self.backbone_intermediates(x, indices=stages, norm=self.stage_norm, output_fmt='NCHW', intermediates_only=True)

    def _create_pool(self, global_pool: str, options: dict[str, Any], **dd: Any) -> nn.Module:
        pool = super()._create_pool(global_pool, options, **dd)
        has_average = self.out_index is None and global_pool.removeprefix('fast') in ('avg', 'catavgmax')
        if not self.first_order or not global_pool or has_average:
            return pool
        if global_pool == 'fbn':
            raise ValueError("first_order must be left out for global_pool='fbn': its classifier has a term of first order.")
        return WithAverage2d(pool, self.last_features)

    @torch.jit.ignore
    def function_options(self) -> dict[str, Any]:
        """What settles the function of this model beside its architecture and the name of its pooling. Plain data."""
        names = ('backbone', 'out_index', 'first_order', 'output_stride')
        return {**{name: getattr(self, name) for name in names}, **super().function_options()}

    @torch.jit.ignore
    def differing_options(self, recorded: Mapping[str, Any]) -> list[str]:
        """What is recorded of a function that is not this model's, as texts. Stages may be counted from the last."""
        index = recorded.get('out_index')
        return super().differing_options({**recorded, 'out_index': index % self.num_stages} if index else recorded)

    @torch.jit.ignore
    def reset_classifier(self, num_classes: int, global_pool: str | None = None, **_: Any) -> None:
        """See `SecondOrderHead.reset_classifier`. Other parts of a head, which some networks of timm can reset, are gone."""
        super().reset_classifier(num_classes, global_pool)

    @torch.jit.ignore
    def resized(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of this network with what belongs to another size of images, such as position embeddings, as timm resizes it.

        timm has a filter for each family. It also takes names of other origin, so its result counts for those tensors alone.
        """
        target = self.state_dict()
        other = [k for k, t in weights.items() if k in target and target[k].shape != t.shape and not is_of_head(k)]
        filter_fn = getattr(sys.modules[self.made_of[1].__module__], 'checkpoint_filter_fn', None)
        if not other or filter_fn is None:
            return weights
        try:
            resized = filter_fn(dict(weights), self)
        except Exception:  # what it cannot resize is refused for its shape
            _logger.debug('%s', filter_fn, exc_info=True)
            return weights
        return {**weights, **{k: resized[k] for k in other if k in resized and resized[k].shape == target[k].shape}}

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """The groups of the backbone, and the whole head as the last one: what `--layer-decay` of train.py goes by.

        What the backbone counts with its head, such as a last normalization, is in the backbone's last group here. Where timm
        has no groups, every block is one: what the first two parts of a name tell apart.
        """
        groups = self._groups_of_timm(coarse)
        found: dict[str, int] = {}
        with _standing_in(self, {'unknown': nn.Linear(1, 1)}):  # no matcher knows it, so that it shows the group of the rest
            for group, name in ((group_parameters, 'unknown.weight'), (group_modules, 'unknown')):
                numbers: dict[str, int] = group(self, groups, reverse=True)
                last = max((number for number in numbers.values() if number < numbers[name]), default=0)
                found |= {name: min(number, last) for name, number in numbers.items()}
        return lambda name: inf if is_of_head(name) else found.get(name, 0)

    def _groups_of_timm(self, coarse: bool) -> Any:
        """What timm's network has for groups, patterns or a function. Where it has none: a function that tells blocks apart."""
        timms: Any = super()
        if hasattr(timms, 'group_matcher'):
            gone: Any = timm.get_pretrained_cfg(self.backbone)
            # Some networks of timm take their own classifier out of the groups.
            with _standing_in(self, {gone.classifier: nn.Identity()} if str(gone.classifier).isidentifier() else {}):
                return timms.group_matcher(coarse)
        order: dict[str, int] = {}
        for name, _ in (*self.named_parameters(recurse=False), *self.named_modules()):
            order.setdefault(_block(name), len(order))
        return lambda name: order.get(_block(name), inf)

    @torch.jit.ignore
    def prune_intermediate_layers(self, *args: Any, **kwargs: Any) -> list[int]:
        """As the backbone's own: the stages that `forward_intermediates` is to give, counted from the first. Others go."""
        prune = super().prune_intermediate_layers  # type: ignore[misc]
        if self.family not in PRUNED_WITH_HEAD:
            return prune(*args, **kwargs)
        self.head = ClassifierHead(1, 0)  # in place of the one that is gone
        taken = prune(*args, **kwargs)
        del self.head
        super().reset_classifier(0, '')
        return taken

    def __reduce_ex__(self, protocol: Any) -> Any:
        """The class was made at run time: what is pickled or copied is what it was made of."""
        cls: Any = type(self)
        return _empty, cls.made_of, self.__dict__


class _FromNHWC(GCP):
    """Its backbone gives maps (B, H, W, C)."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to maps (B, num_features, H, W)."""
        return self.backbone_features(x).permute(0, 3, 1, 2)

    @torch.jit.ignore
    def forward_intermediates(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the backbone's own. The last features, where they are wanted, are those of `forward_features`."""
        found = self.backbone_intermediates(x, *args, **kwargs)
        return (found[0].permute(0, 3, 1, 2), found[1]) if isinstance(found, tuple) else found


class _FromTokens(GCP):
    """Its backbone gives tokens (B, prefix tokens + H W, C)."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to maps (B, num_features, H, W), without prefix tokens."""
        return tokens_to_map(self.backbone_features(x), x, self.prefix_tokens, self.reduction, self.padding)

    @torch.jit.ignore
    def forward_intermediates(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As the backbone's own. The last features, where they are wanted, are those of `forward_features`."""
        found = self.backbone_intermediates(x, *args, **kwargs)
        if not isinstance(found, tuple):
            return found
        return tokens_to_map(found[0], x, self.prefix_tokens, self.reduction, self.padding), found[1]


class _FromMaps(GCP):
    """Its features are maps of `forward_intermediates`."""

    @torch.jit.ignore
    def forward_intermediates(
        self,
        x: Tensor,
        indices: Any = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
        **kwargs: Any,
    ) -> Any:
        """The maps as the backbone's own. The last features, where they are wanted, are those of `forward_features`."""
        maps = self.backbone_intermediates(x, indices, norm, stop_early, output_fmt, intermediates_only=True, **kwargs)
        return maps if intermediates_only else (self.forward_features(x), maps)


class _FromStage(_FromMaps):
    """The map of one stage alone is used. What comes after it is gone."""

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to maps (B, num_features, H, W)."""
        return self._maps_of(x, [self.stage])[0]


class _FromTwoStages(_FromMaps):
    """The map of one stage for the covariance, and the last one for the average."""

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images to the map that is pooled and the last map, both in NCHW."""
        if self.family in INTERMEDIATES:
            tap, last = self._maps_of(x, [self.stage, self.num_stages - 1])
            return tap, last
        last, maps = self.backbone_intermediates(
            x, indices=[self.stage], norm=self.stage_norm, stop_early=False, output_fmt='NCHW'
        )
        if self.form == 'NLC':
            last = tokens_to_map(last, x, self.prefix_tokens, self.reduction, self.padding)
        return maps[0], last.permute(0, 3, 1, 2) if self.form == 'NHWC' else last

    def forward_head(self, x: tuple[Tensor, Tensor], pre_logits: bool = False) -> Tensor:  # type: ignore[override]
        """What `forward_features` gives to logits (B, num_classes), or to the vector before the classifier."""
        vector = self.global_pool(*x) if isinstance(self.global_pool, WithAverage2d) else self.global_pool(x[0])
        return self._from_vector(vector, pre_logits)


def tokens_to_map(tokens: Tensor, image: Tensor, prefix_tokens: int, reduction: int, padding: int) -> Tensor:
    """Tokens (B, prefix_tokens + h w, C) of an image (B, c, H, W) to a map (B, C, h, w), h = (H + padding) // reduction.

    >>> tokens_to_map(torch.rand(2, 1 + 2 * 3, 8), torch.rand(2, 3, 32, 48), 1, 16, 15).shape
    torch.Size([2, 8, 2, 3])
    """
    tokens = tokens[:, prefix_tokens:]
    height = (image.shape[2] + padding) // reduction
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], height, tokens.shape[1] // height)


torch.fx.wrap('tokens_to_map')


def is_of_head(name: str) -> bool:
    """Whether a parameter or a module is one of the head.

    >>> is_of_head('global_pool.reduce.conv.weight'), is_of_head('classifier'), is_of_head('layer1.0')
    (True, True, False)
    """
    return name.split('.')[0] in ('global_pool', 'head_norm', GCP.classifier_name)


def _block(name: str) -> str:
    """The first two parts of a name."""
    return '.'.join(name.split('.')[:2])


@contextmanager
def _standing_in(model: nn.Module, parts: Mapping[str, nn.Module]) -> Iterator[None]:
    """Put modules in the place of parts that a network does not have, for functions of timm that reach for them."""
    missing = {name: part for name, part in parts.items() if not hasattr(model, name)}
    for name, part in missing.items():
        model.add_module(name, part)
    try:
        yield
    finally:
        for name in missing:
            delattr(model, name)


def _init_weights(self: Any, *args: Any, **kwargs: Any) -> None:
    """As the backbone's own; re-weighting as `head_init` says, and the BatchNorm on the vector as `head_norm`."""
    with _standing_in(self, {'head': nn.Identity()}):
        self.made_of[1].init_weights(self, *args, **kwargs)
    if self.head_init == 'open':
        open_gates(self)
    self.start_head_norm()


_KINDS: dict[str, type[GCP]] = {
    'NCHW': GCP,
    'NHWC': _FromNHWC,
    'NLC': _FromTokens,
    'stage': _FromStage,
    'two stages': _FromTwoStages,
}


# What a function is made of, in the order in which FunctionType takes it.
PARTS = ('__code__', '__globals__', '__name__', '__defaults__', '__closure__')


@cache
def class_of(kind: str, base: Any) -> type[GCP]:
    """The class of a network of timm with our head: one per kind in _KINDS and class of timm's.

    Two methods of timm's have another name in it: `backbone_features` and `backbone_intermediates`.
    """
    features = FunctionType(*(getattr(base.forward_features, part) for part in PARTS))
    features.__name__ = 'backbone_features'  # by this name TorchScript knows it
    members: dict[str, Any] = {
        # In the namespace of timm's: torch.fx looks there for the functions that it must not trace into.
        'forward': FunctionType(GCP.forward.__code__, base.forward_features.__globals__, 'forward'),
        'backbone_features': features,
        'backbone_intermediates': base.forward_intermediates,
        'made_of': (kind, base),
    }
    if hasattr(base, 'init_weights'):
        members['init_weights'] = torch.jit.ignore(_init_weights)
    return type(f'{base.__name__}GCP', (_KINDS[kind], base), members)


def _empty(kind: str, base: Any) -> GCP:
    cls = class_of(kind, base)
    return cls.__new__(cls)


class Features(FeatureGetterNet):
    """What `features_only=True` gives: by default all stages of a convolutional network, the last three of a transformer."""

    def __init__(self, model: GCP, out_indices: Any = None, **kwargs: Any) -> None:
        stages = (model.stage if model.out_index is not None else model.num_stages - 1) + 1
        if out_indices is None:
            out_indices = min(3, stages) if model.form == 'NLC' else tuple(range(stages))
        elif model.out_index is not None and not model.first_order:
            wanted = feature_take_indices(model.num_stages, out_indices)[0]
            if max(wanted) >= stages:
                raise ValueError(
                    f'out_indices must be below {stages}: with out_index={model.out_index} the later stages are gone; got '
                    f'{out_indices!r}. Leave out_index out.'
                )
        super().__init__(model, out_indices, **kwargs)


def build_gcp(
    backbone: str,
    num_classes: int = 1000,
    global_pool: str = '3g',
    reduce_dim: int | None = None,
    out_index: int | None = None,
    first_order: bool = False,
    output_stride: int | None = None,
    bn_momentum: float | None = None,
    bn_eps: float | None = None,
    head_init: str = 'open',
    head_norm: bool | float = False,
    drop_rate: float = 0.0,
    backbone_weights: dict[str, Any] | None = None,
    device: Any = None,
    dtype: Any = None,
    **kwargs: Any,
) -> GCP:
    """A network of timm with the head of this package. All arguments but the weights are plain data.

    Args:
        backbone: name of a network in timm's registry, with or without a tag: one of `timm_3g.list_backbones()`.
        num_classes: 0 for no classifier.
        global_pool: a name of `timm_3g.list_pools()`, or '' for unpooled 4-D features.
        reduce_dim: channels after the 1x1 reduction of second-order poolings. 0: no reduction. None: 256 where the map has
            more channels, else no reduction.
        out_index: the stage whose map is pooled, as in timm's `forward_intermediates`: earlier stages have more positions and
            fewer channels. Later stages go, unless `first_order`. None: the map of `forward_features`.
        first_order: join the average of the last map to the vector, where it is not in it. So 'avg' of an earlier stage is the
            first-order control of a covariance of it.
        output_stride: 8 or 16 to dilate the last stages of a family that can: more positions, and weights keep their meaning.
        bn_momentum, bn_eps: of every BatchNorm, also in the head. None: the backbone's own, and PyTorch's in the head.
        head_init: 'open' or 'orig': where the re-weighting starts, see `timm_3g.create_global_pool`.
        head_norm: a BatchNorm on the vector, between pooling and classifier. True: its weights start at 1; a float: there.
            Not with 'fbn'.
        drop_rate: dropout on the vector. With 'fbn': of its factors.
        backbone_weights: None for random ones. {} for those of the backbone's tag. Else a pretrained_cfg_overlay of timm that
            names others.
        device, dtype: of the parameters.
        kwargs: options of the pooling (num_reweights=3, num_iters=5, centered=True, eps, triangle, ...: the table in
            `layers/create_pool.py`), and arguments of the backbone (in_chans, img_size, drop_path_rate, ...).

    Raises:
        ValueError: an unknown backbone or one that cannot have this head, an unknown global_pool, an option out of range.
        TypeError: an argument that neither the backbone nor the pooling has.
        RuntimeError: no weights for the backbone.

    >>> model = build_gcp('resnet18', num_classes=10, out_index=-2, first_order=True, global_pool='isqrt', drop_rate=0.5)
    >>> tap, last = model.forward_features(torch.rand(2, 3, 64, 64))
    >>> tap.shape, last.shape, model.head_hidden_size == 512 + 256 * 257 // 2
    (torch.Size([2, 256, 4, 4]), torch.Size([2, 512, 2, 2]), True)
    """
    if output_stride not in (None, 8, 16, 32):
        raise ValueError(f'output_stride must be 8, 16 or 32; got {output_stride!r}.')
    options, dd = pop_pool_options(kwargs), {'device': device, 'dtype': dtype}
    given = {'output_stride': output_stride, **dd}
    net: Any = create_backbone(backbone, backbone_weights, **kwargs, **{k: v for k, v in given.items() if v is not None})
    family, form, last = family_of(backbone), form_of(backbone, net), net.num_features
    net.num_stages = len(net.feature_info)
    kind, stage = form, net.num_stages - 1
    if out_index is not None or form == 'intermediates':
        if out_index is not None and family in LAST_STAGE_ALONE:
            raise ValueError(f'out_index must be left out for {backbone}: {LAST_STAGE_ALONE[family]}.')
        stage = _stage(net, out_index)
        kind = 'two stages' if first_order and out_index is not None else 'stage'
        norm = takes_norm(family)
        if kind == 'stage' and out_index is not None:
            net.prune_intermediate_layers([stage], prune_norm=not norm, prune_head=False)
        net.stage, net.stage_norm = stage, norm
        net.num_features = net.feature_info[stage]['num_chs']
    remove_head(net, family)
    base: Any = type(net)
    net.__class__ = class_of(kind, base)
    net.family, net.form, net.last_features = family, form, last if kind != 'stage' else net.num_features
    net.prefix_tokens, net.reduction = getattr(net, 'num_prefix_tokens', 0), net.feature_info[-1]['reduction']
    net.padding = 0 if family in WHOLE_PATCHES else net.reduction - 1
    net.backbone, net.first_order, net.drop_rate = backbone, bool(first_order), drop_rate
    net.output_fmt = 'NCHW'
    net.out_index, net.output_stride = None if out_index is None else stage, output_stride
    if reduce_dim is None:
        reduce_dim = REDUCE_DIM if net.num_features > REDUCE_DIM else 0
    net._set_head(num_classes, global_pool, options, reduce_dim, bn_momentum, bn_eps, head_init, head_norm, **dd)
    return net


def _stage(net: Any, out_index: int | None) -> int:
    """The index of a stage, counted from the first."""
    number = net.num_stages
    index = -1 if out_index is None else out_index
    if type(index) is not int or not -number <= index < number:
        most = f'{-number} to {number - 1}'
        raise ValueError(f'out_index must be an integer from {most} for {type(net).__name__}; got {index!r}.')
    return index % number
