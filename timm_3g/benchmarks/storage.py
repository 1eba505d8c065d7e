"""What a computation keeps in memory."""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .timing import synchronize

MIB = 2**20


def kept_bytes(call: Callable[[], object], apart_from: Sequence[Tensor] = ()) -> int:
    """Bytes that the autograd graph of what `call` returns holds: storages whole, each once, those of `apart_from` left out.

    >>> x = torch.ones(10, 10, requires_grad=True)
    >>> kept_bytes(x.exp), kept_bytes(lambda: x + 1)
    (400, 0)
    """
    saved: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        held = tensor.detach()  # an object that the graph alone keeps: what it gives up before the end is not counted
        saved.append(weakref.ref(held))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    storages = [tensor.untyped_storage() for ref in saved if (tensor := ref()) is not None]
    del result
    bytes_at = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for tensor in apart_from:
        bytes_at.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(bytes_at.values())


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most that a GPU allocated during `call`, above what was allocated before."""
    call()  # cuBLAS and cuDNN allocate workspaces once
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
