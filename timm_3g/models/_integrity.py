"""Is a file what was published? Its sha256 against config.json's beside it, or the Hub's; before timm reads it."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from torch.hub import HASH_REGEX

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
SHA256 = 'sha256'  # of WEIGHTS: a key of config.json's top level, where timm ignores what it does not know

_BLOB = re.compile(r'[0-9a-f]{64}')  # how the Hub's cache names what Git LFS or Xet stores: by its sha256


def sha256_of(file: str | Path) -> str:
    """Of the bytes of the file, as 64 lower-case hex digits."""
    digest = hashlib.sha256()
    with open(file, 'rb') as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_config(file: Path) -> dict[str, Any]:
    """config.json in the folder of `file`, or {} where there is none.

    Raises:
        ValueError: it is there and is no JSON object.
    """
    config = file.with_name(CONFIG)
    if not config.is_file():
        return {}
    try:
        content = json.loads(config.read_text(encoding='utf-8'))
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise ValueError(f'{config} beside the weights is no config.json of timm: {error}. Mend it or move it.') from error
    if not isinstance(content, dict):
        raise ValueError(f'{config} beside the weights is no config.json of timm: not a JSON object. Mend it or move it.')
    return content


def expected_sha256(file: Path) -> tuple[str, str, str]:
    """(sha256 that the file should have, who says so, what to do if it has another); ('', '', '') where nobody does."""
    stated = read_config(file).get(SHA256) if file.name == WEIGHTS else None
    # One step only: the blob may itself be a link into a store with other names.
    blob = os.path.basename(os.readlink(file)) if file.is_symlink() else ''
    if _BLOB.fullmatch(blob):
        again = f'Delete {str(file.resolve())!r} and load again.'
        return (str(stated), f'{CONFIG} beside it', again) if stated else (blob, 'the name that the Hub gave it', again)
    if stated:
        return str(stated), f'{CONFIG} beside it', 'Fetch or export it anew.'
    return '', '', ''


def check_integrity(file: Path) -> None:
    """Raise ValueError if the sha256 of the file is known and is another one: bytes flipped, cut off or exchanged."""
    expected, source, remedy = expected_sha256(file)
    if not expected or not file.is_file():
        return
    found = sha256_of(file)
    if found != expected:
        raise ValueError(
            f'{str(file)!r} is not the published file: its sha256 is {found}, and {source} says {expected}. {remedy}'
        )


def check_name_digits(file: Path, name: str = '') -> None:
    """Raise ValueError where a name states the first digits of a sha256 (torch hub's NAME-<8 hex>.pth) and the file has others.

    To be called before the file is opened as anything but bytes.

    Args:
        name: the name that counts; '' for the file's own.
    """
    named = HASH_REGEX.search(name or file.name)
    if named and file.is_file() and not sha256_of(file).startswith(named[1]):
        raise ValueError(
            f'{str(file)!r} is not the file {name or file.name!r}, whose sha256 begins with {named[1]}: its own is '
            f'{sha256_of(file)}. It is damaged, or another file under this name. Fetch it again, or rename it.'
        )
