"""The files of a commit to the Hub: the bytes that were checked, and whether a commit has others."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd

from timm_3g.checkpoints import CONFIG, GOLDEN, SHA256, WEIGHTS

from .folder import check_folder, require_exported, require_own_files


def checked_files(folder: Path) -> list[CommitOperationAdd]:
    """All files of a folder but the card, checked, and as they are sent.

    Raises:
        ValueError, OSError: see `require_own_files` and `check_folder`; or a file has changed meanwhile.
    """
    require_own_files(folder)
    require_exported(folder)
    small = {name: (folder / name).read_bytes() for name in (CONFIG, GOLDEN)}
    check_folder(folder)
    weights = CommitOperationAdd(WEIGHTS, folder / WEIGHTS)  # whose sha256 the Hub compares with what arrives
    same = {name: (folder / name).read_bytes() == content for name, content in small.items()}
    same[WEIGHTS] = weights.upload_info.sha256.hex() == json.loads(small[CONFIG])[SHA256]
    for name in (name for name in same if not same[name]):
        raise ValueError(f'{folder / name} was changed while it was checked; nothing was pushed. Run the command again.')
    return [weights, *(CommitOperationAdd(name, content) for name, content in small.items())]


def differs(api: Any, repo: str, commit: str, files: Sequence[CommitOperationAdd]) -> bool:
    """Whether the files at a commit are others than these: by sha256 where Git LFS keeps them, else by Git's own hash."""
    there = {file.path: file for file in api.get_paths_info(repo, [file.path_in_repo for file in files], revision=commit)}
    for file in files:
        found = there.get(file.path_in_repo)
        if found is None or (found.lfs.sha256 if found.lfs else found.blob_id) != _digest(file, bool(found.lfs)):
            return True
    return False


def _digest(file: CommitOperationAdd, lfs: bool) -> str:
    if lfs:
        return file.upload_info.sha256.hex()
    with file.as_file() as stream:
        data = stream.read()
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()
