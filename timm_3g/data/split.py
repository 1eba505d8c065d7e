"""Reject missing data and missing splits: timm would silently use the whole folder."""

import tarfile
from pathlib import Path

from timm_3g.compat import search_split


def require_split(root: str, split: str) -> None:
    """Raise ValueError if `root` is a folder without `split`: timm would use the images of every split.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> for name in ('train', 'val'):
    ...     Path(root, name).mkdir()
    >>> require_split(root, 'validation')  # timm finds `val`
    """
    if split and Path(root).is_dir() and Path(search_split(root, split)) == Path(root):
        folders = sorted(f.name for f in Path(root).iterdir() if f.is_dir())
        raise ValueError(
            f'{root} has no split {split!r} and timm would use the images of every split. '
            f'Its folders: {", ".join(folders[:8])}.'
        )


def require_data(root: str) -> None:
    """Raise OSError unless `root` is a folder or a tar file. timm raises an AssertionError for a misspelt folder.

    >>> require_data('missing')
    Traceback (most recent call last):
    FileNotFoundError: --data-dir missing: there is no such folder or tar file.
    """
    if not Path(root).exists():
        raise FileNotFoundError(f'--data-dir {root}: there is no such folder or tar file.')
    if Path(root).is_file() and not tarfile.is_tarfile(root):
        raise OSError(f'--data-dir {root} must be a folder or a tar file; it is another file.')
