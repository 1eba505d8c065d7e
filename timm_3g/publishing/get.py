"""Fetch weights from where their authors host them into the user's cache, where `pretrained=True` finds them.

Nothing is redistributed: a file comes from its authors, under their terms.
"""

import difflib
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import timm

from timm_3g.checkpoints import CONFIG, GOLDEN, WEIGHTS, check_name_digits, fetched_file, fetched_folder, is_ours
from timm_3g.utils.files import require_writable_folder
from timm_3g.utils.lock import locked
from timm_3g.utils.options import takes_fields_of

from .authors import fetch, html_page
from .check_folder import check_folder
from .export import ExportOptions, export_file
from .folder import open_folder


@dataclass(frozen=True)
class GetOptions:
    """Options of `get`.

    Attributes:
        key: <arch>.<tag> of the weights (see `known_weights`).
        file: the authors' file, if the user has it already.

    >>> GetOptions('resnet50_isqrt.mpncov_in1k')
    GetOptions(key='resnet50_isqrt.mpncov_in1k', file=None)
    """

    key: str
    file: str | Path | None = None


@dataclass(frozen=True)
class Fetched:
    """Weights on this machine, as an exported folder that `pretrained=True` finds.

    Attributes:
        key: <arch>.<tag>.
        folder: where they are.
        state: 'shipped' with the package, 'present' in the cache already, or 'converted' now.
        license: an identifier of the Hub, 'unknown' if their authors granted none.

    >>> Fetched('resnet18_3g.mine', Path('cache/resnet18_3g.mine'), 'present', 'mit').folder.name
    'resnet18_3g.mine'
    """

    key: str
    folder: Path
    state: Literal['shipped', 'present', 'converted']
    license: str


@takes_fields_of(GetOptions)
def get(options: GetOptions) -> Fetched:
    """Fetch weights, or take them from a file. Check, convert and keep them in the cache. One process works at a time.

    A complete folder in the cache is not fetched again. A damaged one is replaced, and other files beside the weights stay. An
    interrupted download is resumed.

    Args:
        options: the fields of `GetOptions`, by position or by name.

    Returns:
        Where the weights are.

    Raises:
        ValueError: unknown key, or the file contains other weights or is not the one that its name says.
        FileNotFoundError: no such file.
        OSError: the authors' server does not give the file, or the cache cannot be written.

    >>> from timm_3g import get
    >>> fetched = get('resnet10_mini_3g.cifar10')
    >>> fetched.state, fetched.folder.name, fetched.license
    ('shipped', 'resnet10_mini_3g.cifar10', 'apache-2.0')
    """
    key, known = options.key, known_weights()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3) or known
        raise ValueError(f'{key!r} is not a known set of weights. Did you mean {", ".join(near)}? All: timm-3g get --list.')
    cfg, file = known[key], Path(options.file) if options.file else None
    license = cfg.license or 'unknown'
    if cfg.file:
        return Fetched(key, Path(cfg.file).parent, 'shipped', license)
    folder = fetched_folder(key)
    if file:
        check_name_digits(file)
    require_writable_folder(Path(os.path.realpath(folder)).parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f'{folder} must be a folder; it is another file. Move it away.')
    with locked(folder):
        if folder.exists() and any(folder.iterdir()) and not file:
            try:
                check_folder(open_folder(folder, with_card=False))
                return Fetched(key, folder, 'present', license)
            except (ValueError, OSError) as error:
                print(f'timm-3g get: fetching {key} again, because the cached folder is damaged: {error}', file=sys.stderr)
        source = file or fetch(key, cfg)
        _convert(key, source, cfg.num_classes, folder, keep=bool(file))
    return Fetched(key, folder, 'converted', license)


def known_weights() -> dict[str, Any]:
    """timm's pretrained_cfg of every key of this package that has weights somewhere.

    >>> known_weights()['resnet10_mini_3g.cifar10'].license
    'apache-2.0'
    """
    cfgs = {key: timm.get_pretrained_cfg(key) for key in timm.list_models(include_tags=True) if is_ours(key)}
    return {key: cfg for key, cfg in cfgs.items() if cfg.has_weights or cfg.origin_url}


def place_of(key: str) -> str:
    """Where the weights `key` are now, in words.

    >>> place_of('resnet10_mini_3g.cifar10')
    'in the package'
    """
    cfg = timm.get_pretrained_cfg(key)
    if cfg.file:
        return 'in the package'
    if fetched_file(key):
        return 'fetched'
    return f'not here: {cfg.hf_hub_id} on the Hub, if published' if cfg.hf_hub_id else 'not here: timm-3g get'


def _convert(key: str, source: Path, num_classes: int, folder: Path, keep: bool) -> None:
    """Write the cached folder. The user's files beside the weights stay, and so does a link in place of the folder.

    Args:
        keep: the source belongs to the user. Otherwise it is deleted, unless the disk is at fault and not the file.
    """
    target = Path(os.path.realpath(folder))
    # Inside an existing folder, which may be on another disk than its parent. Otherwise beside it.
    fresh = target / '.timm_3g.new' if target.is_dir() else target.with_name(f'{key}.new')
    shutil.rmtree(fresh, ignore_errors=True)  # left by a killed run
    try:
        made = export_file(ExportOptions(source, key, num_classes, fresh, with_card=False))
        if made.name != key:  # export goes on with them, under another name
            shutil.rmtree(fresh)
            raise ValueError(f'It holds weights of {made.name}. They are not those that the name {key} stands for.')
    except OSError:
        raise
    except Exception as error:  # whatever the readers raise over another kind of file
        page = html_page(source)
        if not keep:
            source.unlink()
        raise ValueError(f'{source} is not the file of {key}{page}. {" ".join(str(error).split())}') from error
    if target.is_dir():
        for name in (WEIGHTS, CONFIG, GOLDEN):
            os.replace(fresh / name, target / name)
        fresh.rmdir()
    else:
        os.rename(fresh, target)
    if not keep:
        source.unlink()
