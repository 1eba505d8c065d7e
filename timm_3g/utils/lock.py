"""One process at a time, and a word to the others why nothing happens."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock `<file>.lock`; where another process holds it, say so and wait."""
    lock = FileLock(f'{file}.lock')
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f'timm-3g: waiting for another process that is at work on {file}.', file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
