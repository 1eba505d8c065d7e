"""timm's build_model_with_cfg for the classes with our head: weights are looked for and checked before anything is built."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

from timm.models import build_model_with_cfg, resolve_pretrained_cfg
from torch import Tensor, nn

from timm_3g.layers import pool_options

from ._checkpoint import checkpoint_filter_fn
from ._description import check_description
from ._function import checked_options, defaults_of, recorded_options
from ._known_files import known_file, options_of_tag
from ._source import FROM_CONFIG, find_weights

Model = TypeVar('Model', bound=nn.Module)


def build_with_filter(cls: type[Model], variant: str, pretrained: bool, **kwargs: Any) -> Model:
    """timm's build_model_with_cfg for a class with our head: weights are looked for first, and go through the filter below.

    Raises:
        RuntimeError, FileNotFoundError, ValueError: no weights, or not these (see `find_weights`, `checkpoint_filter_fn`).
    """
    _drop_foreign_pool_args(kwargs)
    checked_options(kwargs.get('pretrained_model_args') or {}, 'model_args of config.json')
    given = kwargs.get('pretrained_cfg')
    if isinstance(given, Mapping) and given.get('source') in FROM_CONFIG:
        check_description(given, str(given.get('file') or given.get('hf_hub_id')), names=False)
    found = find_weights(variant, kwargs) if pretrained else None
    for name, value in _settled(variant, kwargs, found[0] if found else None).items():
        kwargs.setdefault(name, value)
    filter_fn: Any = partial(checkpoint_filter_fn, features_only=kwargs.get('features_only', False))
    if found:
        file, weights, recorded = found
        checked = partial(filter_fn, recorded=recorded)

        def filter_fn(_: Any, model: nn.Module) -> dict[str, Tensor]:
            return checked(weights, model)

        # timm is given the tensors by the filter: it would read the file a second time, when it may be another one.
        instead = {'file': None, 'source': None, 'state_dict': {'file': str(file)}}
        kwargs['pretrained_cfg_overlay'] = {**(kwargs.get('pretrained_cfg_overlay') or {}), **instead}
    try:
        model = build_model_with_cfg(cls, variant, pretrained, pretrained_filter_fn=filter_fn, **kwargs)
        if found:
            cfg: Any = model.pretrained_cfg
            cfg |= {'file': str(file), 'state_dict': None}
        return model
    except TypeError as error:
        foreign = [key for key in kwargs.get('pretrained_model_args') or {} if f"'{key}'" in str(error)]
        if not foreign:
            near = [n for key in kwargs if f"'{key}'" in str(error) for n in get_close_matches(key, _arguments_of(cls), n=1)]
            if not near:
                raise
            raise TypeError(f'{error}. Did you mean {near[0]}?') from error
        raise ValueError(
            f'model_args of config.json has {foreign[0]!r}, which {variant} does not take: {error}. Remove it from config.json.'
        ) from error


def _arguments_of(cls: type[nn.Module]) -> list[str]:
    """What the class and timm's below it take, and the options of the poolings."""
    return sorted(
        recorded_options().union(*(signature(base).parameters for base in cls.__mro__ if base.__module__ != 'builtins'))
    )


def _settled(variant: str, kwargs: Mapping[str, Any], file: Path | None) -> dict[str, Any]:
    """Options that the tag or the file stands for, where the caller asks for the pooling that they are of."""
    tag = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg')).tag
    known = known_file(file) if file else None
    options = known.options if known else options_of_tag(f'{variant}.{tag}')
    return options if kwargs.get('global_pool', '') == defaults_of(variant).get('global_pool') else {}


def _drop_foreign_pool_args(kwargs: dict[str, Any]) -> None:
    """Where the caller names another pooling than config.json, drop the options that config.json recorded for its own."""
    recorded = kwargs.get('pretrained_model_args') or {}
    if 'global_pool' in recorded and kwargs.get('global_pool', recorded['global_pool']) != recorded['global_pool']:
        for name in pool_options() & recorded.keys():
            if kwargs.get(name) == recorded[name]:
                kwargs.pop(name)
