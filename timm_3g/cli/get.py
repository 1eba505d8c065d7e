"""`timm-3g get`: weights from where their authors host them into the user's cache, where `pretrained=True` finds them.

Nothing is redistributed: a file comes from its authors, under their terms. One place to add a host: HOSTS.
"""

import argparse
import difflib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import timm
from torch.hub import HASH_REGEX

from timm_3g.checkpoints import (
    CONFIG,
    GOLDEN,
    NETWORK_ERRORS,
    WEIGHTS,
    arriving_file,
    check_name_digits,
    explain,
    fetched_file,
    fetched_folder,
    is_ours,
    sha256_of,
)
from timm_3g.publishing.folder import check_folder
from timm_3g.utils.download import download
from timm_3g.utils.files import require_writable_folder
from timm_3g.utils.lock import locked

from .export import export

EXAMPLE = 'timm-3g get resnet50_isqrt.mpncov_2018_in1k'

# Of the authors' files, by key, where somebody has had the file in hand; others are told by the digits in their names alone.
SHA256_OF: dict[str, str] = {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('key', nargs='?', metavar='NAME.TAG', help='which weights')
    parser.add_argument('--list', action='store_true', help='all weights that are known: where they are, under which licence')
    parser.add_argument('--from', dest='file', type=Path, metavar='FILE', help="the authors' file, where you have it already")


def run(args: argparse.Namespace) -> None:
    """Fetch, or list."""
    if args.list == bool(args.key) or (args.list and args.file):
        raise ValueError('Name one set of weights (timm-3g get NAME.TAG), or ask for all of them (timm-3g get --list).')
    if args.list:
        print(table())
        return
    print(get(args.key, args.file))
    print(f"import timm, timm_3g; timm.create_model('{args.key}', pretrained=True)")


def known_weights() -> dict[str, Any]:
    """timm's pretrained_cfg of every key of this package that stands for weights somewhere."""
    cfgs = {key: timm.get_pretrained_cfg(key) for key in timm.list_models(include_tags=True) if is_ours(key)}
    return {key: cfg for key, cfg in cfgs.items() if cfg.has_weights or cfg.origin_url}


def table() -> str:
    """A line a key: where its weights are now, their licence, where their authors have them."""
    rows = [('weights', 'where they are', 'licence', "their authors' file")]
    for key, cfg in known_weights().items():
        rows.append((key, _state(key, cfg), cfg.license or 'unknown', cfg.origin_url or ''))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return '\n'.join('  '.join([*(f'{row[i]:{widths[i]}}' for i in range(3)), row[3]]).rstrip() for row in rows)


def _state(key: str, cfg: Any) -> str:
    if cfg.file:
        return 'in the package'
    if fetched_file(key):
        return 'fetched'
    return f'not here: {cfg.hf_hub_id} on the Hub, if published' if cfg.hf_hub_id else 'not here: timm-3g get'


def get(key: str, file: Path | None = None) -> str:
    """Fetch the weights `key`, or take them from `file`; check, convert, and keep them in the cache. One process at a time.

    What is there and whole is not fetched again; what is there and damaged is replaced, and other files beside it stay. An
    interrupted download is resumed.

    Returns:
        What was done, in words.

    Raises:
        ValueError: unknown key; or a file that is not these weights, or not the one that its name says.
        FileNotFoundError: no such file.
        OSError: the authors' server does not give the file; or the cache cannot be written.
    """
    known = known_weights()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3) or known
        raise ValueError(f'{key!r} is none of the weights known here. Did you mean {", ".join(near)}? All: timm-3g get --list.')
    cfg = known[key]
    if cfg.file:
        return f'{key} is in the package; there is nothing to fetch.'
    folder = fetched_folder(key)
    if file:
        check_name_digits(file)
    require_writable_folder(Path(os.path.realpath(folder)).parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if folder.exists() and any(folder.iterdir()) and not file:
            try:
                check_folder(folder)
                return f'{folder} has them already.'
            except (ValueError, OSError) as error:
                print(f'timm-3g get: fetching {key} again, since what is here is damaged: {error}', file=sys.stderr)
        source = file or fetch(key, cfg)
        _convert(key, source, cfg.num_classes, folder, keep=bool(file))
    licence = f'licence: {cfg.license}' if cfg.license != 'unknown' else 'their authors have granted no licence'
    return f'{folder}: {key}, checked and converted ({licence}).'


def _convert(key: str, source: Path, num_classes: int, folder: Path, keep: bool) -> None:
    """Write the cached folder. Files of the user's beside the weights stay, and so does a link in the folder's place.

    Args:
        keep: the source is the user's. Else it is deleted, except where the disk is at fault and not the file.
    """
    target = Path(os.path.realpath(folder))
    # In the folder that is there, which may be on another disk than its parent; else beside it.
    fresh = target / '.timm_3g.new' if target.is_dir() else target.with_name(f'{key}.new')
    shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed
    try:
        export(source, key, num_classes, fresh, with_card=False)
    except OSError:
        raise
    except Exception as error:  # whatever a file that is something else makes the readers raise
        page = _page(source)
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


def fetch(key: str, cfg: Any) -> Path:
    """The authors' file, as it is.

    Raises:
        OSError: it does not come, and what else one can do; or its sha256 does not begin as its name says.
    """
    url = cfg.origin_url
    output = arriving_file(key)
    require_writable_folder(output.parent)
    output.parent.mkdir(parents=True, exist_ok=True)
    print(f'timm-3g get: {url}', file=sys.stderr)
    try:
        HOSTS.get(urlsplit(url).hostname or '', _from_url)(url, output)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # gdown's own, those of its and of the Hub's HTTP library: they share no base
        reason = explain(error) if isinstance(error, NETWORK_ERRORS) else ' '.join(str(error).split())
        arrived = any(part.stat().st_size for part in output.parent.glob(f'{key}.p*'))
        kept = 'What has arrived is kept, and the same command goes on from there. ' if arrived else ''
        raise OSError(
            f'{url}, the file of {key}, cannot be fetched: {type(error).__name__}: {reason}. {kept}{" ".join(cfg.notes or ())} '
            f'If you have it: `timm-3g get {key} --from FILE`.'
        ) from error
    _require_named(url, output, SHA256_OF.get(key, ''))
    return output


def _require_named(url: str, output: Path, sha256: str) -> None:
    """Delete the file and raise OSError unless it has the sha256 that is known, or begins as its name says."""
    named = HASH_REGEX.search(_name_of(url))
    stated = sha256 or (named[1] if named else '')
    if not sha256_of(output).startswith(stated):
        said, page = 'is known' if sha256 else 'its name says', _page(output)
        output.unlink()
        raise OSError(f'{url} gave another file than {said} (sha256 {stated}...){page}. It was deleted; try again.')


def _page(file: Path) -> str:
    """What to add to a message where a server has answered with a page in place of a file; else ''."""
    with open(file, 'rb') as stream:
        start = stream.read(1000).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    return ': it is an HTML page' if start.startswith((b'<!doctype html', b'<html', b'<head', b'<?xml')) else ''


def _name_of(url: str) -> str:
    return Path(urlsplit(url).path).name


def _from_url(url: str, output: Path) -> None:
    """A plain address; resumes what an earlier call left, if it is of the same version."""
    if not output.exists():
        download(url, output, checked=bool(HASH_REGEX.search(_name_of(url))))


def _from_drive(url: str, output: Path) -> None:
    """Google Drive, whose large files answer with a page first, by gdown: progress bar; resumes what an earlier call left."""
    import gdown  # an extra

    (file_id,) = parse_qs(urlsplit(url).query)['id']
    how: dict[str, Any] = {'id': file_id, 'output': str(output), 'resume': True, 'use_cookies': False, 'timeout': 60}
    try:
        gdown.download(**how)
    except Exception as error:
        parts = list(output.parent.glob(f'{output.name}*.part'))
        if 'byte range' not in str(error) or not parts:
            raise
        for part in parts:  # Drive does not go on from there: start over
            part.unlink()
        gdown.download(**how)


HOSTS: dict[str, Callable[[str, Path], None]] = {'drive.google.com': _from_drive}
