"""timm's build_model_with_cfg for the classes with our head: weights are found and opened before anything is built."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from inspect import signature
from typing import Any, TypeVar

from timm.models import build_model_with_cfg, resolve_pretrained_cfg
from torch import Tensor, nn

from timm_3g.checkpoints import Weights, checkpoint_filter_fn
from timm_3g.checkpoints.description import check_description
from timm_3g.checkpoints.function import BACKBONE_OPTIONS, checked_options, defaults_of, recorded_options
from timm_3g.checkpoints.known_files import options_of_tag
from timm_3g.checkpoints.source import FROM_CONFIG, find_weights
from timm_3g.layers import pool_options

Model = TypeVar('Model', bound=nn.Module)


def build_with_filter(cls: Callable[..., Model], arch: str, pretrained: bool, **kwargs: Any) -> Model:
    """timm's build_model_with_cfg for what builds a model with our head: weights are opened first, and go through our filter.

    Raises:
        RuntimeError, FileNotFoundError, ValueError: no weights, or not these (see `find_weights`, `open_weights`,
            `checkpoint_filter_fn`).
    """
    _drop_foreign_pool_args(kwargs)
    checked_options(kwargs.get('pretrained_model_args') or {}, 'model_args of config.json')
    given = kwargs.get('pretrained_cfg')
    if isinstance(given, Mapping) and given.get('source') in FROM_CONFIG:
        check_description(given, str(given.get('file') or given.get('hf_hub_id')), names=False)
    weights = find_weights(arch, kwargs) if pretrained else None
    for name, value in _settled(arch, kwargs, weights).items():
        kwargs.setdefault(name, value)
    filter_fn: Any = partial(checkpoint_filter_fn, features_only=kwargs.get('features_only', False))
    if weights is None:
        return _build(cls, arch, pretrained, filter_fn, kwargs)
    try:
        return _build_from(weights, cls, arch, filter_fn, kwargs)
    except Exception:
        weights.verify()  # a damaged file is the reason for whatever else went wrong
        raise


def _build_from(weights: Weights, cls: Callable[..., Model], arch: str, filter_fn: Any, kwargs: dict[str, Any]) -> Model:
    """Build the model while the weights are being read, and hand them to timm as values: it would read the file again."""
    recorded = weights.record.function(arch)
    weights.record.require_stated(arch, kwargs)

    def filtered(_: Any, model: nn.Module) -> dict[str, Tensor]:
        return filter_fn(weights.tensors, model, recorded=recorded)

    instead = {'file': None, 'source': None, 'state_dict': {'file': str(weights.file)}}
    overlay = {**(kwargs.pop('pretrained_cfg_overlay', None) or {}), **instead}
    model = _build(cls, arch, True, filtered, {**kwargs, 'pretrained_cfg_overlay': overlay})
    cfg: Any = model.pretrained_cfg
    cfg |= {'file': str(weights.file), 'state_dict': None}
    return model


def _build(cls: Callable[..., Model], arch: str, pretrained: bool, filter_fn: Any, kwargs: dict[str, Any]) -> Model:
    """timm's build_model_with_cfg, with a remedy where the model does not take an argument."""
    try:
        return build_model_with_cfg(cls, arch, pretrained, pretrained_filter_fn=filter_fn, **kwargs)
    except TypeError as error:
        foreign = [key for key in kwargs.get('pretrained_model_args') or {} if f"'{key}'" in str(error)]
        if foreign:
            raise ValueError(
                f'model_args of config.json has {foreign[0]!r}, which {arch} does not take: {error}. Remove it from '
                f'config.json.'
            ) from error
        elsewhere = [key for key in kwargs if key in BACKBONE_OPTIONS and f"'{key}'" in str(error)]
        if elsewhere and arch != 'gcp':
            raise TypeError(f"{error}. Networks on any backbone have it: create_model('gcp', backbone=..., ...).") from error
        near = [
            n for key in kwargs if f"'{key}'" in str(error) for n in get_close_matches(key, _arguments_of(cls), n=1) if n != key
        ]
        if not near:
            raise
        raise TypeError(f'{error}. Did you mean {near[0]}?') from error


def _arguments_of(cls: Callable[..., nn.Module]) -> list[str]:
    """What the class and timm's below it take, or the function; and the options of the poolings."""
    bases = [base for base in cls.__mro__ if base.__module__ != 'builtins'] if isinstance(cls, type) else [cls]
    return sorted(recorded_options().union(*(signature(base).parameters for base in bases)))


def _settled(arch: str, kwargs: Mapping[str, Any], weights: Weights | None) -> dict[str, Any]:
    """Options that the tag or the file stands for, where the caller asks for the pooling that they are of."""
    tag = resolve_pretrained_cfg(arch, kwargs.get('pretrained_cfg')).tag
    known = weights.record.known_file if weights else None
    options = known.options if known else options_of_tag(f'{arch}.{tag}')
    return options if kwargs.get('global_pool', '') == defaults_of(arch).get('global_pool') else {}


def _drop_foreign_pool_args(kwargs: dict[str, Any]) -> None:
    """Where the caller names another pooling than config.json, drop the options that config.json recorded for its own."""
    recorded = kwargs.get('pretrained_model_args') or {}
    if 'global_pool' in recorded and kwargs.get('global_pool', recorded['global_pool']) != recorded['global_pool']:
        no_norm = {'head_norm'} if kwargs['global_pool'] == 'fbn' else set()  # which takes none
        for name in (pool_options() | no_norm) & recorded.keys():
            if kwargs.get(name) == recorded[name]:
                kwargs.pop(name)
