"""The function that weights are of, as a record says it: plain values of a fixed table of names. Nothing is built or opened."""

from collections.abc import Mapping
from typing import Any

from timm.models import split_model_name_tag

from timm_3g.layers.create_pool import POOLS, TIMM_POOLS, checked_option, pool_options
from timm_3g.layers.head_norm import checked_head_norm

# Beyond these no network was trained; building or running one would take all memory, or never end.
MOST: dict[str, int] = {'reduce_dim': 4096, 'num_iters': 1000, 'num_reweights': 64, 'sketch_dim': 1 << 20, 'num_factors': 4096}
MOST_CLASSES = 1_000_000

# Options that the logits of a loaded network do not depend on, or that say where weights come from.
NO_TRACE = (
    'in_chans',
    'num_classes',
    'weight_init',
    'zero_init_last',
    'scriptable',
    'exportable',
    'no_jit',
    'cache_dir',
    'checkpoint_path',
)

# Options of networks on any backbone, each with an example of its type.
BACKBONE_OPTIONS: dict[str, Any] = {'backbone': '', 'out_index': 0, 'first_order': False, 'output_stride': 32, 'img_size': 224}
# What they are where a training run does not state them.
UNSTATED: dict[str, Any] = {'out_index': None, 'first_order': False, 'output_stride': None}

# What settles the function of each architecture of this package by default. `models.register_second_order` fills it.
DEFAULTS: dict[str, dict[str, Any]] = {}


def recorded_options() -> set[str]:
    """The names that are taken from a record. Anything else in it, such as what timm would fetch or open, is not passed on.

    >>> {'global_pool', 'num_iters'} <= recorded_options(), 'url' in recorded_options()
    (True, False)
    """
    return pool_options() | {'global_pool', 'reduce_dim', 'bn_eps', 'head_init', 'head_norm', *BACKBONE_OPTIONS}


def leaves_trace(name: str) -> bool:
    """Whether the logits of a loaded network depend on an option.

    >>> leaves_trace('act_layer'), leaves_trace('drop_path_rate'), leaves_trace('pretrained_cfg_overlay')
    (True, False, False)
    """
    return name not in NO_TRACE and 'drop' not in name and not name.startswith('pretrained')


def is_ours(name: str) -> bool:
    """Whether the architecture of `<arch>` or `<arch>.<tag>` has the head of this package.

    >>> import timm_3g
    >>> is_ours('resnet50_3g.orig_in1k'), is_ours('resnet50')
    (True, False)
    """
    return split_model_name_tag(name)[0] in DEFAULTS


def defaults_of(arch: str, global_pool: str | None = None) -> dict[str, Any]:
    """What settles the function of an architecture of this package by default; {} for any other.

    Args:
        arch: its name in timm's registry.
        global_pool: with another pooling than its own, which takes none of the options of that.

    >>> import timm_3g
    >>> defaults_of('resnet50_isqrt')
    {'global_pool': 'isqrt', 'reduce_dim': 256, 'bn_eps': 1e-05}
    >>> 'num_factors' in defaults_of('resnet50_fbn'), 'num_factors' in defaults_of('resnet50_fbn', 'isqrt')
    (True, False)
    """
    defaults = DEFAULTS.get(arch, {})
    dropped = set() if global_pool in (None, defaults.get('global_pool')) else pool_options()
    return {name: value for name, value in defaults.items() if name not in dropped}


def checked_options(given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The values of `recorded_options` in `given`, None left out; other names are ignored.

    Raises:
        ValueError: a value of another type, or beyond what any network has.
    """
    options = {name: given[name] for name in sorted(recorded_options() & given.keys()) if given[name] is not None}
    pool = options.get('global_pool', '')
    if not isinstance(pool, str) or pool not in ('', *POOLS, *TIMM_POOLS):
        raise ValueError(f'{source} names global_pool={pool!r:.80}, which is none of timm_3g.list_pools().')
    examples = {'reduce_dim': 256, 'bn_eps': 1e-5, 'head_init': 'open', 'head_norm': False, **BACKBONE_OPTIONS} | {
        k: v for entry in POOLS.values() for k, v in entry.options.items()
    }
    try:
        options |= {name: _checked(name, value, examples[name]) for name, value in options.items() if name in examples}
    except TypeError as error:
        raise ValueError(f'{source} has an option of another type: {error}') from error
    for name, most in MOST.items():
        if not 0 <= options.get(name, 0) <= most:
            raise ValueError(f'{source} has {name}={options[name]}; it must be between 0 and {most}.')
    return options


def _checked(name: str, value: Any, example: Any) -> Any:
    """See `checked_option`. An image size may be a height and a width; head_norm has a check of its own."""
    if name == 'img_size' and isinstance(value, (list, tuple)) and len(value) == 2:
        return [checked_option(name, side, example) for side in value]
    if name == 'head_norm':
        return checked_head_norm(value)
    return checked_option(name, value, example)


def function_of(arch: str, given: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What settles the function of a model built with the options `given`: those, and the defaults for the others.

    Raises:
        ValueError: see `checked_options`; or an option that the pooling does not have.
    """
    checked = checked_options(given, source)
    defaults = defaults_of(arch, checked.get('global_pool'))
    stated = {**(UNSTATED if 'backbone' in defaults else {}), **defaults, **checked}
    pool = stated.get('global_pool')
    known = POOLS[pool].options if pool in POOLS else {}
    foreign = sorted(pool_options() & stated.keys() - known.keys())
    if foreign and pool is not None:
        takes = ', '.join(known) or 'none'
        raise ValueError(f'{source} has {", ".join(foreign)} for global_pool={pool!r}, whose options are: {takes}.')
    return {**known, **stated}


def differing_options(recorded: Mapping[str, Any], built: Mapping[str, Any]) -> list[str]:
    """The options that weights and a model both state, and state differently, as texts.

    Backbones are compared without their tags, which say how images are prepared and where weights came from.

    >>> differing_options({'num_iters': 5, 'backbone': 'resnet18.a1_in1k'}, {'num_iters': 3, 'backbone': 'resnet18'})
    ['num_iters: weights 5, model 3']
    """
    ours, theirs = ({**options, 'backbone': options.get('backbone', '').split('.')[0]} for options in (built, recorded))
    return [f'{k}: weights {theirs[k]!r}, model {ours[k]!r}' for k in built if k in recorded and theirs[k] != ours[k]]
