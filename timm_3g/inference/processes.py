"""The processes of one evaluation: those that torchrun started, or this one alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from timm.utils.distributed import init_distributed_device_so

from timm_3g.utils.launched import number_of_processes


class Processes(NamedTuple):
    """This process among those of one evaluation, and its device."""

    rank: int
    world: int
    device: torch.device


@contextmanager
def joined(device: torch.device) -> Iterator[Processes]:
    """Join the processes that torchrun started, for as long as the context lasts. A process group that exists is used as it is.

    Args:
        device: its type is kept. Under torchrun, each process on a GPU gets the GPU of its local rank.

    >>> with joined(torch.device('cpu')) as processes:
    ...     processes
    Processes(rank=0, world=1, device=device(type='cpu'))
    """
    if torch.distributed.is_initialized():
        yield Processes(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)
    elif number_of_processes() > 1:
        try:
            found = init_distributed_device_so(str(device))
            yield Processes(found['global_rank'], found['world_size'], torch.device(found['device']))
        finally:
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
    else:
        yield Processes(0, 1, device)
