"""What is recorded beside a weights file, or in it, about its images and labels: fields of timm's pretrained_cfg."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg

from timm_3g.utils.numbers import is_finite

from .function import defaults_of, is_ours
from .integrity import CONFIG, WEIGHTS, read_config
from .record import Record

PREPROCESSING = ('input_size', 'mean', 'std', 'crop_pct', 'interpolation')
INTERPOLATIONS = ('bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming', 'random')
DESCRIPTION = (
    *PREPROCESSING,
    'test_input_size',
    'test_crop_pct',
    'crop_mode',
    'label_names',
    'label_descriptions',
    'license',
    'tag',
)


def description(record: Record, arch: str) -> dict[str, Any]:
    """What is known about the images and labels of weights, as fields of timm's pretrained_cfg.

    From a config.json beside the file that names the architecture `arch`: size and normalisation of images, label names,
    licence, tag. Or from the arguments that train.py keeps in its checkpoints. {} where neither is.

    Raises:
        ValueError: an invalid config.json beside the file.
    """
    file, config = record.file, record.config_of(arch)
    if config:
        known = {**(config.get('pretrained_cfg') or {}), **config}
        names = known.get('label_names') or ()
        if not record.config_is_ours:  # timm writes the default tag and its licence over whatever was trained
            known |= {'license': None, 'tag': None, 'label_descriptions': None}
            if isinstance(names, list) and names == [f'LABEL_{i}' for i in range(len(names))]:
                known['label_names'] = None  # transformers' stand-ins
        return _checked_description({name: _plain(known[name]) for name in DESCRIPTION if known.get(name) is not None}, file)
    args = record.training_of(arch)
    cfg = record.base.get('pretrained_cfg') if args else None
    began_with = cfg if isinstance(cfg, Mapping) else {}  # timm trains at its size
    stated = {name: value for name, value in args.items() if not _is_empty(value)}
    given = {name: _plain(stated.get(name, began_with.get(name))) for name in PREPROCESSING}
    if 'input_size' not in stated and stated.keys() & {'img_size', 'in_chans'}:
        before = given['input_size'] if _is_size(given['input_size']) else None
        size = before or _size_of(arch, args)
        sides = (stated['img_size'],) * 2 if 'img_size' in stated else size[1:] if size else None
        given['input_size'] = (stated.get('in_chans', 3), *sides) if sides else None
    return _checked_description({name: value for name, value in given.items() if not _is_empty(value)}, file)


def _size_of(arch: str, args: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """The size of the images of an architecture, or of the backbone that a run gave it. None where timm does not know it."""
    more = args.get('model_kwargs')
    backbone = {**defaults_of(arch), **(more if isinstance(more, Mapping) else {})}.get('backbone', arch)
    cfg = get_pretrained_cfg(backbone) if isinstance(backbone, str) else None
    return cfg.input_size if cfg else None


def check_config(folder: Path) -> None:
    """Raise ValueError where timm could not read config.json of a folder: fields of another type than it expects.

    A folder without config.json passes.

    >>> check_config(Path('no such folder'))
    """
    file = folder / WEIGHTS
    record = Record(file, {}, read_config(file), {})
    config = record.config
    if not config:
        return
    if not isinstance(config.get('architecture'), str):
        named = config.get('architecture')
        raise ValueError(f'{folder / CONFIG} names no architecture: {named!r:.80}. Fetch or export the folder again.')
    cfg = config.get('pretrained_cfg', {})
    if not isinstance(cfg, Mapping):
        raise ValueError(f'{folder / CONFIG} has pretrained_cfg={cfg!r:.80}, which must map names to values. Fix it.')
    known = {**cfg, **config}
    classes = known.get('num_classes', 0)
    if type(classes) is not int:
        raise ValueError(f'{folder / CONFIG} has num_classes={classes!r:.80}, which must be an integer. Fix it.')
    if 'model_args' in config:
        record.config_of(config['architecture'])
    check_description(known, file, names=is_ours(config['architecture']))


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


def _checked_description(fields: dict[str, Any], file: str | Path) -> dict[str, Any]:
    """The fields as they are.

    Raises:
        ValueError: one that is no size, no normalisation, no interpolation or no names.
    """
    descriptions = fields.get('label_descriptions')
    wrong = {
        'input_size': not _is_size(fields.get('input_size')),
        'test_input_size': not _is_size(fields.get('test_input_size')),
        'mean': 'mean' in fields and not _numbers(fields['mean']),
        'std': 'std' in fields and not _numbers(fields['std']),
        'interpolation': fields.get('interpolation', 'bilinear') not in INTERPOLATIONS,
        'label_names': not _is_texts(fields.get('label_names', ())),
        'label_descriptions': not isinstance(descriptions, Mapping | None),
    }
    for name in (name for name, is_wrong in wrong.items() if is_wrong):
        raise ValueError(
            f'{str(file)!r} or the config.json beside it has {name}={fields[name]!r:.80}, which timm cannot use. Fix it.'
        )
    return fields


def _is_size(value: Any) -> bool:
    """Whether a value is three positive integers, or None."""
    return value is None or (isinstance(value, tuple) and len(value) == 3 and all(type(v) is int and v > 0 for v in value))


def _is_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) for name in value)


def _is_empty(value: Any) -> bool:
    """Whether train.py was given nothing: None, '', 0 or an empty list. A tensor is something, which timm cannot use."""
    return value is None or (isinstance(value, str | int | float | list | tuple) and not value)


def _numbers(values: Any) -> tuple[float, ...]:
    """The values if they are all finite numbers; else ()."""
    fine = isinstance(values, tuple) and all(is_finite(v) for v in values)
    return values if fine else ()


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
