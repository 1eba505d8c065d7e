"""A lock that lets one process work at a time and tells the others why they wait."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `<file>.lock`. If another process holds it, print a line to stderr and wait.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder, locked(Path(folder, 'a')):
    ...     Path(folder, 'a.lock').exists()
    True
    """
    lock = FileLock(f'{file}.lock')
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f'timm-3g: waiting for another process that is using {file}.', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
