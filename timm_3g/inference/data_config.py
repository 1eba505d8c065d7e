"""How the images of a command are prepared and read: its options, checked, with what is recorded with the weights."""

import argparse
import math
import os
import sys
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.data.transforms import str_to_pil_interp

from timm_3g.checkpoints.sound import require_pixels

MOST_PIXELS = 89_478_485  # of one image: Pillow's own limit, 8-bit RGB in 256 MB


def check_options(args: argparse.Namespace) -> None:
    """Raise ValueError for a number out of range."""
    for name, least in (('batch_size', 1), ('workers', 0), ('img_size', 1), ('num_classes', 0), ('num_samples', 1)):
        value = getattr(args, name, None)
        if value is not None and value < least:
            raise ValueError(f'--{name.replace("_", "-")} must be at least {least}; got {value}.')
    if args.crop_pct is not None and not 0 < args.crop_pct < math.inf:
        raise ValueError(f'--crop-pct must be a positive number; got {args.crop_pct}.')


def data_config(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """How images are prepared: timm's resolution of options, and of what is recorded with the weights.

    The first process says on stderr in what the record of a checkpoint differs from the model's own.

    Raises:
        ValueError: a size, interpolation, mean or std that no image can be prepared with.
    """
    cfg = model.pretrained_cfg
    size = args.input_size or cfg.get('input_size')
    if not isinstance(size, (list, tuple)) or len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f'The input size must be three positive integers, channels, height and width; got {size!r}.')
    options = {**vars(args), 'in_chans': size[0]}
    for name in ('mean', 'std'):
        values = getattr(args, name) or cfg.get(name) or ()
        if len(values) not in ((1, size[0]) if getattr(args, name) else (0, 1, size[0])):
            raise ValueError(f'--{name} must be one number, or one for each of {size[0]} channels; got {list(values)}.')
        require_pixels({name: values})
    config = resolve_data_config(options, pretrained_cfg=cfg, use_test_size=True)
    require_pixels(cfg)
    _require_size(config)
    try:
        str_to_pil_interp(config['interpolation'])
    except KeyError:
        known = 'nearest, bilinear, bicubic, box, hamming, lanczos'
        raise ValueError(f'Unknown interpolation {config["interpolation"]!r}. There are {known}.') from None
    if args.checkpoint and int(os.environ.get('RANK', '0')) == 0:
        default = timm.get_pretrained_cfg(args.model)
        own = resolve_data_config(options, pretrained_cfg=default.to_dict() if default else {}, use_test_size=True)
        recorded = [f'{name} {_text(config[name])}' for name in config if _text(config[name]) != _text(own[name])]
        if recorded:
            print(f'As recorded with {args.checkpoint}: {", ".join(recorded)}.', file=sys.stderr)
    return config


def _require_size(config: dict[str, Any]) -> None:
    """Raise ValueError where images would be resized to nothing, or to more pixels than Pillow would read."""
    size = config['input_size']
    if len(size) != 3 or not all(type(n) is int and n > 0 for n in size):
        raise ValueError(f'The input size must be three positive integers, channels, height and width; got {size!r:.80}.')
    height, width = (math.floor(n / config['crop_pct']) for n in size[1:])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError(
            f'Images would be resized to {height} x {width} pixels for the input size {size[1]} x {size[2]} and crop_pct '
            f'{config["crop_pct"]}. At least 1 and at most {MOST_PIXELS:,} pixels are possible.'
        )


def _text(value: Any) -> str:
    return ' '.join(f'{number:g}' for number in value) if isinstance(value, (list, tuple)) else str(value)


def workers_of(args: argparse.Namespace, batches: int | None = None) -> int:
    """--workers, but no more than there are cores for this process, and batches."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(args.workers, cores, args.workers if batches is None else batches)
