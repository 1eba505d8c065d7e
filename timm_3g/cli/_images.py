"""Images that a command line names, and how they are read."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data.readers.img_extensions import is_img_extension
from torch import Tensor
from torch.utils.data import Dataset


def find_images(patterns: Sequence[str]) -> list[Path]:
    """Files as they are, images below folders, matches of globs: each once, in the order given, sorted within a pattern.

    Raises:
        FileNotFoundError: a pattern that gives no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        matches = [path] if path.exists() else [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        files: list[Path] = []
        for match in matches:
            inside = (
                sorted(f for f in match.rglob('*') if f.is_file() and is_img_extension(f.suffix.lower()))
                if match.is_dir()
                else [match]
            )
            files.extend(inside)
        if not files:
            raise FileNotFoundError(f'{pattern!r} is no file, no folder with images, and no pattern that matches any.')
        found.update(dict.fromkeys(files))
    return list(found)


class Images(Dataset):
    """(index, transformed image or None, why it could not be read) of each file."""

    def __init__(self, files: Sequence[Path], transform: Any, mode: str) -> None:
        self.files, self.transform, self.mode = files, transform, mode

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[int, Tensor | None, str]:
        try:
            with Image.open(self.files[i]) as image:
                return i, self.transform(image.convert(self.mode)), ''
        except Exception as error:  # whatever Pillow's many decoders raise over a damaged file
            return i, None, f'{type(error).__name__}: {error}'
