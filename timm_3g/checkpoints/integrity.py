"""Verify a weights file's SHA-256 against config.json, the Hub's cache, or the digits in its name."""

import hashlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor
from torch.hub import HASH_REGEX

if TYPE_CHECKING:
    from .record import Record

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
SHA256 = 'sha256'  # of WEIGHTS: a key of config.json's top level, where timm ignores what it does not know

_BLOB = re.compile(r'[0-9a-f]{64}')  # how the Hub's cache names what Git LFS or Xet stores: by its SHA-256
_BLOCK = 1 << 24  # bytes that are read and hashed at a time


def read_config(file: Path) -> dict[str, Any]:
    """config.json in the folder of `file`. {} where there is none.

    Raises:
        ValueError: it is not a JSON object.
    """
    config = file.with_name(CONFIG)
    if not config.is_file():
        return {}
    try:
        content = json.loads(config.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError, too
        raise ValueError(f'{config} beside the weights is not a valid timm config.json: {error}. Fix or move it.') from error
    if not isinstance(content, dict):
        raise ValueError(f'{config} beside the weights is not a valid timm config.json: not a JSON object. Fix or move it.')
    return content


def sha256_of(file: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 lower-case hex digits.

    >>> import os
    >>> sha256_of(os.devnull)[:8]
    'e3b0c442'
    """
    with open(file, 'rb') as stream:
        return hash_stream(stream)


def hash_stream(stream: BinaryIO) -> str:
    """SHA-256 of an open file from its beginning. The position is put back to the beginning."""
    digest = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(_BLOCK):
        digest.update(block)
    stream.seek(0)
    return digest.hexdigest()


def read_and_hash(stream: BinaryIO, start: bytes) -> tuple[Tensor, str]:
    """The content of an open file as bytes (uint8), and its SHA-256, in one pass.

    Args:
        start: bytes that were already read from the beginning.
    """
    content = torch.empty(max(os.fstat(stream.fileno()).st_size, len(start)), dtype=torch.uint8)
    digest, position = hashlib.sha256(start), len(start)
    with memoryview(content.numpy()) as view:  # type: ignore[arg-type]
        view[:position] = start
        while number := stream.readinto(view[position : position + _BLOCK]):  # type: ignore[attr-defined]
            digest.update(view[position : position + number])
            position += number
    return content[:position], digest.hexdigest()  # shorter, if the file has become so


def stated_sha256(record: 'Record') -> str:
    """What config.json says of the weights beside it. '' where it says nothing of them.

    Raises:
        ValueError: not a SHA-256.
    """
    if record.file.name != WEIGHTS or SHA256 not in record.config or record.is_carried_along:
        return ''
    stated = record.config[SHA256]
    if not isinstance(stated, str) or not _BLOB.fullmatch(stated):
        raise ValueError(
            f'{SHA256} in {CONFIG} beside {str(record.file)!r} must be 64 hex digits in lower case; got {stated!r:.80}. '
            f'Fetch or export both again.'
        )
    return stated


def expected_sha256(record: 'Record') -> tuple[str, str, str]:
    """(SHA-256 that the file should have, who says so, what to do if it has another). ('', '', '') where nobody says."""
    file, stated = record.file, stated_sha256(record)
    # One step only: the blob may itself be a link into a store with other names.
    blob = os.path.basename(os.readlink(file)) if file.is_symlink() else ''
    if _BLOB.fullmatch(blob):
        again = f'Delete {str(file.resolve())!r} and load again.'
        return (stated, f'{CONFIG} beside it', again) if stated else (blob, 'the name that the Hub gave it', again)
    return (stated, f'{CONFIG} beside it', 'Fetch or export it again.') if stated else ('', '', '')


def check_sha256(record: 'Record', expected: tuple[str, str, str], found: str) -> None:
    """Raise ValueError if a file's SHA-256 is known and is another one: bytes flipped, cut off or exchanged.

    What counts is config.json beside it, the name in the Hub's cache, and the digits in the name of a file of `KNOWN_FILES`.

    Args:
        expected: from `expected_sha256`.
        found: SHA-256 of the file.
    """
    sha256, source, remedy = expected
    if sha256 and found != sha256:
        raise ValueError(
            f'{str(record.file)!r} is not the published file: its sha256 is {found}, and {source} says {sha256}. {remedy}'
        )
    if record.known_file:  # of these alone: the digits in another name may be a date
        check_digits(record.file, record.file.name, found)


def check_name_digits(file: Path) -> None:
    """Raise ValueError where a file's name states first digits of a SHA-256 (torch hub's NAME-<8 hex>.pth) that it has not.

    To be called before the file is opened as anything but bytes. Nothing happens where there is no such file.

    >>> check_name_digits(Path('resnet50-0676ba61.pth'))
    """
    if file.is_file():
        check_digits(file, file.name, sha256_of(file))


def check_digits(file: Path, name: str, found: str) -> None:
    """Raise ValueError where `name` states other first digits than those of the SHA-256 `found` of `file`."""
    named = HASH_REGEX.search(name)
    if named and len(named[1]) >= 8 and not found.startswith(named[1]):
        raise ValueError(
            f'{str(file)!r} is not the file {name!r}, whose sha256 begins with {named[1]}: its own is {found}. It is damaged, '
            f'or another file under this name. Fetch it again, or rename it.'
        )
