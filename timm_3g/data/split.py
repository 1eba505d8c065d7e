"""Reject missing data and missing splits: timm would silently use the whole folder."""

import tarfile
from pathlib import Path

from timm_3g.compat import search_split
from timm_3g.utils.abbreviated import abbreviated

READERS = ('hfds', 'hfids', 'tfds', 'torch', 'wds')  # what a data set of timm begins with, before a slash


def reads_folder(dataset: str) -> bool:
    """Whether timm takes --data-dir for a folder or tar file of images. It does for any name that has none of READERS.

    Raises:
        ValueError: something else before a slash, which timm would ignore.

    >>> reads_folder(''), reads_folder('torch/cifar10')
    (True, False)
    >>> reads_folder('hfd/cifar10')
    Traceback (most recent call last):
    ValueError: A data set must begin with hfds/, hfids/, tfds/, torch/ or wds/; got 'hfd/cifar10'. For a folder, leave it out.
    """
    prefix, slash, _ = dataset.partition('/')
    if slash and prefix.lower() not in READERS:
        *others, last = (f'{reader}/' for reader in READERS)
        raise ValueError(
            f'A data set must begin with {", ".join(others)} or {last}; got {dataset!r}. For a folder, leave it out.'
        )
    return not slash


def has_splits(root: str) -> bool:
    """Whether a folder of images has splits: `train` or another name of timm for one, with folders of classes in it.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> Path(root, 'train', 'cat').mkdir(parents=True)
    >>> has_splits(root), has_splits(str(Path(root, 'train')))
    (True, False)
    """
    if not Path(root).is_dir():
        return False
    found = (Path(search_split(root, split)) for split in ('train', 'validation', 'test'))
    return any(folder != Path(root) and any(path.is_dir() for path in folder.iterdir()) for folder in found if folder.is_dir())


def require_split(root: str, split: str) -> None:
    """Raise ValueError if `root` is a folder without `split`: timm would use the images of every split.

    >>> import tempfile
    >>> root = tempfile.mkdtemp()
    >>> for name in ('train', 'val'):
    ...     Path(root, name).mkdir()
    >>> require_split(root, 'validation')  # timm finds `val`
    """
    if '[' in split and Path(root).is_dir():
        raise ValueError(f'A folder of images has splits, and no slices of them; got {split!r}. Leave the bracket out.')
    if split and Path(root).is_dir() and Path(search_split(root, split)) == Path(root):
        folders = (f.name for f in Path(root).iterdir() if f.is_dir())
        raise ValueError(
            f'{root} has no split {split!r} and timm would use the images of every split. '
            f'Its folders: {abbreviated(folders, 8) or "none"}.'
        )


def require_data(root: str) -> None:
    """Raise OSError unless `root` is a folder or a whole tar file, uncompressed. timm asserts it, or fails while it reads.

    >>> require_data('missing')
    Traceback (most recent call last):
    FileNotFoundError: --data-dir missing: there is no such folder or tar file.
    """
    if not Path(root).exists():
        raise FileNotFoundError(f'--data-dir {root}: there is no such folder or tar file.')
    if Path(root).is_file():
        try:
            with tarfile.open(root, 'r:') as tar:
                tar.getmembers()
        except tarfile.TarError as error:
            raise OSError(
                f'--data-dir {root} must be a folder or a tar file without compression; it is another, or damaged: {error}.'
            ) from error
