"""Reading a weight file with clear errors: its tensors, and the arguments that train.py keeps beside them."""

import argparse
import io
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

from .integrity import check_integrity


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
