"""Names for what is not finished yet: they carry machine and process, so that what a killed process has left can be told."""

import os
import platform
import re
import shutil
from contextlib import suppress
from pathlib import Path

_HOST = re.sub(r'\W', '', platform.node())[:16]


def start_of(name: str) -> str:
    """How the temporary name of `name` begins. For `tempfile`, which adds random letters."""
    return f'{_stem(name)}{_HOST}.{os.getpid()}.'


def sweep(folder: Path, name: str) -> None:
    """Remove temporary files and folders of `name` whose process, on this machine, has ended. Links are not followed."""
    pattern = re.compile(rf'{re.escape(_stem(name))}{re.escape(_HOST)}\.(\d{{1,9}})\.\w+')
    with suppress(OSError):  # it is a courtesy: a folder of somebody else's is left alone
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
    except OSError:  # somebody else's
        return True
    return True
