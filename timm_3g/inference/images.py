"""Images named by files, folders and patterns, and how they are read."""

import glob
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timm.data import create_transform
from timm.data.readers.img_extensions import is_img_extension
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from timm_3g.utils.abbreviated import abbreviated
from timm_3g.utils.files import is_own_picture
from timm_3g.utils.terminal import one_line, printable

from .data_config import MOST_PIXELS, workers_of
from .options import ModelOptions
from .photograph import read_photograph


def find_images(patterns: str | Path | Sequence[str | Path]) -> list[Path]:
    """Files as they are, images below folders, and matches of glob patterns.

    Links to folders are followed. Each folder is searched once, so that circular links end. Files in folders that are not
    images are counted by suffix on stderr, and folders that cannot be read are named there. Pictures of `explain` are left out.

    Returns:
        Each file once, in the order of the patterns, sorted within a pattern.

    Raises:
        FileNotFoundError: a pattern that matches no file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ('b.png', 'a.jpg'):
    ...     (folder / name).touch()
    >>> [file.name for file in find_images(folder)], [file.name for file in find_images([folder / '*.png'])]
    (['a.jpg', 'b.png'], ['b.png'])
    """
    found: dict[str, Path] = {}  # by absolute path: one file may be named twice
    others: set[Path] = set()
    unread: list[Path] = []
    for pattern in map(str, [patterns] if isinstance(patterns, str | Path) else patterns):
        if not pattern:
            raise FileNotFoundError("'' names no image. For the current folder, name '.'.")
        path = Path(pattern)
        files: list[Path] = []
        for match in [path] if path.exists() else sorted({Path(match) for match in _glob(pattern)}):
            inside = [match]
            if match.is_dir():
                folders = list(_folders(match))
                unread.extend(folder for folder in folders if not os.access(folder, os.R_OK | os.X_OK))
                below = [file for folder in folders for file in _files(folder)]
                inside = sorted(file for file in below if is_img_extension(file.suffix.lower()) and not _is_explanation(file))
                others.update(file for file in set(below) - set(inside) if not _is_explanation(file))
            files.extend(inside)
        if not files:
            held = f' The folder has: {_listed(others)}.' if others else ''
            raise FileNotFoundError(f'{pattern!r} is not a file, a folder with images, or a pattern that matches a file.{held}')
        for file in files:
            found.setdefault(os.path.abspath(file), file)
    if unread:
        print(f'Skipped folders that cannot be read: {abbreviated(map(printable, map(str, unread)), 8)}.', file=sys.stderr)
    skipped = others - set(found.values())
    if skipped:
        print(f'Skipped in folders: {_listed(skipped)}. Name these files or a pattern to read them.', file=sys.stderr)
    return list(found.values())


def _is_explanation(file: Path) -> bool:
    """Whether it is a picture that `predict` made of another one."""
    return '.explain' in file.name and is_own_picture(file)


def _listed(files: Iterable[Path]) -> str:
    skipped = Counter(file.suffix.lower() or 'without a suffix' for file in files)
    return ', '.join(f'{number} {printable(suffix)}' for suffix, number in sorted(skipped.items()))


def _files(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()] if os.access(folder, os.R_OK | os.X_OK) else []


def _folders(root: Path) -> Iterator[Path]:
    """The folder and all folders below it, each once: first real folders, then linked ones."""
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
    """As glob.glob(recursive=True), but `**` enters each folder once: glob would follow circular links."""
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


class ReadImage(NamedTuple):
    """One image as the model gets it.

    Attributes:
        number: position of the file.
        pixels: (C, H, W), or None if the file cannot be read.
        error: why it cannot be read, else ''.

    >>> ReadImage(3, None, 'truncated').pixels is None
    True
    """

    number: int
    pixels: Tensor | None
    error: str


class Images(Dataset):
    """A data set of image files. An item is a `ReadImage`: a damaged file gives its error instead of raising it.

    Args:
        files: the images, see `find_images`.
        transform: from a PIL image to a tensor.
        mode: 'RGB' or 'L', see `read_photograph`.
        longest: how many times as long as wide an image may be, or as wide as long. Resized, others would take all memory.

    >>> import tempfile
    >>> from torchvision.transforms.functional import to_tensor
    >>> file = Path(tempfile.mkdtemp(), 'damaged.png')
    >>> _ = file.write_text('not an image')
    >>> Images([file], to_tensor, 'RGB')[0].error.split(':')[0]
    'UnidentifiedImageError'
    """

    def __init__(self, files: Sequence[Path], transform: Any, mode: str, longest: float = math.inf) -> None:
        self.files, self.transform, self.mode, self.longest = files, transform, mode, longest

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> ReadImage:
        try:
            image = read_photograph(self.files[i], self.mode)
            if max(image.size) > self.longest * min(image.size):
                raise ValueError(
                    f'it has {image.width} x {image.height} pixels, and one side may be {self.longest:.0f} times the other.'
                )
            return ReadImage(i, self.transform(image), '')
        except Exception as error:  # the many exceptions of Pillow's decoders over a damaged file
            return ReadImage(i, None, one_line(f'{type(error).__name__}: {error}'))


def image_mode(config: dict[str, Any]) -> str:
    """The PIL mode of images with as many channels as the model's input: 'RGB' for three, else 'L'.

    >>> image_mode({'input_size': (1, 32, 32)})
    'L'
    """
    return 'RGB' if config['input_size'][0] == 3 else 'L'


def read_batches(
    files: Sequence[Path], config: dict[str, Any], options: ModelOptions, batch_size: int
) -> Iterator[list[ReadImage]]:
    """The images in batches, in order, each prepared for the model. `config`: see `data_config`."""
    # timm resizes the shorter side first, and crops the longer one.
    resized = max(config['input_size'][1:]) / config['crop_pct']
    longest = MOST_PIXELS / resized**2 if config['crop_mode'] == 'center' else math.inf
    images = Images(files, create_transform(**config, is_training=False), image_mode(config), longest)
    workers = workers_of(options, len(files) // batch_size)  # none for a handful
    for read, pixels in DataLoader(images, batch_size, num_workers=workers, collate_fn=_stacked):
        of_readable = iter(pixels)
        yield [image if image.error else image._replace(pixels=next(of_readable)) for image in read]


def _stacked(batch: Sequence[ReadImage]) -> tuple[list[ReadImage], Tensor | Sequence[Tensor]]:
    """The pixels of a batch as one tensor: each that a worker sends takes a file descriptor."""
    pixels = [image.pixels for image in batch if image.pixels is not None]
    return [image._replace(pixels=None) for image in batch], torch.stack(pixels) if pixels else ()
