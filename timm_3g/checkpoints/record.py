"""What is recorded in a weight file or beside it about its function: our header, config.json, the arguments of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .function import MOST_CLASSES, checked_options, function_of
from .integrity import CONFIG, SHA256, STAMP, WEIGHTS, header_of, is_carried_along, read_config
from .known_files import known_file
from .read import read_training


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
    config = config_beside(file, variant)
    inside = _stamp_of(file)
    if config:
        _check_config(file, config, inside)
    if config or inside:
        return dict((inside or config)['model_args'])
    args = training_arguments(file, variant)
    if not args:
        known = known_file(file)
        return dict(known.options) if known and known.key.startswith(f'{variant}.') else {}
    more = args.get('model_kwargs')
    options = {'global_pool': args.get('gp'), 'bn_eps': args.get('bn_eps'), **(more if isinstance(more, Mapping) else {})}
    return function_of(variant, options, f'The training run in {str(file)!r}')


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
    tag = cfg.get('tag') if is_our_config(file, config) and isinstance(cfg, Mapping) else None  # timm writes the default one
    return f'{recorded}.{tag}' if tag and recorded == config.get('architecture') else recorded


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


def _trained_architecture(file: str | Path) -> Any:
    """The architecture that train.py was given. Its tag is of the weights that the run began with, not of these."""
    model = read_training(file).get('model')
    return model.split('.')[0] if isinstance(model, str) else model


def config_beside(file: str | Path, variant: str) -> dict[str, Any]:
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


def is_our_config(file: str | Path, config: dict[str, Any]) -> bool:
    return SHA256 in config and not is_carried_along(Path(file), config)


def training_arguments(file: str | Path, variant: str) -> dict[str, Any]:
    """The arguments that train.py keeps in its checkpoints, if they are of this architecture; else empty."""
    args = read_training(file)
    return args if str(args.get('model')).split('.')[0] == variant else {}
