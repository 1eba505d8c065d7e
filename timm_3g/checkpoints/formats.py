"""Foreign names of weights and how they become ours. One place to add a checkpoint format: FORMATS."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from timm.models import clean_state_dict
from torch import Tensor

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

# What a training framework puts before every name: the attribute that holds the network.
WRAPPERS = ('model.', 'net.', 'network.')

# What names of a network begin with, in our names or timm's. Beside a wrapper, all others are of its loss and metrics.
_NETWORK = re.compile(r'(conv1|bn1|layer\d|conv_stem|blocks|conv_head|bn2|fc|classifier|global_pool|features)', re.IGNORECASE)


def _rename(key: str) -> str:
    """Our name of a foreign key; any other key as it is."""
    match = re.fullmatch(r'layer_reduce(_bn)?\.(\w+)', key, re.IGNORECASE)  # some GCP_Optimization variants: Layer_Reduce
    if match:
        return f'global_pool.reduce.{"bn" if match[1] else "conv"}.{match[2]}'
    match = re.fullmatch(r'AtMp(\d+)\.(\w+)\.(\w+)', key)
    if match and match[2] in _ATMP:
        return f'global_pool.reweight.{int(match[1]) - 1}.{_ATMP[match[2]]}.{match[3]}'
    return key


_STAGES = dict(enumerate(('conv1', 'bn1', '', '', 'layer1', 'layer2', 'layer3', 'layer4')))


def _rename_main(key: str) -> str:
    """Our name of a key of a network in three parts: a Sequential of a ResNet's, the representation, a Linear."""
    match = re.fullmatch(r'features\.(?:module\.)?(\d+)\.(.+)', key)
    if match and _STAGES.get(int(match[1])):
        return f'{_STAGES[int(match[1])]}.{match[2]}'
    match = re.fullmatch(r'representation\.(?:\w+\.)*(0|1|conv|bn)\.(\w+)', key)
    if match:
        return f'global_pool.reduce.{"conv" if match[1] in ("0", "conv") else "bn"}.{match[2]}'
    match = re.fullmatch(r'classifier\.(?:\d+\.)?(weight|bias)', key)
    return f'fc.{match[1]}' if match else key


@dataclass(frozen=True)
class CheckpointFormat:
    """Foreign names: a pattern that tells them, and the options that weights under these names were trained with.

    Attributes:
        mark: matches the beginning of a name that no other format has.
        options: what settles the function of weights in this format: global_pool and options of the pooling.
        counts_blocks: there are as many re-weighting blocks as the mark has groups of names.
        rename: a foreign name to ours. Names that it does not know stay as they are.
        usual: of the options, those that files in this format have had otherwise.
    """

    mark: re.Pattern[str]
    options: dict[str, Any]
    counts_blocks: bool = False
    rename: Callable[[str], str] = _rename
    usual: frozenset[str] = frozenset()


# The first format whose mark matches a key is taken. All are the state dicts of the authors' own codes.
FORMATS: dict[str, CheckpointFormat] = {
    '3G-Net': CheckpointFormat(
        re.compile(r'AtMp\d+\.'),
        {'global_pool': '3g', 'triangle': 'lower', 'eps': 1e-7, 'num_iters': 5, 'centered': True, 'reweight_beta': 0.0},
        counts_blocks=True,
    ),
    'fast-MPN-COV / GCP_Optimization': CheckpointFormat(
        re.compile(r'layer_reduce\.', re.IGNORECASE),
        {'global_pool': 'isqrt', 'triangle': 'upper', 'eps': 0.0, 'num_iters': 5, 'centered': True},
        usual=frozenset({'triangle'}),
    ),
    "fast-MPN-COV's main.py": CheckpointFormat(
        re.compile(r'representation\.'),
        {'global_pool': 'isqrt', 'triangle': 'upper', 'eps': 0.0, 'num_iters': 5, 'centered': True},
        rename=_rename_main,
        usual=frozenset({'triangle'}),
    ),
}


def format_of(state_dict: Mapping[str, Tensor]) -> tuple[str, dict[str, Any], frozenset[str]]:
    """Name of the foreign format, the options it implies, and which of them are a guess; ('', {}, ()) for our own names."""
    for name, form in FORMATS.items():
        marked = [key for key in state_dict if form.mark.match(key)]
        if marked:
            blocks = {'num_reweights': len({key.split('.')[0] for key in marked})} if form.counts_blocks else {}
            return name, {**form.options, **blocks}, form.usual
    return '', {}, frozenset()


def _is_of_network(name: str) -> bool:
    return bool(_NETWORK.match(name)) or any(form.mark.match(name) for form in FORMATS.values())


def our_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under our names, wrappers and masks of torch.nn.utils.prune resolved.

    Raises:
        ValueError: two of one name.

    >>> import torch
    >>> list(our_names({'module.AtMp1.map1.weight': torch.zeros(1), 'module.fc.bias': torch.zeros(1)}))
    ['global_pool.reweight.0.conv_a.weight', 'fc.bias']
    """
    plain = unwrapped(state_dict)
    rename = FORMATS[form].rename if (form := format_of(plain)[0]) else _rename
    weights: dict[str, Tensor] = {}
    for key, value in plain.items():
        if key.endswith('_mask') and f'{key.removesuffix("_mask")}_orig' in plain:
            continue
        if key.endswith('_orig') and f'{key.removesuffix("_orig")}_mask' in plain:
            key = key.removesuffix('_orig')
            value = value * plain[f'{key}_mask']
        name = rename(key)
        if name in weights:
            raise ValueError(
                f'Two tensors are called {name!r} in our names, one of them {key!r} in the file. Keep one of them.'
            )
        weights[name] = value
    return weights


def unwrapped(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what DistributedDataParallel, torch.compile and Lightning put before all of a network's.

    Where the whole network is behind such a prefix, what is beside it (criterion.*, train_metric.*) is left out.

    Raises:
        ValueError: two of one name.
    """
    names = dict(zip(state_dict, clean_state_dict(dict(zip(state_dict, state_dict, strict=True))), strict=False))
    if len(set(clean_state_dict(dict.fromkeys(state_dict)))) != len(state_dict):
        raise ValueError('Two tensors have one name, but for what wrappers put before it. Keep one of each.')
    for wrapper in WRAPPERS:
        inside = {name.removeprefix(wrapper): state_dict[key] for key, name in names.items() if name.startswith(wrapper)}
        beside = [name for name in names.values() if not name.startswith(wrapper)]
        if inside and (not beside or (any(map(_is_of_network, inside)) and not any(map(_is_of_network, beside)))):
            return unwrapped(inside)
    return {name: state_dict[key] for key, name in names.items()}
