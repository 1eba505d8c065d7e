"""Files on the servers of their authors. To add a host: write a function of an address and an output, and add it to HOSTS."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from torch.hub import HASH_REGEX

from timm_3g.checkpoints import NETWORK_ERRORS, arriving_file, explain, sha256_of
from timm_3g.utils.download import download
from timm_3g.utils.files import require_writable_folder

# SHA-256 of authors' files by key, where it is known. Other files are recognized by the digits in their names alone.
SHA256_OF: dict[str, str] = {}


def fetch(key: str, cfg: Any) -> Path:
    """Download the authors' file of the weights `key`, unchanged.

    Args:
        key: <arch>.<tag>.
        cfg: its pretrained_cfg, which has the address (`origin_url`).

    Raises:
        OSError: the file cannot be fetched, or its sha256 does not start as its name says.
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
    except Exception as error:  # gdown's own, and those of its and the Hub's HTTP libraries: they share no base class
        reason = explain(error) if isinstance(error, NETWORK_ERRORS) else ' '.join(str(error).split())
        arrived = any(part.stat().st_size for part in output.parent.glob(f'{key}.p*'))
        kept = 'What has arrived is kept, and the same command resumes. ' if arrived else ''
        raise OSError(
            f'{url}, the file of {key}, cannot be fetched: {type(error).__name__}: {reason}. {kept}{" ".join(cfg.notes or ())} '
            f'If you have it: `timm-3g get {key} --from FILE`.'
        ) from error
    _require_named(url, output, SHA256_OF.get(key, ''))
    return output


def html_page(file: Path) -> str:
    """An addition to an error message if a server answered with an HTML page instead of a file. Otherwise ''."""
    with open(file, 'rb') as stream:
        start = stream.read(1000).lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    return ': it is an HTML page' if start.startswith((b'<!doctype html', b'<html', b'<head', b'<?xml')) else ''


def _require_named(url: str, output: Path, sha256: str) -> None:
    """Delete the file and raise OSError unless it has the known sha256, or one that starts as its name says."""
    named = HASH_REGEX.search(_name_of(url))
    stated = sha256 or (named[1] if named else '')
    if not sha256_of(output).startswith(stated):
        said, page = 'is known' if sha256 else 'its name says', html_page(output)
        output.unlink()
        raise OSError(f'{url} gave another file than {said} (sha256 {stated}...){page}. It was deleted. Try again.')


def _name_of(url: str) -> str:
    return Path(urlsplit(url).path).name


def _from_url(url: str, output: Path) -> None:
    """From a plain address. Resumes what an earlier call left if the file has not changed."""
    if not output.exists():
        download(url, output, checked=bool(HASH_REGEX.search(_name_of(url))))


def _from_drive(url: str, output: Path) -> None:
    """From Google Drive by gdown, because large files come after an HTML page. Resumes what an earlier call left."""
    import gdown  # an extra

    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled(f'{url} is not requested.')
    (file_id,) = parse_qs(urlsplit(url).query)['id']
    how: dict[str, Any] = {'id': file_id, 'output': str(output), 'resume': True, 'use_cookies': False, 'timeout': 60}
    try:
        gdown.download(**how)
    except Exception as error:
        parts = list(output.parent.glob(f'{output.name}*.part'))
        if 'byte range' not in str(error) or not parts:
            raise
        for part in parts:  # Drive does not resume: start over
            part.unlink()
        gdown.download(**how)


HOSTS: dict[str, Callable[[str, Path], None]] = {'drive.google.com': _from_drive}
