"""The entry point `gcp`, which takes any backbone, and named members: a line of NAMED each."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import EfficientNet, PretrainedCfg, generate_default_cfgs, resolve_pretrained_cfg

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn
from timm_3g.checkpoints import is_ours, open_weights, our_names
from timm_3g.checkpoints.function import defaults_of
from timm_3g.checkpoints.source import FROM_CONFIG
from timm_3g.layers.create_pool import TIMM_POOLS

from ._build import build_with_filter
from ._register import register_second_order
from .backbones import PLAIN_HEADS, backbone_cfg, check_backbone, family_of
from .gcp import GCP, Features, build_gcp, class_of

_logger = logging.getLogger(__name__)

# The default of `gcp`, so that whatever walks timm.list_models() can build it.
BACKBONE = 'resnet18.a1_in1k'

# Members for which `<name>_3g` and `<name>_isqrt` are registered: their backbone, and options that differ from the defaults.
# timm takes a name that begins with `vit_` for a network whose pooled vector has `num_features` numbers: hence `gcp_vit_`.
NAMED: dict[str, dict[str, Any]] = {
    'convnext_atto': {'backbone': 'convnext_atto.d2_in1k'},
    'convnext_tiny': {'backbone': 'convnext_tiny.in12k_ft_in1k'},
    'mobilenetv3_large_100': {'backbone': 'mobilenetv3_large_100.ra_in1k'},
    'swin_tiny_patch4_window7_224': {'backbone': 'swin_tiny_patch4_window7_224.ms_in1k'},
    'tf_efficientnet_lite0': {'backbone': 'tf_efficientnet_lite0.in1k', 'reduce_dim': 256, 'bn_eps': 1e-3},
    'gcp_vit_small_patch16_224': {'backbone': 'vit_small_patch16_224.augreg_in21k_ft_in1k'},
}
POOLS = ('3g', 'isqrt')

# What `tf_efficientnet_lite0_3g` is an instance of, under the name that it had in 0.1.0.
EfficientNet3G = class_of('NCHW', EfficientNet)

# What names the weights of a backbone elsewhere, in an overlay of its pretrained_cfg.
_ELSEWHERE = ('url', 'hf_hub_id', 'hf_hub_filename', 'custom_load')


def _create_gcp(arch: str, pretrained: bool = False, **kwargs: Any) -> GCP:
    """Build, with the weights of the whole network where a config.json or a file has them, else with the backbone's own."""
    if 'backbone_weights' in kwargs:
        raise TypeError('backbone_weights is no option of a model. Name a file: pretrained_cfg_overlay=dict(file=...).')
    if 'feature_cls' not in kwargs:
        kwargs = {'feature_cfg': {'feature_cls': Features, 'out_indices': None}, **kwargs}
    elif 'out_indices' not in kwargs:  # timm's own classes need them. By default it gives five
        kwargs['out_indices'] = tuple(range(len(_on_meta(kwargs['backbone']).feature_info)))
    given: Any = kwargs.get('pretrained_cfg')
    if isinstance(given, PretrainedCfg):
        given = kwargs['pretrained_cfg'] = given.to_dict()
    if (isinstance(given, Mapping) and given.get('source') in FROM_CONFIG) or _has_weights(arch, given, kwargs['backbone']):
        return build_with_filter(build_gcp, arch, pretrained, **kwargs)
    overlay = {**_changed(arch, given), **(kwargs.get('pretrained_cfg_overlay') or {})}
    kwargs |= {'pretrained_cfg': backbone_cfg(arch, kwargs['backbone']), 'pretrained_cfg_overlay': overlay}
    weights = _of_backbone(arch, overlay, kwargs) if pretrained else None
    if weights is None:
        return build_with_filter(build_gcp, arch, pretrained, **kwargs)
    kwargs['pretrained_cfg_overlay'] = {k: v for k, v in overlay.items() if k not in ('file', 'state_dict', *_ELSEWHERE)}
    model = build_with_filter(build_gcp, arch, False, backbone_weights=weights, **kwargs)
    if not kwargs.get('features_only'):
        _logger.warning(f'{arch}: the weights of {kwargs["backbone"]} are loaded under a random head. Train it before use.')
    return model


def _has_weights(arch: str, given: Any, backbone: str) -> bool:
    """Whether the tag of a member stands for weights of the whole network."""
    cfg: Any = resolve_pretrained_cfg(arch, given if isinstance(given, str) else None)
    return backbone == defaults_of(arch)['backbone'] and bool(cfg.has_weights or cfg.state_dict)


def _changed(arch: str, given: Any) -> dict[str, Any]:
    """What a pretrained_cfg has otherwise than the registry: timm's scripts merge an overlay into it."""
    if not isinstance(given, Mapping):
        return {}
    registered = resolve_pretrained_cfg(arch).to_dict()
    return {key: value for key, value in given.items() if value != registered.get(key)}


def _of_backbone(arch: str, overlay: Mapping[str, Any], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """An overlay for the pretrained_cfg of the backbone, with its weights. None where the weights are of the whole network.

    Raises:
        FileNotFoundError, ValueError: see `open_weights`.
    """
    cache = {'cache_dir': kwargs['cache_dir']} if kwargs.get('cache_dir') else {}
    file, tensors = overlay.get('file'), overlay.get('state_dict')
    if file and not tensors and Path(file).suffix in ('.npz', '.npy'):  # of JAX: the backbone's own loader reads them
        return {**cache, 'file': file, 'custom_load': True}
    if file and not tensors:
        weights = open_weights(file)
        if is_ours(weights.record.key):
            return None
        tensors = weights.tensors
    if not tensors:
        return {**cache, **{key: overlay[key] for key in _ELSEWHERE if overlay.get(key)}}
    tensors = our_names(tensors)
    cfg: Any = timm.get_pretrained_cfg(kwargs['backbone'])
    names = [cfg.classifier] if isinstance(cfg.classifier, str) else list(cfg.classifier or ())
    matrix = tensors.get(f'{GCP.classifier_name}.weight')
    ours = matrix is not None and (
        GCP.classifier_name not in names or matrix.shape[1] != _on_meta(kwargs['backbone']).head_hidden_size
    )
    if ours or any(name.startswith(('global_pool.', 'head_norm.')) for name in tensors) or _is_timms_own(kwargs):
        return None
    rows = next((len(tensors[f'{name}.weight']) for name in names if f'{name}.weight' in tensors), 0)
    return {'state_dict': tensors, 'num_classes': rows}


def _on_meta(backbone: str) -> Any:
    """timm's own network, without storage."""
    check_backbone(backbone)
    with torch.device('meta'):
        return timm.create_model(backbone)


def _is_timms_own(kwargs: Mapping[str, Any]) -> bool:
    """Whether the network is timm's own, classifier and all: with a pooling of timm's, and without parts of a head."""
    plain = kwargs.get('global_pool') in TIMM_POOLS and not kwargs.get('head_norm')
    return plain and family_of(kwargs['backbone']) in PLAIN_HEADS


def _register(arch: str, global_pool: str, options: Mapping[str, Any]) -> None:
    """An entry point of timm's for one architecture."""

    def entry(pretrained: bool = False, **kwargs: Any) -> GCP:
        return _create_gcp(arch, pretrained, **kwargs)

    entry.__name__ = entry.__qualname__ = arch
    entry.__doc__ = f'{global_pool} on {options["backbone"]}, by default.'
    register_second_order(global_pool, **{'reduce_dim': None, 'bn_eps': None, **options})(entry)


_MEMBERS = {f'{name}_{pool}': (pool, options) for name, options in NAMED.items() for pool in POOLS}
_MEMBERS['gcp'] = ('3g', {'backbone': BACKBONE})
_MEMBERS['resnet50_fbn'] = ('fbn', {'backbone': 'resnet50.a1_in1k', 'reduce_dim': 0, 'num_factors': 50})
default_cfgs = generate_default_cfgs(
    {f'{arch}.untrained': backbone_cfg(arch, options['backbone']) for arch, (_, options) in _MEMBERS.items()}
)
for _arch, (_pool, _options) in _MEMBERS.items():
    _register(_arch, _pool, _options)
