"""Is a file what was published? Its sha256 against config.json's beside it, or the Hub's; before timm reads it."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, BinaryIO

from torch.hub import HASH_REGEX

from .known_files import known_file

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
SHA256 = 'sha256'  # of WEIGHTS: a key of config.json's top level, where timm ignores what it does not know
STAMP = 'timm_3g'  # key of the safetensors header under which `_read.stamp` is kept
MOST_HEADER = 100_000_000  # bytes; the format's own bound

_BLOB = re.compile(r'[0-9a-f]{64}')  # how the Hub's cache names what Git LFS or Xet stores: by its sha256


def sha256_of(file: str | Path) -> str:
    """Of the bytes of the file, as 64 lower-case hex digits."""
    with open(file, 'rb') as stream:
        return digest_of(stream)


def digest_of(stream: BinaryIO) -> str:
    """sha256 of an open file from its beginning, to which it is put back."""
    digest = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(1 << 20):
        digest.update(block)
    stream.seek(0)
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
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise ValueError(f'{config} beside the weights is no config.json of timm: {error}. Mend it or move it.') from error
    if not isinstance(content, dict):
        raise ValueError(f'{config} beside the weights is no config.json of timm: not a JSON object. Mend it or move it.')
    return content


def header_of(file: Path) -> dict[str, Any]:
    """The metadata in the header of a safetensors file; {} where there is none, or the file is none."""
    try:
        with open(file, 'rb') as stream:
            size = int.from_bytes(stream.read(8), 'little')
            metadata = json.loads(stream.read(min(size, MOST_HEADER))).get('__metadata__')
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


def is_carried_along(file: Path, config: dict[str, Any]) -> bool:
    """Whether the sha256 in config.json is of an older file: transformers has written both anew, and kept the key.

    Our writer leaves its stamp in the header of the weights, and never states a version of transformers. Only where both say
    so is the sha256 not of this file: a stamp that damage has removed stays damage.
    """
    return 'transformers_version' in config and STAMP not in header_of(file)


def stated_sha256(file: Path) -> str:
    """What config.json says of the weights `file` beside it; '' where it says nothing of them.

    Raises:
        ValueError: it says something that is no sha256.
    """
    config = read_config(file)
    if file.name != WEIGHTS or SHA256 not in config or is_carried_along(file, config):
        return ''
    stated = config[SHA256]
    if not isinstance(stated, str) or not _BLOB.fullmatch(stated):
        raise ValueError(
            f'{SHA256} in {CONFIG} beside {str(file)!r} must be 64 hex digits; got {stated!r:.80}. Fetch or export both anew.'
        )
    return stated


def expected_sha256(file: Path) -> tuple[str, str, str]:
    """(sha256 that the file should have, who says so, what to do if it has another); ('', '', '') where nobody does."""
    stated = stated_sha256(file)
    # One step only: the blob may itself be a link into a store with other names.
    blob = os.path.basename(os.readlink(file)) if file.is_symlink() else ''
    if _BLOB.fullmatch(blob):
        again = f'Delete {str(file.resolve())!r} and load again.'
        return (stated, f'{CONFIG} beside it', again) if stated else (blob, 'the name that the Hub gave it', again)
    return (stated, f'{CONFIG} beside it', 'Fetch or export it anew.') if stated else ('', '', '')


def check_integrity(file: Path, stream: BinaryIO | None = None) -> None:
    """Raise ValueError if the sha256 of the file is known and is another one: bytes flipped, cut off or exchanged.

    What counts is config.json beside it, the name in the Hub's cache, and the digits in the name of a file of `KNOWN_FILES`.

    Args:
        stream: the opened file, if it is to be read from there afterwards; read from its beginning, and put back to it.
    """
    if not file.is_file():
        return
    expected, source, remedy = expected_sha256(file)
    if not expected and not known_file(file):
        return
    found = digest_of(stream) if stream else sha256_of(file)
    if expected and found != expected:
        raise ValueError(
            f'{str(file)!r} is not the published file: its sha256 is {found}, and {source} says {expected}. {remedy}'
        )
    if known_file(file):  # of these alone: the digits in another name may be a date
        _compare_digits(file, file.name, found)


def check_name_digits(file: Path, name: str = '') -> None:
    """Raise ValueError where a name states the first digits of a sha256 (torch hub's NAME-<8 hex>.pth) and the file has others.

    To be called before the file is opened as anything but bytes.

    Args:
        name: the name that counts; '' for the file's own.
    """
    if file.is_file():
        _compare_digits(file, name or file.name, sha256_of(file))


def _compare_digits(file: Path, name: str, found: str) -> None:
    named = HASH_REGEX.search(name)
    if named and len(named[1]) >= 8 and not found.startswith(named[1]):
        raise ValueError(
            f'{str(file)!r} is not the file {name!r}, whose sha256 begins with {named[1]}: its own is {found}. It is damaged, '
            f'or another file under this name. Fetch it again, or rename it.'
        )
