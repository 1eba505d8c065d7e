"""The bytes of a weights file to its tensors. Safetensors and PyTorch's pickles, which execute no code."""

import argparse
import json
import math
import pickle
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from timm.models import clean_state_dict
from torch import Tensor

from timm_3g.utils.abbreviated import abbreviated

MOST_HEADER = 100_000_000  # bytes of a safetensors header, the format's own bound

# Names of the safetensors format. Types that are not here, such as packed 4-bit floats, are no weights of a network of ours.
DTYPES = {
    'F64': torch.float64,
    'F32': torch.float32,
    'F16': torch.float16,
    'BF16': torch.bfloat16,
    'F8_E4M3': torch.float8_e4m3fn,
    'F8_E5M2': torch.float8_e5m2,
    'C64': torch.complex64,
    'I64': torch.int64,
    'I32': torch.int32,
    'I16': torch.int16,
    'I8': torch.int8,
    'U64': torch.uint64,
    'U32': torch.uint32,
    'U16': torch.uint16,
    'U8': torch.uint8,
    'BOOL': torch.bool,
}


def read_header(stream: BinaryIO) -> bytes:
    """The length and the header of an open safetensors file, from its beginning. Fewer bytes where the file is cut off."""
    length = stream.read(8)
    return length + stream.read(min(int.from_bytes(length, 'little'), MOST_HEADER))


def metadata_in(header: bytes) -> dict[str, Any]:
    """The metadata in a header that `read_header` read. {} where there is none, or the header is invalid."""
    try:
        metadata = json.loads(header[8:]).get('__metadata__')
    except (ValueError, AttributeError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def tensors_in(content: Tensor) -> dict[str, Tensor]:
    """The tensors of a safetensors file as views of its bytes (uint8), in the order of the header. Nothing is copied.

    safetensors' own readers either map the file, which another process may change after its SHA-256 was verified, or copy it.
    The format: https://huggingface.co/docs/safetensors/index#format

    Raises:
        SafetensorError: not in the format. Other exceptions where the header is not even JSON of the right shape.
    """
    length = int.from_bytes(content[:8].numpy().tobytes(), 'little')
    start = 8 + length
    if not 0 < length <= min(MOST_HEADER, len(content) - 8):
        raise SafetensorError(f'The header has {length} bytes, and the file {len(content)}.')
    entries = json.loads(content[8:start].numpy().tobytes())
    entries.pop('__metadata__', None)
    end, tensors = 0, dict.fromkeys(entries, torch.empty(0))
    for name, entry in sorted(entries.items(), key=lambda item: item[1]['data_offsets']):
        dtype, shape, (first, last) = DTYPES[entry['dtype']], entry['shape'], entry['data_offsets']
        if not all(type(size) is int and size >= 0 for size in (*shape, first, last)):
            raise SafetensorError(
                f'Shape and offsets of {name!r} must be whole numbers; got {shape!r:.80}, {first!r}, {last!r}.'
            )
        if first != end or last - first != math.prod(shape) * dtype.itemsize or start + last > len(content):
            raise SafetensorError(f'The tensor {name!r} of shape {shape!r:.80} is not at its place in the file.')
        data = content[start + first : start + last]
        aligned = data.storage_offset() % dtype.itemsize == 0
        tensors[name], end = (data if aligned else data.clone()).view(dtype).reshape(shape), last
    if start + end != len(content):
        raise SafetensorError(f'The tensors end after {start + end} bytes, and the file after {len(content)}.')
    return tensors


def load_pickle(stream: BinaryIO) -> Any:
    """What torch.save wrote. Classes other than PyTorch's own and argparse.Namespace are refused."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(stream, map_location='cpu', weights_only=True)


def state_dict_in(content: Any, file: Path, use_ema: bool) -> dict[str, Tensor]:
    """The state dict in what a file held, 'module.' stripped, chosen as timm does.

    Args:
        use_ema: EMA weights where the file has both kinds.

    Raises:
        ValueError: not a state dict of tensors, or two tensors of one name.
    """
    if isinstance(content, Mapping):
        keys = ('state_dict_ema', 'model_ema') if use_ema else ()
        key = next((key for key in keys if content.get(key) is not None), None)
        key = key or next((key for key in ('state_dict', 'model') if key in content), None)
        content = content[key] if key else content
    if not isinstance(content, Mapping):
        raise unreadable(file, TypeError(f'a {type(content).__name__} in place of a state dict.'))
    require_tensors(content)
    state_dict = clean_state_dict(dict(content))
    if len(state_dict) != len(content):
        twice = _same_but_for_wrappers(content)
        raise ValueError(f'{str(file)!r} has two tensors of one name, but for what wrappers put before it. {twice}')
    return state_dict


def training_in(content: Any, use_ema: bool) -> dict[str, Any]:
    """The arguments that timm's train.py keeps in its checkpoints, with 'epoch' and 'metric'. {} where there are none.

    Args:
        use_ema: as for `state_dict_in`. The metric is None where it is of the other weights: train.py evaluates the EMA weights
            last, unless they are kept on the CPU.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get('args'), argparse.Namespace):
        return {}
    args = vars(content['args'])
    has_ema = content.get('state_dict_ema') is not None
    of_these = not has_ema or use_ema is not bool(args.get('model_ema_force_cpu'))
    return {**args, 'epoch': content.get('epoch'), 'metric': content.get('metric') if of_these else None}


def _same_but_for_wrappers(names: Iterable[str]) -> str:
    cleaned = [(next(iter(clean_state_dict({name: None}))), name) for name in names]
    counts = Counter(clean for clean, _ in cleaned)
    return f'Keep one of each: {abbreviated(name for clean, name in cleaned if counts[clean] > 1)}.'


def unreadable(file: Path, error: Exception) -> ValueError:
    """A ValueError that says why a file cannot be decoded, and what to do."""
    pickled = re.search(r'GLOBAL ([\w.]+)', str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if pickled:
        return ValueError(
            f'{str(file)!r} cannot be read as weights: it needs the pickled class {pickled[1]}, and no code of files is run. '
            f'Only if you trust the file, take the state dict out of it in Python: '
            f"torch.save(torch.load({str(file)!r}, weights_only=False)['state_dict'], 'weights.pth'); of a pickled model, "
            f"take .state_dict() in place of ['state_dict']. Fetch it again if you do not."
        )
    # torch recommends weights_only=False there, which runs the code of the file.
    by_torch = isinstance(error, pickle.UnpicklingError) and 'weights_only' in str(error)
    reason = 'it is no plain pickle.' if by_torch else f'{type(error).__name__}: {(str(error).splitlines() or [""])[0]}'
    return ValueError(
        f'{str(file)!r} cannot be read as weights: {reason} '
        f'It is truncated, or not a state dict of tensors in PyTorch format, or in safetensors format under a name that ends '
        f'in .safetensors. Fetch it again.'
    )


def require_tensors(state_dict: Any) -> None:
    """Raise ValueError unless state_dict maps names to tensors."""
    if not isinstance(state_dict, Mapping):
        raise ValueError(f'Weights must be a state dict, names to tensors; got {type(state_dict).__name__}.')
    foreign = [str(key) for key, value in state_dict.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign or not state_dict:
        raise ValueError(
            f'Weights must be a state dict of tensors; got {len(state_dict)} entries, of which no named tensors: '
            f'{abbreviated(foreign) or "none"}. Pass the state dict itself, or a file that holds it under state_dict or model.'
        )
