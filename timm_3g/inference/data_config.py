"""How images are prepared and read: the options, checked, with what the weights record."""

import math
import os
import sys
from statistics import fmean
from typing import Any

import timm
from timm.data import resolve_data_config
from timm.data.transforms import str_to_pil_interp

from timm_3g.checkpoints.sound import require_pixels
from timm_3g.utils.launched import is_first_process
from timm_3g.utils.options import OptionError

from .options import ModelOptions

MOST_PIXELS = 89_478_485  # of one image: Pillow's own limit, 8-bit RGB in 256 MB
IMAGE_OPTIONS = ('input_size', 'img_size', 'interpolation', 'mean', 'std', 'crop_pct', 'crop_mode')


def data_config(options: ModelOptions, model: Any) -> dict[str, Any]:
    """How images are prepared: timm's resolution of the options and of what the model's weights record.

    The first process reports on stderr where the record of a checkpoint differs from the defaults of the model.

    Returns:
        Keyword arguments of `timm.data.create_transform`: input_size, interpolation, mean, std, crop_pct, crop_mode.

    Raises:
        ValueError: an invalid size, interpolation, mean or std.

    >>> import timm, timm_3g
    >>> config = data_config(ModelOptions('resnet10_mini_3g', crop_pct=0.9), timm.create_model('resnet10_mini_3g'))
    >>> config['input_size'], config['crop_pct'], config['interpolation']
    ((3, 32, 32), 0.9, 'bilinear')
    """
    cfg = model.pretrained_cfg
    size = options.input_size or cfg.get('input_size')
    if not isinstance(size, (list, tuple)) or len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ValueError(f'The input size must be three positive integers, channels, height and width; got {size!r}.')
    given = {'in_chans': size[0], **{name: getattr(options, name) for name in IMAGE_OPTIONS}}
    for name in ('mean', 'std'):
        known = cfg.get(name) or ()
        require_pixels({name: known})
        if not given[name] and len(known) not in (0, 1, size[0]):  # for other channels train.py takes the average, too
            given[name] = (fmean(known),) * size[0]
        values = given[name] or known
        if len(values) not in ((1, size[0]) if given[name] else (0, 1, size[0])):
            raise OptionError(name, f'must be one number, or one for each of {size[0]} channels; got {list(values)}.')
        require_pixels({name: values})
    config = resolve_data_config(given, pretrained_cfg=cfg, use_test_size=True)
    require_pixels(cfg)
    _require_size(config)
    try:
        str_to_pil_interp(config['interpolation'])
    except KeyError:
        known = 'nearest, bilinear, bicubic, box, hamming, lanczos'
        raise ValueError(f'Unknown interpolation {config["interpolation"]!r}. Choose one of {known}.') from None
    if options.checkpoint and is_first_process():
        default = timm.get_pretrained_cfg(options.name)
        own = resolve_data_config(given, pretrained_cfg=default.to_dict() if default else {}, use_test_size=True)
        recorded = [f'{name} {_text(config[name])}' for name in config if _text(config[name]) != _text(own[name])]
        if recorded:
            print(f'As recorded with {options.checkpoint}: {", ".join(recorded)}.', file=sys.stderr)
    return config


def _require_size(config: dict[str, Any]) -> None:
    """Raise ValueError where resized images would have no pixels, or more than Pillow reads."""
    size = config['input_size']
    if len(size) != 3 or not all(type(n) is int and n > 0 for n in size):
        raise ValueError(f'The input size must be three positive integers, channels, height and width; got {size!r:.80}.')
    height, width = (math.floor(n / config['crop_pct']) for n in size[1:])
    if min(height, width) < 1 or height * width > MOST_PIXELS:
        raise ValueError(
            f'Images would be resized to {height} x {width} pixels for the input size {size[1]} x {size[2]} and crop_pct '
            f'{config["crop_pct"]}. The limits are 1 and {MOST_PIXELS:,} pixels.'
        )


def _text(value: Any) -> str:
    return ' '.join(f'{number:g}' for number in value) if isinstance(value, (list, tuple)) else str(value)


def workers_of(options: ModelOptions, batches: int | None = None) -> int:
    """Number of reading processes: `options.workers`, but no more than cores of this process, or batches.

    >>> workers_of(ModelOptions('resnet10_mini_3g', workers=4), batches=0)
    0
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(options.workers, cores, options.workers if batches is None else batches)
