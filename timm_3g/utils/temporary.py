"""Names of unfinished files. They contain the machine and the process, so that leftovers of a killed process can be found."""

import os
import platform
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

_HOST = re.sub(r'\W', '', platform.node())[:16]


def start_of(name: str) -> str:
    """The beginning of every temporary name of `name` in this process."""
    return f'{_stem(name)}{_HOST}.{os.getpid()}.'


def temporary_name(name: str) -> str:
    """A new temporary name that nobody can guess.

    `tempfile` is not used here: it creates files and folders for their owner alone, and the finished file must have the mode
    that the user's umask gives.

    >>> temporary_name('a.txt').startswith(start_of('a.txt'))
    True
    """
    return f'{start_of(name)}{secrets.token_hex(8)}'


def sweep(folder: Path, name: str) -> None:
    """Remove temporary files and folders of `name` whose process on this machine has ended. Links are not followed."""
    pattern = re.compile(rf'{re.escape(_stem(name))}{re.escape(_HOST)}\.(\d{{1,9}})\.\w+')
    with suppress(OSError):  # a folder that cannot be read is left alone
        for entry in list(os.scandir(folder)):
            match = pattern.fullmatch(entry.name)
            if not match or _lives(int(match[1])):
                continue
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def _stem(name: str) -> str:
    return f'.{name.encode()[:150].decode(errors="ignore") if name.isprintable() else "name"}.'


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True
