"""Weights that `timm-3g get` has fetched: one folder per key in the user's cache, as `local-dir:` reads it."""

import os
from pathlib import Path

from .integrity import WEIGHTS


def cache_root() -> Path:
    """The user's cache of this package: $XDG_CACHE_HOME/timm_3g, else ~/.cache/timm_3g.

    >>> (cache_root() / 'weights').name
    'weights'
    """
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache', 'timm_3g')


def fetched_folder(key: str) -> Path:
    """The folder of the weights `<arch>.<tag>`, whether they have been fetched or not.

    >>> fetched_folder('resnet50_3g.orig_in1k').parts[-2:]
    ('weights', 'resnet50_3g.orig_in1k')
    """
    return cache_root() / 'weights' / key


def arriving_file(key: str) -> Path:
    """The authors' file of `<arch>.<tag>` until it is whole and converted.

    >>> arriving_file('resnet50_3g.orig_in1k').parts[-2:]
    ('downloads', 'resnet50_3g.orig_in1k.pth')
    """
    return cache_root() / 'downloads' / f'{key}.pth'


def fetched_file(key: str) -> Path | None:
    """The weights file of `<arch>.<tag>` if it has been fetched, else None.

    >>> fetched_file('resnet50_3g.no_such_tag') is None
    True
    """
    file = fetched_folder(key) / WEIGHTS
    return file if file.is_file() else None
