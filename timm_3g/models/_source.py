"""Where weights come from: reading a file with clear errors, and what is recorded beside the tensors about their function."""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import load_state_dict, resolve_pretrained_cfg
from torch import Tensor

from ._shipped import check_shipped


def check_source(variant: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Before a model is built, say clearly that there are no weights to load or that they cannot be read.

    Returns:
        What is recorded about the function of the weights (see `read_record`); empty if nothing is.

    Raises:
        RuntimeError: no source at all (timm's words, and where the weights are).
        FileNotFoundError: the file is not there.
        ValueError: the file is truncated, or no state dict of tensors; or it ships with this package and is damaged.
    """
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay'))
    name = f'{variant}.{cfg.tag}' if cfg.tag else variant
    if not cfg.has_weights and not cfg.state_dict:
        origin = f' Its authors host them: {cfg.origin_url} .' if cfg.origin_url else ''
        raise RuntimeError(
            f'No pretrained weights exist for {name} in this package.{origin} Load a file with '
            f'pretrained_cfg_overlay=dict(file=...) (--checkpoint FILE on the command line), or use `pretrained=False` for '
            f'random init.'
        )
    if kwargs.get('pretrained_model_args'):  # config.json of hf-hub: or local-dir:, which timm has read
        weights = Path(cfg.file or '', 'model.safetensors')
        if cfg.source == 'local-dir' and weights.is_file():
            read_weights(weights)
        return dict(kwargs['pretrained_model_args'])
    if not cfg.file or cfg.source or cfg.state_dict:
        return {}
    if not Path(cfg.file).is_file():
        what = "is a folder: load it as 'local-dir:...'" if Path(cfg.file).is_dir() else 'does not exist'
        raise FileNotFoundError(f'No weights of {name} at {cfg.file!r}: the file of pretrained_cfg_overlay {what}.')
    check_shipped(cfg.file)
    read_weights(cfg.file)
    return read_record(cfg.file, variant)


def read_weights(file: str | Path, use_ema: bool = True) -> dict[str, Tensor]:
    """The state dict in a .pth, .pth.tar or .safetensors file, 'module.' stripped, as timm reads it.

    Args:
        use_ema: EMA weights where the file has both kinds, as timm's pretrained path does.

    Raises:
        ValueError: truncated, not a state dict of tensors, or in need of pickled classes (they are never executed).
    """
    try:
        state_dict = load_state_dict(str(file), use_ema)
    except Exception as error:  # whatever torch, pickle, zip or safetensors raise over a damaged file
        reason = (str(error).splitlines() or [''])[0]
        raise ValueError(
            f'{str(file)!r} cannot be read as weights: {type(error).__name__}: {reason} '
            f'It is truncated, or not a state dict of tensors in PyTorch or safetensors format. Fetch it again.'
        ) from error
    require_tensors(state_dict)
    return state_dict


def read_record(file: str | Path, variant: str) -> dict[str, Any]:
    """What is known about the function that the weights in `file` are of: global_pool, reduce_dim and the pooling's options.

    From a config.json beside the file that names this architecture, or from the arguments that timm's train.py keeps in its
    checkpoints, if they name a model of this package. Empty where neither is.

    Raises:
        ValueError: a config.json beside the file that is not one.
    """
    config = _config_beside(file, variant)
    if config:
        return dict(config['model_args'])
    args = _training_arguments(file, variant)
    if not args:
        return {}
    options = {'global_pool': args.get('gp'), 'bn_eps': args.get('bn_eps'), **(args.get('model_kwargs') or {})}
    return dict(timm.create_model(variant, device='meta', **options)._model_args)


PREPROCESSING = ('input_size', 'mean', 'std', 'crop_pct', 'interpolation')
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
        return {name: _plain(known[name]) for name in DESCRIPTION if known.get(name) is not None}
    args = _training_arguments(file, variant)
    given = {name: args.get(name) for name in PREPROCESSING}
    if args.get('img_size') and not given['input_size']:
        given['input_size'] = (args.get('in_chans') or 3, args['img_size'], args['img_size'])
    return {name: _plain(value) for name, value in given.items() if value}


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _config_beside(file: str | Path, variant: str) -> dict[str, Any]:
    """The content of config.json in the folder of `file`, if it is of this architecture; else empty."""
    config = Path(file).with_name('config.json')
    if not config.is_file():
        return {}
    try:
        content = json.loads(config.read_text())
        if content['architecture'] != variant:
            return {}
        return {**content, 'model_args': dict(content['model_args'])}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{config} beside the weights is no config.json of timm: {error!r}. Mend it or move it.') from error


def _training_arguments(file: str | Path, variant: str) -> dict[str, Any]:
    """The arguments that train.py keeps in its checkpoints, if they are of this architecture; else empty."""
    if str(file).endswith('.safetensors'):
        return {}
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(file, map_location='cpu', weights_only=True)
    args = vars(checkpoint['args']) if isinstance(checkpoint.get('args'), argparse.Namespace) else {}
    return args if args.get('model', '').split('.')[0] == variant else {}


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
