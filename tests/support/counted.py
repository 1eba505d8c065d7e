"""A count of what a call does with models and files: the judge of how often data is read.

Files are counted by audit events, which no way of opening a file in Python escapes. The readers and writers of safetensors
are counted by their entry points, because they open files outside Python.
"""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import safetensors.torch
import timm
import torch

_COUNTED = [
    (timm, 'create_model', 'create_model'),
    (torch, 'load', 'torch.load'),
    (safetensors.torch, 'safe_open', 'safetensors read'),
    (safetensors.torch, 'deserialize', 'safetensors read'),
    (safetensors.torch, 'serialize', 'safetensors written'),
    (safetensors.torch, 'serialize_file', 'safetensors written'),
    (hashlib, 'sha256', 'sha256'),
]
_listening: list[Counter] = []


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if event == 'open' and _listening and isinstance(args[0], str):
        written = set(args[1] or '') & set('wax+')
        for counts in _listening:
            counts[f'{os.path.basename(args[0])} {"written" if written else "opened"}'] += 1


sys.addaudithook(_hear)  # for the life of the process; it does nothing outside `counted`


@contextmanager
def counted() -> Iterator[Counter]:
    """What happens inside the block: names of calls, and 'NAME opened' and 'NAME written' of files."""
    counts: Counter = Counter()

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return function(*args, **kwargs)

        return call

    with ExitStack() as stack:
        for module, attribute, name in _COUNTED:
            stack.enter_context(mock.patch.object(module, attribute, counting(name, getattr(module, attribute))))
        _listening.append(counts)
        stack.callback(_listening.remove, counts)
        yield counts
