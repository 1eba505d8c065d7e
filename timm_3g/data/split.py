"""A split that a folder of images has not: timm takes the whole folder then, in silence."""

import tarfile
from pathlib import Path

from timm_3g.compat import search_split


def require_split(root: str, split: str) -> None:
    """Raise ValueError if `root` is a folder in which timm would not find `split`, and so take the images of every split."""
    if split and Path(root).is_dir() and Path(search_split(root, split)) == Path(root):
        folders = sorted(f.name for f in Path(root).iterdir() if f.is_dir())
        raise ValueError(
            f'{root} has no split {split!r}; timm would take all its images, those of every split. '
            f'It has: {", ".join(folders[:8])}.'
        )


def require_data(root: str) -> None:
    """Raise OSError unless `root` is a folder or a tar file: timm's own word for a misspelt folder is an assertion error."""
    if not Path(root).exists():
        raise FileNotFoundError(f'--data-dir {root}: there is no such folder or tar file.')
    if Path(root).is_file() and not tarfile.is_tarfile(root):
        raise OSError(f'--data-dir {root} must be a folder or a tar file; it is another file.')
