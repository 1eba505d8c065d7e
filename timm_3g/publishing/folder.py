"""An exported folder: weights, config.json, golden pair, card, and what the run left. It is opened once and then carried."""

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm_3g.checkpoints import CONFIG, GOLDEN, SHA256, WEIGHTS

from .front_matter import read_text, split_front_matter
from .run_files import RUN_FILES, read_run_file

CARD = 'README.md'
FILES = (WEIGHTS, CONFIG, GOLDEN, CARD)  # nothing else is ever published, but RUN_FILES where they are


@dataclass(frozen=True)
class ExportFolder:
    """An exported folder, as its files were when it was written or opened. It can be passed wherever a path can.

    Attributes:
        path: where it is.
        config: the content of config.json.
        files: the bytes of config.json and golden.safetensors, and of args.yaml and summary.csv where they are, by name.
            Absolute paths in args.yaml have lost their folders.
        card: the text of README.md, '' if there is none.

    >>> import timm, timm_3g
    >>> weights = timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file
    >>> folder = open_folder(Path(weights).parent)
    >>> folder.name, folder.sha256[:8], sorted(folder.files)
    ('resnet10_mini_3g.cifar10', '36551a8a', ['config.json', 'golden.safetensors'])
    """

    path: Path
    config: Mapping[str, Any] = field(repr=False)
    files: Mapping[str, bytes] = field(repr=False)
    card: str = field(default='', repr=False)

    @property
    def name(self) -> str:
        """<arch>.<tag> according to config.json, or <arch> if it names no tag."""
        tag = self.config['pretrained_cfg'].get('tag')
        return f'{self.config["architecture"]}.{tag}' if tag else self.config['architecture']

    @property
    def sha256(self) -> str:
        """SHA-256 of model.safetensors according to config.json, as 64 hex digits."""
        return self.config[SHA256]

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def open_folder(path: str | Path, with_card: bool = True) -> ExportFolder:
    """Open a folder that `timm_3g.export` or `timm_3g.get` wrote.

    Args:
        path: the folder.
        with_card: False leaves README.md unread.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: config.json is damaged or states no sha256. README.md is not UTF-8, not a regular file, or a link to
            something that is not our card.

    >>> import timm
    >>> folder = open_folder(Path(timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file).parent)
    >>> folder.name, folder.config['num_classes']
    ('resnet10_mini_3g.cifar10', 10)
    """
    path = Path(path)
    missing = [name for name in (WEIGHTS, CONFIG, GOLDEN) if not (path / name).is_file()]
    remedy = f'`timm-3g export {shlex.quote(str(path / WEIGHTS))}` makes one from the weights.'
    if missing:
        raise FileNotFoundError(f'{path} is not a folder of `timm-3g export`: it lacks {", ".join(missing)}. {remedy}')
    files = {name: (path / name).read_bytes() for name in (CONFIG, GOLDEN)}
    files |= {name: read_run_file(path / name) for name in RUN_FILES if (path / name).is_file()}
    config = _parsed(files[CONFIG], path / CONFIG)
    if not re.fullmatch(r'[0-9a-f]{64}', str(config.get(SHA256))):
        away = ' of 64 hex digits. Move it away:' if SHA256 in config else '.'  # export reads it
        raise ValueError(f'{path} is not a folder of `timm-3g export`: its {CONFIG} has no {SHA256}{away} {remedy}')
    return ExportFolder(path, config, files, card_in(path) if with_card else '')


def opened(folder: ExportFolder | str | Path) -> ExportFolder:
    """The folder, opened if it is a path."""
    return folder if isinstance(folder, ExportFolder) else open_folder(folder)


def require_own_files(path: Path, names: Iterable[str] = (*FILES, *RUN_FILES)) -> None:
    """Raise ValueError if a file to be published is a link to something outside the folder, or not a regular file."""
    inside = Path(os.path.realpath(path))
    for name in names:
        file = path / name
        if inside not in Path(os.path.realpath(file)).parents:
            raise ValueError(
                f'{file} is a link to {os.path.realpath(file)}, outside the folder, and is not read. Replace it with a copy.'
            )
        if os.path.lexists(file) and not file.is_file():
            raise ValueError(f'{file} must be a regular file. Write the folder again.')


def card_in(path: Path) -> str:
    """The text of README.md, or ''. A link out of the folder is followed only to one of our cards.

    Raises:
        ValueError: a link to something else. It is neither shown nor overwritten.
    """
    readme = path / CARD
    text = read_text(readme) if readme.exists() else ''
    inside = Path(os.path.realpath(path)) in Path(os.path.realpath(readme)).parents
    if not inside and 'timm_3g' not in split_front_matter(text)[0]:
        raise ValueError(
            f'{readme} is a link to {os.path.realpath(readme)}, which is not a card of timm_3g. Replace it with a copy.'
        )
    return text


def _parsed(content: bytes, file: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ValueError: it is not JSON (which has no NaN), has a key twice, or lacks the architecture or pretrained_cfg.
    """
    try:
        config = json.loads(content.decode(), parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates)
        if not isinstance(config, dict):
            raise ValueError(f'it must be a JSON object, not {type(config).__name__}')
        if not isinstance(config.get('architecture'), str) or not isinstance(config.get('pretrained_cfg'), dict):
            raise ValueError('it must contain architecture and pretrained_cfg')
        for name in (config['architecture'], config['pretrained_cfg'].get('tag') or ''):  # they stand in code on the card
            if not isinstance(name, str) or not re.fullmatch(r'[\w.-]*', name):
                raise ValueError(f'architecture and tag must be letters, digits, _, - and dots; got {name!r:.80}')
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{file} is damaged: {error}. Fetch or export the folder again.') from error
    return config


def _refuse_constant(text: str) -> None:
    raise ValueError(f'{text} is not a number in JSON')


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'it has {next(name for name in names if names.count(name) > 1)!r} twice')
    return found
