"""timm's networks as backbones: the form in which their features come, what of their old head goes, and which do not fit.

Surveyed on timm 1.0.31, one network of each module family. `timm-3g backbones` repeats the survey.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import timm
from timm.layers import Conv2dSame
from timm.models import model_entrypoint, split_model_name_tag
from torch import nn

from timm_3g.checkpoints import NETWORK_ERRORS, explain, is_ours

from ._conv2d_same import TraceableConv2dSame

# Families (timm's name for the module) whose `forward_features` gives tokens (B, L, C).
TOKENS = frozenset(
    {'beit', 'convit', 'deit', 'efficientformer', 'eva', 'gemma4_vit', 'hiera', 'levit', 'mlp_mixer', 'mvitv2', 'naflexvit'}
    | {'tnt', 'twins', 'vision_transformer', 'vision_transformer_hybrid', 'vision_transformer_relpos', 'vitamin'}
)

# Families whose `forward_features` gives several tensors or a class token alone, or ends in layers for the class token alone.
# `forward_intermediates` gives their maps.
INTERMEDIATES = frozenset({'cait', 'efficientvim', 'pit', 'volo', 'xcit'})

# Families of TOKENS whose map has floor(H / reduction) rows. In the others a part of a patch makes a row, too.
WHOLE_PATCHES = frozenset({'twins'})

# Families whose `forward_intermediates` cannot apply the last normalization.
WITHOUT_NORM = frozenset({'hiera', 'hieradet_sam2'})

# Families of which no earlier stage can be taken, with the reason.
LAST_STAGE_ALONE = {
    'efficientvim': 'timm cannot cut its later stages off',
    'hrnet': 'its stages exchange maps, so that parts of every stage serve the next one alone',
}

# Families that cannot be a backbone, with the reason.
REFUSED = {
    'coat': 'the maps of its parallel stages serve one class token each, and none of them depends on the whole network',
    'crossvit': 'its two branches have maps of different sizes, and neither depends on the whole network',
}

# What networks of timm call the parts that come after `forward_features`. Each of these names is theirs alone, but for USED.
HEAD_PARTS = {
    *('head', 'heads', 'head_dist', 'head_drop', 'aux_head', 'fc', 'classifier', 'classif', 'last_linear'),
    *('attn_pool', 'fc_norm', 'conv_head', 'in_conv', 'pre_classifier', 'pre_logits'),
}
# Families that need one of them for the map.
USED = {'efficientnet': {'conv_head'}, 'selecsls': {'head'}}
# Families with more parts that the map does not depend on: they serve the class token, or other maps.
MORE_PARTS = {
    'cait': ['cls_token', 'blocks_token_only'],
    'efficientvim': ['weights', 'norm.0', 'norm.1', 'norm.3'],
    'pit': ['norm'],
    'volo': ['cls_token', 'post_network'],
    'xcit': ['cls_token', 'cls_attn_blocks'],
}

# Families of which timm changes the head when it prunes the stages.
PRUNED_WITH_HEAD = frozenset({'byoanet', 'byobnet', 'csatv2', 'mobilevit', 'vgg'})

# Families whose head is a pooling and a Linear called `classifier` alone: with a pooling of timm's they are timm's own.
PLAIN_HEADS = frozenset({'densenet', 'efficientnet', 'hrnet'})

# Fields of a pretrained_cfg that are of the backbone's own weights.
_OF_WEIGHTS: tuple[str, ...] = (
    'url',
    'file',
    'state_dict',
    'hf_hub_id',
    'hf_hub_filename',
    'source',
    'custom_load',
    'tag',
    'label_offset',
)
_OF_WEIGHTS += ('label_names', 'label_descriptions', 'origin_url')
# Arguments of timm.create_model that are no options of a network.
NOT_OPTIONS = {'checkpoint_path', 'pretrained', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir', 'model_name'}
NOT_OPTIONS |= {'pretrained_filter_fn', 'pretrained_strict', 'pretrained_model_args'}
_REMEDY = 'Name a file of its weights: pretrained_cfg_overlay=dict(file=...). Or start from random ones: pretrained=False.'


def list_backbones(filter: str | Sequence[str] = '') -> list[str]:
    """The networks of timm that `create_model('gcp', backbone=...)` takes.

    Args:
        filter: a pattern with wildcards, or several, as for `timm.list_models`. '' for all.

    Returns:
        Names without tags, in timm's order. Every tag of timm's for such a name is taken, too.

    >>> list_backbones('convnext_a*')
    ['convnext_atto', 'convnext_atto_ols', 'convnext_atto_rms']
    """
    names = [name for name in timm.list_models() if not is_ours(name) and family_of(name) not in REFUSED]
    patterns = [filter] if isinstance(filter, str) else filter
    return [name for name in names if any(fnmatch(name, pattern or '*') for pattern in patterns)]


def check_backbone(name: str) -> None:
    """Raise ValueError unless `name`, with or without a tag, is a network of timm that can have the head of this package.

    >>> check_backbone('convnext_ato')
    Traceback (most recent call last):
    ValueError: backbone='convnext_ato' is no network of timm. Nearest: convnext_atto, convnextv2_atto, convnext_nano.
    """
    arch, tag = split_model_name_tag(str(name))
    if ':' in str(name):
        raise ValueError(
            f'backbone must be the name of a network in timm; got {name!r}. For its weights from elsewhere add '
            f'pretrained_cfg_overlay=dict(file=...).'
        )
    if not timm.is_model(arch):
        nearest = difflib.get_close_matches(arch, timm.list_models(), n=3) or ['timm_3g.list_backbones() has them all']
        raise ValueError(f'backbone={name!r} is no network of timm. Nearest: {", ".join(nearest)}.')
    if is_ours(arch):
        raise ValueError(f'backbone={name!r} has a head of this package already. Name a network of timm.')
    if family_of(arch) in REFUSED:
        raise ValueError(f'backbone={name!r} cannot have a second-order head: {REFUSED[family_of(arch)]}.')
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = [split_model_name_tag(key)[1] for key in timm.list_models(f'{arch}.*', include_tags=True)]
        raise ValueError(
            f'backbone={name!r}: {arch} has no tag {tag!r}. Its tags: {", ".join(filter(None, tags)) or "none"}.'
        ) from error


def family_of(name: str) -> str:
    """The module of timm that defines an architecture.

    >>> family_of('convnext_atto.d2_in1k')
    'convnext'
    """
    return model_entrypoint(split_model_name_tag(name)[0]).__module__.rsplit('.', 1)[-1]


def form_of(name: str, net: Any) -> str:
    """How the features of a network come: 'NCHW', 'NHWC', 'NLC', or 'intermediates' if that method alone has them."""
    family = family_of(name)
    if family in INTERMEDIATES:
        return 'intermediates'
    return 'NLC' if family in TOKENS else str(getattr(net, 'output_fmt', 'NCHW'))


def create_backbone(name: str, weights: Mapping[str, Any] | None, **kwargs: Any) -> nn.Module:
    """A network of timm with its own head, as timm builds it.

    Args:
        weights: None for random ones, else a pretrained_cfg_overlay of timm, {} for the tag's own. They must fit exactly: timm
            would leave random what a file lacks, if another number of classes were asked for.
        kwargs: its arguments.

    Raises:
        ValueError: an unknown backbone, or weights that do not fit.
        TypeError: an argument that the network does not have.
        RuntimeError: the weights cannot be fetched.
    """
    check_backbone(name)
    foreign = sorted(NOT_OPTIONS & kwargs.keys())
    if foreign:  # a config.json may have any: it must not name files, and nobody else needs them
        raise TypeError(f'{", ".join(foreign)} cannot be given for a backbone. Options are those of the network {name}.')
    overlay = dict(weights or {})
    cache_dir = overlay.pop('cache_dir', None)
    try:
        return timm.create_model(
            name, pretrained=weights is not None, pretrained_cfg_overlay=overlay or None, cache_dir=cache_dir, **kwargs
        )
    except NETWORK_ERRORS as error:
        raise RuntimeError(f'The weights of the backbone {name} cannot be fetched: {explain(error)}. {_REMEDY}') from error
    except Exception as error:  # whatever a damaged or foreign file makes timm raise
        if weights is None or isinstance(error, TypeError):
            raise
        said = ' '.join(str(error).split())
        raise ValueError(f'These are no weights for the backbone {name}: {said:.400}. {_REMEDY}') from error


def remove_head(net: nn.Module, family: str) -> None:
    """Delete what the map does not depend on, and make convolutions with TensorFlow's padding traceable."""
    for part in {*HEAD_PARTS, *MORE_PARTS.get(family, [])} - USED.get(family, set()):
        path, _, name = part.rpartition('.')
        parent: Any = net.get_submodule(path)
        if path:  # of a list: the others keep their index
            parent[int(name)] = nn.Identity()
        elif isinstance(getattr(net, name, None), (nn.Module, nn.Parameter)):
            delattr(net, name)
    for module in net.modules():
        if type(module) is Conv2dSame:
            module.__class__ = TraceableConv2dSame


def takes_norm(family: str) -> bool:
    """Whether `forward_intermediates(norm=True)` is there: the last normalization, applied to every map."""
    return family not in WITHOUT_NORM


def backbone_cfg(arch: str, backbone: str) -> dict[str, Any]:
    """timm's pretrained_cfg of a backbone for the architecture `arch` with our head: how its images are prepared, no weights.

    >>> cfg = backbone_cfg('gcp', 'vit_small_patch16_224')
    >>> cfg['architecture'], cfg['mean'], cfg['first_conv'], cfg['fixed_input_size']
    ('gcp', (0.5, 0.5, 0.5), 'patch_embed.proj', True)
    """
    check_backbone(backbone)
    cfg: Any = timm.get_pretrained_cfg(backbone)
    fields = {key: value for key, value in cfg.to_dict().items() if key not in _OF_WEIGHTS}
    patch = re.search(r'_patch(\d+)_', backbone)
    if cfg.pool_size is None and patch and family_of(backbone) in TOKENS:  # timm says it of maps alone
        fields['pool_size'] = tuple(side // int(patch[1]) for side in cfg.input_size[1:])
    return {**fields, 'architecture': arch, 'num_classes': 1000, 'classifier': 'classifier'}
