"""Files written under a temporary name, then renamed: the old content or the new, never half of it."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .temporary import start_of, sweep

if TYPE_CHECKING:  # verbs that draw nothing do without the extra
    from matplotlib.figure import Figure


SOFTWARE = 'timm_3g'  # in our PNGs, so that they can be told from a user's own


def write_text(file: Path, text: str) -> None:
    """In UTF-8."""
    with _beside(file) as partial:
        partial.write_text(text, encoding='utf-8')


def save_figure(figure: 'Figure', file: Path) -> None:
    """As a PNG of 110 dots an inch."""
    with _beside(file) as partial:
        figure.savefig(partial, dpi=110, format='png', metadata={'Software': SOFTWARE})


def require_writable(file: Path) -> None:
    """Raise OSError unless `write_text` could write the file. Nothing stays behind. To be called before long work.

    Folders that are missing are no fault: they would be made.

    Raises:
        OSError: a name that the file system does not take, something that is no regular file, a folder that is none, or that
            may not be written.
    """
    target = Path(os.path.realpath(file))
    try:
        if target.exists() and not target.is_file():
            raise OSError('it is there and is no regular file')
        require_writable_folder(target.parent)
        with suppress(FileNotFoundError):
            target.lstat()  # a name that is too long
    except OSError as error:
        raise type(error)(f'{file} cannot be written: {error.strerror or error}. Name another file.') from error


def require_writable_folder(folder: Path) -> None:
    """Raise OSError unless files can be made in the folder, or the folder itself where it is missing."""
    there = Path(os.path.realpath(folder))
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(f'{folder} cannot be written: {there} is no folder. Name another place.')
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise type(error)(f'{folder} cannot be written: {error.strerror or error}. Name another place.') from error


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A new file in the folder of `file`, which takes its place, mode and owner. Of a link, what it names is replaced."""
    target = Path(os.path.realpath(file))
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep(target.parent, target.name)
    number, name = tempfile.mkstemp(prefix=start_of(target.name), dir=target.parent)  # exclusively, through no link
    os.close(number)
    partial = Path(name)
    try:
        yield partial
        _take_over(target, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _take_over(target: Path, partial: Path) -> None:
    """Mode and owner of the file that will be replaced; those of any new file where there is none."""
    try:
        old = target.stat()
    except FileNotFoundError:
        partial.chmod(0o666 & ~umask())
        return
    new = partial.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        with suppress(PermissionError):  # only root gives files away
            os.chown(partial, old.st_uid, old.st_gid)
    partial.chmod(stat.S_IMODE(old.st_mode))


def umask() -> int:
    """Of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def require_file(file: Path) -> None:
    """Raise FileNotFoundError unless `file` is there and is a regular file."""
    if file.is_file():
        return
    if file.is_dir():
        raise FileNotFoundError(f'{file} is a folder; name the file of weights in it.')
    raise FileNotFoundError(f'{file} is no regular file.' if file.exists() else f'{file} does not exist.')
