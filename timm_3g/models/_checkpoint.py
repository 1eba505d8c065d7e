"""Which checkpoints load, how their names become ours, and what is refused. One place to add a checkpoint format: FORMATS.

timm reads the file, strips 'module.', and calls `checkpoint_filter_fn`. Shapes alone prove little here: the two triangles have
equal length, and eps, steps and root leave no trace in a state dict. So what a format implies, or config.json records, is
compared with the model, and a mismatch is an error.
"""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import clean_state_dict, load_state_dict, resolve_pretrained_cfg
from torch import Tensor, nn

from timm_3g.layers import POOL_OPTIONS

_logger = logging.getLogger(__name__)

_ATMP = {
    'map1': 'conv_a',
    'bn1': 'bn_a',
    'map2': 'conv_b',
    'bn2': 'bn_b',
    'map21': 'conv_c',
    'bn21': 'bn_c',
    'map3': 'conv_d',
    'bn3': 'bn_d',
    'map4': 'conv_e',
    'bn4': 'bn_e',
    'atmap1': 'squeeze.conv_f',
    'bnat1': 'squeeze.bn_f',
    'atmap2': 'squeeze.conv_g',
    'atmap3': 'conv_h',
}


@dataclass(frozen=True)
class CheckpointFormat:
    """Foreign names: a pattern that tells them, and the options that weights under these names were trained with."""

    mark: re.Pattern[str]
    options: dict[str, Any]


# The first format whose mark matches a key is taken. Both are the state dicts of the authors' own codes.
FORMATS: dict[str, CheckpointFormat] = {
    '3G-Net': CheckpointFormat(
        re.compile(r'AtMp\d+\.'),
        {'global_pool': '3g', 'triangle': 'lower', 'eps': 1e-7, 'num_iters': 5, 'centered': True, 'reweight_beta': 0.0},
    ),
    'fast-MPN-COV / GCP_Optimization': CheckpointFormat(
        re.compile(r'layer_reduce\.', re.IGNORECASE),
        {'global_pool': 'isqrt', 'triangle': 'upper', 'eps': 0.0, 'num_iters': 5, 'centered': True},
    ),
}


def _rename(key: str) -> str:
    """Our name of a foreign key; any other key as it is."""
    if key.lower().startswith('layer_reduce'):  # some GCP_Optimization variants spell Layer_Reduce
        leaf = key.rsplit('.', 1)[1]
        return f'global_pool.reduce.{"bn" if "_bn." in key.lower() else "conv"}.{leaf}'
    match = re.fullmatch(r'AtMp(\d+)\.(\w+)\.(\w+)', key)
    if match and match[2] in _ATMP:
        return f'global_pool.reweight.{int(match[1]) - 1}.{_ATMP[match[2]]}.{match[3]}'
    return key


def drop_foreign_pool_args(kwargs: dict[str, Any]) -> None:
    """Where the caller names another pooling than config.json, drop the options that config.json recorded for its own."""
    recorded = kwargs.get('pretrained_model_args') or {}
    if 'global_pool' in recorded and kwargs.get('global_pool', recorded['global_pool']) != recorded['global_pool']:
        for name in POOL_OPTIONS & recorded.keys():
            if kwargs.get(name) == recorded[name]:
                kwargs.pop(name)


def check_source(variant: str, kwargs: Mapping[str, Any]) -> None:
    """Say clearly, before a model is built, that there are no weights to load or that their file cannot be read.

    Raises:
        RuntimeError: no source at all (timm's words, and where the weights are).
        FileNotFoundError: the file is not there.
        ValueError: the file is truncated, or no state dict of tensors.
    """
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay'))
    name = f'{variant}.{cfg.tag}' if cfg.tag else variant
    if cfg.source or cfg.state_dict:
        return
    if not cfg.has_weights:
        origin = f' Its authors host them: {cfg.origin_url}.' if cfg.origin_url else ''
        raise RuntimeError(
            f'No pretrained weights exist for {name} in this package.{origin} Load a file with '
            f'pretrained_cfg_overlay=dict(file=...), or use `pretrained=False` for random init.'
        )
    if cfg.file and not Path(cfg.file).is_file():
        raise FileNotFoundError(f'No weights of {name} at {cfg.file!r}: the file of pretrained_cfg_overlay does not exist.')
    if cfg.file:
        read_weights(cfg.file)


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """The state dict in a .pth, .pth.tar or .safetensors file, 'module.' stripped, EMA weights first, as timm reads it.

    Raises:
        ValueError: truncated, not a state dict of tensors, or in need of pickled classes (they are never executed).
    """
    try:
        state_dict = load_state_dict(str(file))
    except Exception as error:  # whatever torch, pickle, zip or safetensors raise over a damaged file
        reason = (str(error).splitlines() or [''])[0]
        raise ValueError(
            f'{str(file)!r} cannot be read as weights: {type(error).__name__}: {reason} '
            f'It is truncated, or not a state dict of tensors in PyTorch or safetensors format. Fetch it again.'
        ) from error
    _require_tensors(state_dict)
    return state_dict


def _require_tensors(state_dict: Mapping[str, Any]) -> None:
    foreign = [key for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if foreign or not state_dict:
        raise ValueError(
            f'Weights must be a state dict of tensors; got {len(state_dict)} entries, of which no tensors: '
            f'{_some(foreign) or "none"}. Pass the state dict itself, or a file that holds it under state_dict or model.'
        )


def _some(names: Iterable[str], most: int = 4) -> str:
    names = sorted(names)
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')


def _recorded_options(model: nn.Module) -> dict[str, Any]:
    """model_args of the config.json that came with the weights: timm's own record, else the one beside the file."""
    recorded = dict(getattr(model, 'pretrained_model_args', {}))
    file = getattr(model, 'pretrained_cfg', {}).get('file')
    if not recorded and file and Path(file).with_name('config.json').is_file():
        recorded = json.loads(Path(file).with_name('config.json').read_text()).get('model_args', {})
    return recorded


def _options_of(state_dict: Mapping[str, Tensor], model: nn.Module) -> tuple[str, dict[str, Any]]:
    """Where the options of these weights are known from, and the options."""
    for name, form in FORMATS.items():
        if any(form.mark.match(key) for key in state_dict):
            options = dict(form.options)
            if name == '3G-Net':
                options['num_reweights'] = len({key.split('.')[0] for key in state_dict if form.mark.match(key)})
            return f'the format ({name})', options
    return 'config.json', _recorded_options(model)


def _check_options(model: nn.Module, source: str, recorded: Mapping[str, Any]) -> None:
    """Refuse weights whose order, eps, steps, ... are known and differ from those of the model."""
    pool: Any = model.global_pool
    built = {'reduce_dim': model.reduce_dim, **pool.options}
    differing = [
        f'{k}: weights {recorded[k]!r}, model {built[k]!r}' for k in built if k in recorded and recorded[k] != built[k]
    ]
    if differing:
        raise ValueError(
            f'These weights were made for another function, as {source} says ({"; ".join(differing)}). They would load and '
            f'give wrong logits. Build the model with the options of the weights.'
        )


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module, features_only: bool = False) -> dict[str, Tensor]:
    """Weights in the names of this package, checked against the model. timm calls it between reading and loading.

    Takes our own state dicts, the authors' (FORMATS), and plain ResNets of timm or torchvision. A complete set is demanded
    unless timm was asked to adapt: another num_classes than the weights' declared one (train.py's --pretrained-path
    declares -1), or features_only. Then the backbone must be complete, a head for the same pooling is taken without
    its classifier, any other is left out, and a warning says what stays random.

    Args:
        state_dict: names to tensors, or a checkpoint that holds them under 'state_dict'.
        model: a built ResNet3G with timm's pretrained_cfg.
        features_only: the head will be thrown away.

    Returns:
        Names of this package to tensors, unchanged in value.

    Raises:
        ValueError: not tensors; another number of classes than declared; weights of another network, pooling, order, eps or
            number of steps. Nothing else: timm answers a TypeError by calling again.
    """
    if isinstance(state_dict.get('state_dict'), Mapping):
        state_dict = state_dict['state_dict']
    _require_tensors(state_dict)
    state_dict = clean_state_dict(state_dict)
    source, recorded = _options_of(state_dict, model)
    weights = {_rename(key): value for key, value in state_dict.items()}

    cfg: Any = model.pretrained_cfg
    declared = cfg.get('num_classes', -1)
    adapting = features_only or model.num_classes != declared
    if 'fc.weight' in weights and declared >= 0 and weights['fc.weight'].shape[0] != declared:
        rows = weights['fc.weight'].shape[0]
        raise ValueError(
            f'fc.weight has {rows} rows, but these weights are declared to have num_classes={declared}; loading them so would '
            f'leave a random classifier. Declare it: pretrained_cfg_overlay=dict(file=..., num_classes={rows}).'
        )

    pool: Any = model.global_pool
    if recorded.get('global_pool', pool.pool_type) == pool.pool_type:
        _check_options(model, source, recorded)
    elif not adapting:
        theirs = recorded['global_pool']
        raise ValueError(
            f'These weights are of global_pool={theirs!r}, as {source} says; the model has {pool.pool_type!r}. Build it with '
            f'theirs, or take only the backbone: pretrained_cfg_overlay=dict(file=..., num_classes=-1).'
        )
    else:
        weights = {key: value for key, value in weights.items() if not _in_head(key)}
    weights, random = _match_names(weights, model, adapting)
    if random and not features_only:
        level = logging.WARNING if any(not key.startswith('fc.') for key in random) else logging.INFO
        _logger.log(level, f'{len(weights)} tensors come from the checkpoint; randomly initialised stay: {_some(random, 8)}.')
    return weights


def _in_head(key: str) -> bool:
    return key.startswith(('global_pool.', 'fc.'))


def _match_names(weights: dict[str, Tensor], model: nn.Module, adapting: bool) -> tuple[dict[str, Tensor], set[str]]:
    """The weights that the model takes, and the names of the model that stay random (empty unless timm is adapting).

    Raises:
        ValueError: unknown or missing names, or other shapes; while adapting, in the backbone only.
    """
    target = model.state_dict()
    classifier = {'fc.weight', 'fc.bias'}
    if adapting:
        pool = {key: value for key, value in weights.items() if key.startswith('global_pool.')}
        if any(key not in target or target[key].shape != value.shape for key, value in pool.items()):
            weights = {key: value for key, value in weights.items() if key not in pool}  # whole or not at all
    checked = target.keys() - classifier if adapting else target.keys()
    missing = {key for key in checked - weights.keys() if not key.endswith('num_batches_tracked')}
    required = {key for key in missing if not (adapting and _in_head(key))}
    unknown = weights.keys() - target.keys() - (classifier if adapting else set())
    # timm itself adapts the first convolution to in_chans.
    common = weights.keys() & checked - {'conv1.weight'}
    shapes = {
        f'{k} {tuple(weights[k].shape)} for {tuple(target[k].shape)}' for k in common if weights[k].shape != target[k].shape
    }
    if required or unknown or shapes:
        remedy = 'Name the architecture, global_pool and reduce_dim that they were made with.'
        if not any(key.startswith('global_pool.') for key in weights):
            remedy = (
                'If they are a ResNet of this depth without this head, start from its backbone: '
                'pretrained_cfg_overlay=dict(file=..., num_classes=-1), or --pretrained-path of train.py.'
            )
        raise ValueError(
            f'These are not weights of this network. Unknown names: {_some(unknown) or "none"}; missing: '
            f'{_some(required) or "none"}; other shapes: {_some(shapes) or "none"}. {remedy}'
        )
    return weights, missing | (classifier & target.keys() if adapting else set())
