"""Files written under a temporary name, then renamed: a reader finds the old content or the new, never half of it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from .temporary import sweep, temporary_name

if TYPE_CHECKING:  # verbs that draw nothing do without the extra
    from matplotlib.figure import Figure


SOFTWARE = 'timm_3g'  # written into our PNGs, to tell them from a user's own


def write_text(file: Path, text: str) -> None:
    """Write text in UTF-8. What has no place in it, as bytes of a file name in another encoding, is written as `\\udce9`.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_text(Path(folder, 'new', 'a.txt'), 'one')
    ...     Path(folder, 'new', 'a.txt').read_text()
    'one'
    """
    with _beside(file) as partial:
        partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def save_figure(figure: 'Figure', file: Path) -> None:
    """Write a PNG of 110 dots per inch."""
    with _beside(file) as partial:
        figure.savefig(partial, dpi=110, format='png', metadata={'Software': SOFTWARE})


def is_own_picture(file: Path) -> bool:
    """Whether a file is a PNG that `save_figure` wrote.

    >>> is_own_picture(Path('absent.png'))
    False
    """
    try:
        with Image.open(file, formats=['PNG']) as image:
            return image.info.get('Software') == SOFTWARE
    except OSError:
        return False


def require_writable(file: Path) -> None:
    """Raise OSError unless `write_text` could write the file. Call it before long work. It leaves nothing behind.

    Missing folders are fine, because `write_text` makes them.

    Raises:
        OSError: the file system does not accept the name, the name is taken by something other than a regular file, a parent
            is not a folder, or the folder is not writable.
    """
    target = Path(os.path.realpath(file))
    try:
        if target.exists() and not target.is_file():
            raise OSError('it exists and is not a regular file')
        _require_room(target.parent)
        with suppress(FileNotFoundError):
            target.lstat()  # raises for a name that is too long
    except OSError as error:
        raise type(error)(f'{file} cannot be written: {error.strerror or error}. Name another file.') from error


def require_writable_folder(folder: Path) -> None:
    """Raise OSError unless files can be created in the folder, or the folder itself if it is missing."""
    try:
        _require_room(folder)
    except OSError as error:
        raise type(error)(f'{folder} cannot be written: {error.strerror or error}. Name another place.') from error


def _require_room(folder: Path) -> None:
    there = Path(os.path.realpath(folder))
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f'{there} is not a folder')
    with tempfile.TemporaryFile(dir=there):
        pass


def require_picture(file: Path) -> None:
    """Raise OSError or ValueError unless `save_figure` could write the file under a name that says what it is.

    >>> require_picture(Path('summary.csv'))
    Traceback (most recent call last):
    ValueError: A picture must have a name that ends in .png; got summary.csv.
    """
    if file.suffix.lower() != '.png':
        raise ValueError(f'A picture must have a name that ends in .png; got {file}.')
    require_writable(file)


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A new file beside `file` that then replaces it and takes over its mode and owner. A link's target is replaced."""
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():  # a folder, /dev/null, a pipe
        raise OSError(f'{file} exists and is not a regular file. Name another file.')
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)
    partial = target.with_name(temporary_name(target.name))
    partial.open('x').close()  # exclusively: it follows no link that somebody has planted
    try:
        yield partial
        _take_over(target, partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _take_over(target: Path, partial: Path) -> None:
    """Give the new file the mode and the owner of the file that it will replace, if there is one."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    new = partial.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(PermissionError):  # only root gives files away
            os.chown(partial, old.st_uid, old.st_gid)
    partial.chmod(stat.S_IMODE(old.st_mode))


def require_file(file: Path) -> None:
    """Raise FileNotFoundError unless `file` is a regular file.

    >>> require_file(Path('absent.pth'))
    Traceback (most recent call last):
    FileNotFoundError: absent.pth does not exist.
    """
    if file.is_file():
        return
    if file.is_dir():
        raise FileNotFoundError(f'{file} is a folder. Name the weights file in it.')
    raise FileNotFoundError(f'{file} is not a regular file.' if file.exists() else f'{file} does not exist.')
