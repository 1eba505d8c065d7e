"""Weights that `timm-3g get` has fetched: one folder a key in the user's cache, as `local-dir:` reads it."""

import os
from pathlib import Path

from .integrity import WEIGHTS


def cache_root() -> Path:
    """The user's cache of this package: $XDG_CACHE_HOME/timm_3g, else ~/.cache/timm_3g."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'timm_3g')


def fetched_folder(key: str) -> Path:
    """Where the weights `<arch>.<tag>` are kept, fetched or not."""
    return cache_root() / 'weights' / key


def arriving_file(key: str) -> Path:
    """Where the authors' file of `<arch>.<tag>` is kept until it is whole and converted."""
    return cache_root() / 'downloads' / f'{key}.pth'


def fetched_file(key: str) -> Path | None:
    """The weights `<arch>.<tag>` if they have been fetched, else None."""
    file = fetched_folder(key) / WEIGHTS
    return file if file.is_file() else None
