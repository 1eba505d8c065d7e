"""Reading a weight file with clear errors, and what is recorded in it or beside it about its function and images."""

import argparse
import io
import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load
from timm.models import clean_state_dict
from torch import Tensor

from ._function import MOST_CLASSES, checked_options, function_of, is_ours
from ._integrity import CONFIG, SHA256, STAMP, WEIGHTS, check_integrity, header_of, is_carried_along, read_config
from ._known_files import known_file


def read_weights(file: str | Path, use_ema: bool = True) -> dict[str, Tensor]:
    """The state dict in a .pth, .pth.tar or .safetensors file, 'module.' stripped, as timm reads it.

    Args:
        use_ema: EMA weights where the file has both kinds, as timm's pretrained path does.

    Raises:
        ValueError: not the published file (see `check_integrity`), truncated, not a state dict of tensors, or in need of
            pickled classes (they are never executed).
    """
    with open(file, 'rb') as opened:  # one opening, so that the bytes that are checked are those that are read
        stream: BinaryIO = io.BytesIO(opened.read()) if str(file).endswith('.safetensors') else opened
        check_integrity(Path(file), stream)
        try:
            found = load(stream.getvalue()) if isinstance(stream, io.BytesIO) else _load_pickled(stream)
        except Exception as error:  # whatever torch, pickle, zip or safetensors raise over a damaged file
            raise _unreadable(file, error) from error
    if isinstance(found, Mapping):
        keys = ('state_dict_ema', 'model_ema') if use_ema else ()
        key = next((key for key in keys if found.get(key) is not None), None)
        key = key or next((key for key in ('state_dict', 'model') if key in found), None)
        found = found[key] if key else found
    if not isinstance(found, Mapping):
        raise _unreadable(file, TypeError(f'a {type(found).__name__} in place of a state dict.'))
    require_tensors(found)
    state_dict = clean_state_dict(found)
    if len(state_dict) != len(found):
        raise ValueError(f'{str(file)!r} has two tensors of one name, but for what wrappers put before it. {_twice(found)}')
    return state_dict


def _twice(names: Iterable[str]) -> str:
    """Which names are the same without the prefixes of wrappers."""
    cleaned = [(next(iter(clean_state_dict({name: None}))), name) for name in names]
    counts = Counter(clean for clean, _ in cleaned)
    return f'Keep one of each: {some(name for clean, name in cleaned if counts[clean] > 1)}.'


def _load_pickled(stream: BinaryIO) -> Any:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(stream, map_location='cpu', weights_only=True)


def _unreadable(file: str | Path, error: Exception) -> ValueError:
    pickled = re.search(r'GLOBAL ([\w.]+)', str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if pickled:
        return ValueError(
            f'{str(file)!r} cannot be read as weights: it needs the pickled class {pickled[1]}, and no code of files is run. '
            f'Only if you trust the file, take the state dict out of it in Python: '
            f"torch.save(torch.load({str(file)!r}, weights_only=False)['state_dict'], 'weights.pth'); of a pickled model, "
            f"take .state_dict() in place of ['state_dict']. Fetch it again if you do not."
        )
    reason = (str(error).splitlines() or [''])[0]
    return ValueError(
        f'{str(file)!r} cannot be read as weights: {type(error).__name__}: {reason} '
        f'It is truncated, or not a state dict of tensors in PyTorch or safetensors format. Fetch it again.'
    )


def stamp(variant: str, num_classes: int, model_args: Mapping[str, Any]) -> dict[str, str]:
    """The header of a safetensors file that says which function its tensors are of, so that config.json cannot say another."""
    record = {'architecture': variant, 'num_classes': num_classes, 'model_args': dict(model_args)}
    return {'format': 'pt', STAMP: json.dumps(record, sort_keys=True)}


def read_record(file: str | Path, variant: str) -> dict[str, Any]:
    """What is known about the function that the weights in `file` are of: global_pool, reduce_dim and the pooling's options.

    From the header of a safetensors file that `timm-3g export` wrote, from a config.json beside the file, or from the arguments
    that timm's train.py keeps in its checkpoints; the last two count if they name this architecture. Empty where none does.

    Raises:
        ValueError: a config.json beside the file that is not one, or that contradicts the header.
    """
    config = _config_beside(file, variant)
    inside = _stamp_of(file)
    if config:
        _check_config(file, config, inside)
    if config or inside:
        return dict((inside or config)['model_args'])
    args = _training_arguments(file, variant)
    if not args:
        known = known_file(file)
        return dict(known.options) if known and known.key.startswith(f'{variant}.') else {}
    more = args.get('model_kwargs')
    options = {'global_pool': args.get('gp'), 'bn_eps': args.get('bn_eps'), **(more if isinstance(more, Mapping) else {})}
    return function_of(variant, options, f'The training run in {str(file)!r}')


def _check_config(file: str | Path, config: Mapping[str, Any], inside: Mapping[str, Any]) -> None:
    """Raise ValueError where config.json contradicts itself or the weights beside it."""
    declared = config.get('num_classes', (config.get('pretrained_cfg') or {}).get('num_classes'))  # as timm reads it
    built = config['model_args'].get('num_classes', declared)
    if built != declared or (declared is not None and declared < 0):
        raise ValueError(
            f'config.json beside {str(file)!r} declares num_classes {declared!r}, and model_args has {built!r}: the classifier '
            f'would be random. Fetch or export it anew.'
        )
    if not inside:
        return
    said = {key: value for key, value in config['model_args'].items() if key not in ('num_classes', 'in_chans')}
    said |= {'num_classes': declared}
    found = {**inside['model_args'], 'num_classes': inside['num_classes']}
    differing = [
        f'{key}: {said.get(key)!r}, the file {found.get(key)!r}'
        for key in sorted(said.keys() | found.keys())
        if said.get(key) != found.get(key)
    ]
    if differing:
        raise ValueError(
            f'config.json beside {str(file)!r} contradicts the weights, which know what they were made for '
            f'({"; ".join(differing)}). It was changed, or is of other weights. Move it, and export the file again.'
        )


def _stamp_of(file: str | Path) -> dict[str, Any]:
    """What `stamp` wrote into this file; else empty.

    Raises:
        ValueError: something else stands there.
    """
    if not str(file).endswith('.safetensors'):
        return {}
    text = header_of(Path(file)).get(STAMP)
    if not text:
        return {}
    try:
        record = json.loads(text)
        architecture, classes, model_args = (record[name] for name in ('architecture', 'num_classes', 'model_args'))
        if not isinstance(architecture, str) or type(classes) is not int or not 0 <= classes <= MOST_CLASSES:
            raise ValueError(f'architecture must be a name and num_classes a number; got {architecture!r}, {classes!r}')
        return {'architecture': architecture, 'num_classes': classes, 'model_args': _plain_args(model_args)}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f'The header {STAMP!r} of {str(file)!r} is not ours: {error!r}. Write the file without it in Python: '
            f'safetensors.torch.save_file(safetensors.torch.load_file({str(file)!r}), {WEIGHTS!r})'
        ) from error


def _plain_args(model_args: Any) -> dict[str, Any]:
    """model_args of a header or a config.json.

    Raises:
        ValueError: no mapping of names to plain data, or a value that no network has.
    """
    if not isinstance(model_args, Mapping):
        raise ValueError(f'model_args must map names to values; got {model_args!r:.80}')
    return {**model_args, **checked_options(model_args, 'model_args')}


def read_key(file: str | Path) -> str:
    """<arch> or <arch>.<tag> that a file is of, by its header, config.json beside it, or train.py; '' where none says it.

    Raises:
        ValueError: a header, config.json or checkpoint that cannot be read.
    """
    config = read_config(Path(file))
    recorded = _stamp_of(file).get('architecture') or config.get('architecture') or _trained_architecture(file)
    if recorded is None:
        known = known_file(file)
        return known.key if known else ''
    if not isinstance(recorded, str):
        raise ValueError(f'{str(file)!r} or its config.json names no architecture: {recorded!r:.80}. Name it: --model NAME.')
    cfg = config.get('pretrained_cfg')
    tag = cfg.get('tag') if _is_our_config(file, config) and isinstance(cfg, Mapping) else None  # timm writes the default one
    return f'{recorded}.{tag}' if tag and recorded == config.get('architecture') else recorded


def _trained_architecture(file: str | Path) -> Any:
    """The architecture that train.py was given. Its tag is of the weights that the run began with, not of these."""
    model = read_training(file).get('model')
    return model.split('.')[0] if isinstance(model, str) else model


PREPROCESSING = ('input_size', 'mean', 'std', 'crop_pct', 'interpolation')
INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming', 'random')
DESCRIPTION = (*PREPROCESSING, 'crop_mode', 'label_names', 'label_descriptions', 'license', 'tag')


def read_description(file: str | Path, variant: str) -> dict[str, Any]:
    """What is known about the images and labels of the weights in `file`, as fields of timm's pretrained_cfg.

    From a config.json beside the file that names this architecture: size and normalisation of images, label names, licence,
    tag. Or from the arguments that train.py keeps in its checkpoints: what it was told otherwise than the model's own config.
    Empty where neither is.

    Raises:
        ValueError: a config.json beside the file that is not one.
    """
    config = _config_beside(file, variant)
    if config:
        known = {**config.get('pretrained_cfg', {}), **config}
        if not _is_our_config(file, config):  # timm writes the default tag and its licence over whatever was trained
            known |= {'license': None, 'tag': None, 'label_descriptions': None}
            if [*(known.get('label_names') or ())] == [f'LABEL_{i}' for i in range(len(known.get('label_names') or ()))]:
                known['label_names'] = None  # transformers' stand-ins
        return _checked_description({name: _plain(known[name]) for name in DESCRIPTION if known.get(name) is not None}, file)
    args = _training_arguments(file, variant)
    given = {name: args.get(name) for name in PREPROCESSING}
    if args.get('img_size') and not given['input_size']:
        given['input_size'] = (args.get('in_chans') or 3, args['img_size'], args['img_size'])
    return _checked_description({name: _plain(value) for name, value in given.items() if value}, file)


def _checked_description(fields: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """The fields as they are.

    Raises:
        ValueError: one that is no size, no normalisation, no interpolation or no names.
    """
    size, descriptions = fields.get('input_size'), fields.get('label_descriptions')
    wrong = {
        'input_size': size is not None and not (len(_numbers(size)) == 3 and min(_numbers(size)) > 0),
        'mean': 'mean' in fields and not _numbers(fields['mean']),
        'std': 'std' in fields and not _numbers(fields['std']),
        'interpolation': fields.get('interpolation', 'bilinear') not in INTERPOLATIONS,
        'label_names': not isinstance(fields.get('label_names', ()), tuple),
        'label_descriptions': not isinstance(descriptions, Mapping | None),
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise ValueError(
            f'{str(file)!r} or the config.json beside it has {name}={fields[name]!r:.80}, which timm cannot use. Mend it.'
        )
    return fields


def _numbers(values: Any) -> tuple[float, ...]:
    """The values if they are all finite numbers; else ()."""
    fine = isinstance(values, tuple) and all(type(v) in (int, float) and math.isfinite(v) for v in values)
    return values if fine else ()


def _is_our_config(file: str | Path, config: dict[str, Any]) -> bool:
    return SHA256 in config and not is_carried_along(Path(file), config)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _config_beside(file: str | Path, variant: str) -> dict[str, Any]:
    """The content of config.json in the folder of `file`, if it is of this architecture; else empty."""
    content = read_config(Path(file))
    try:
        if not content or content['architecture'] != variant:
            return {}
        cfg = content.get('pretrained_cfg')
        if not isinstance(cfg, Mapping | None):
            raise ValueError(f'pretrained_cfg must map names to values; got {cfg!r:.80}')
        return {**content, 'model_args': _plain_args(content['model_args'])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{Path(file).with_name(CONFIG)} beside the weights is no config.json of timm: {error!r}. Mend it or move it.'
        ) from error


def check_config(folder: Path) -> None:
    """Raise ValueError where timm could not read config.json of a folder: fields of another type than it expects."""
    file = folder / WEIGHTS
    config = read_config(file)
    if not config:
        return
    if not isinstance(config.get('architecture'), str):
        named = config.get('architecture')
        raise ValueError(f'{folder / CONFIG} names no architecture: {named!r:.80}. Fetch or export the folder anew.')
    if 'model_args' in config:
        _config_beside(file, config['architecture'])
    cfg = config.get('pretrained_cfg')
    check_description(cfg if isinstance(cfg, Mapping) else config, file, names=is_ours(config['architecture']))


def check_description(cfg: Mapping[str, Any], file: str | Path, names: bool = True) -> None:
    """Raise ValueError for fields of a pretrained_cfg that are of another type than timm expects.

    Args:
        file: the weights, for the message.
        names: refuse label_names by index, too, which timm lets pass, but which name no classes here.
    """
    fields = {name: _plain(cfg[name]) for name in DESCRIPTION if cfg.get(name) is not None}
    if not names and isinstance(fields.get('label_names'), Mapping):
        del fields['label_names']
    _checked_description(fields, file)


def read_training(file: str | Path) -> dict[str, Any]:
    """The arguments of the run that timm's train.py keeps in its checkpoints, with its 'epoch' and 'metric'; else empty.

    Raises:
        ValueError: truncated, or in need of pickled classes.
    """
    if str(file).endswith('.safetensors'):
        return {}
    check_integrity(Path(file))
    found = Path(file).stat()
    return dict(_read_training(str(file), found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=4)
def _read_training(file: str, modified: int, size: int) -> dict[str, Any]:
    """Kept for as long as the file is the same: a command asks several times, and each time would read it all."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            checkpoint = torch.load(file, map_location='cpu', weights_only=True)
    except Exception as error:
        raise _unreadable(file, error) from error
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get('args'), argparse.Namespace):
        return {}
    return {**vars(checkpoint['args']), 'epoch': checkpoint.get('epoch'), 'metric': checkpoint.get('metric')}


def _training_arguments(file: str | Path, variant: str) -> dict[str, Any]:
    """The arguments that train.py keeps in its checkpoints, if they are of this architecture; else empty."""
    args = read_training(file)
    return args if str(args.get('model')).split('.')[0] == variant else {}


def require_tensors(state_dict: Any) -> None:
    """Raise ValueError unless state_dict maps names to tensors."""
    if not isinstance(state_dict, Mapping):
        raise ValueError(f'Weights must be a state dict, names to tensors; got {type(state_dict).__name__}.')
    foreign = [str(key) for key, value in state_dict.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign or not state_dict:
        raise ValueError(
            f'Weights must be a state dict of tensors; got {len(state_dict)} entries, of which no named tensors: '
            f'{some(foreign) or "none"}. Pass the state dict itself, or a file that holds it under state_dict or model.'
        )


def some(names: Iterable[str], most: int = 4) -> str:
    """The first names in order, and how many more there are."""
    names = sorted(names)
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
