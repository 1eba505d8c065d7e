"""Images that a command line names, and how they are read."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from timm.data.readers.img_extensions import is_img_extension
from torch import Tensor
from torch.utils.data import Dataset

from timm_3g.utils.terminal import one_line, printable

from .photograph import read_photograph


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files as they are, images below folders, matches of globs: each once, in the order given, sorted within a pattern.

    Links to folders are followed, and a folder is searched once, so that a circle of links ends. What folders hold beside
    images is counted by suffix on stderr.

    Raises:
        FileNotFoundError: a pattern that gives no file.
    """
    found: dict[Path, None] = {}
    skipped: Counter[str] = Counter()
    for pattern in patterns:
        path = Path(pattern)
        files: list[Path] = []
        for match in [path] if path.exists() else sorted({Path(match) for match in _glob(pattern)}):
            inside = [match]
            if match.is_dir():
                below = [file for folder in _folders(match) for file in _files(folder)]
                inside = sorted(file for file in below if is_img_extension(file.suffix.lower()))
                skipped.update(f.suffix.lower() or 'without a suffix' for f in below if not is_img_extension(f.suffix.lower()))
            files.extend(inside)
        if not files:
            held = f' What is there: {_listed(skipped)}.' if skipped else ''
            raise FileNotFoundError(f'{pattern!r} is no file, no folder with images, and no pattern that matches any.{held}')
        found.update(dict.fromkeys(files))
    if skipped:
        print(f'Not read in the folders: {_listed(skipped)}. Name such files or a pattern to read them.', file=sys.stderr)
    return list(found)


def _listed(skipped: Counter[str]) -> str:
    return ', '.join(f'{number} {printable(suffix)}' for suffix, number in sorted(skipped.items()))


def _files(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()] if os.access(folder, os.R_OK | os.X_OK) else []


def _folders(root: Path) -> Iterator[Path]:
    """The folder and all below it, each once: first those that stand there, then those that links lead to."""
    pending, seen = [root], set()
    for start in pending:
        for here, names, _ in os.walk(start):
            folder = Path(here)
            if folder.resolve() in seen:
                names.clear()
                continue
            seen.add(folder.resolve())
            names.sort()
            pending.extend(folder / name for name in names if (folder / name).is_symlink())
            yield folder


def _glob(pattern: str) -> Iterator[str]:
    """As glob.glob(recursive=True), but `**` enters a folder once: glob runs around a circle of links."""
    parts = pattern.split(os.sep)
    if '**' not in parts:
        yield from glob.glob(pattern)
        return
    at = parts.index('**')
    before, after = os.sep.join(parts[:at]), os.sep.join(part for part in parts[at + 1 :]) or '*'
    starts = glob.glob(f'{before}{os.sep}') if at else ['']
    for start in starts:
        root = Path(start)
        for folder in _folders(root):
            if not any(part.startswith('.') for part in folder.relative_to(root).parts):  # as glob
                yield from _glob(os.path.join(glob.escape(str(folder)) if start or folder != root else '', after))


class Images(Dataset):
    """(index, transformed image or None, why it could not be read) of each file. How it is read: see `read_photograph`."""

    def __init__(self, files: Sequence[Path], transform: Any, mode: str) -> None:
        self.files, self.transform, self.mode = files, transform, mode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[int, Tensor | None, str]:
        try:
            return i, self.transform(read_photograph(self.files[i], self.mode)), ''
        except Exception as error:  # whatever Pillow's many decoders raise over a damaged file
            return i, None, one_line(f'{type(error).__name__}: {error}')
