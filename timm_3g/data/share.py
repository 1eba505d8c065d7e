"""A data set divided among processes, for an evaluation in which every image counts once.

timm's sampler and its streaming readers repeat images until all processes have equally many. Here process `rank` of `world`
takes the items rank, rank + world, and so on, none of them twice.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from timm.data import IterableImageDataset
from torch.utils.data import Dataset


class Share(Dataset):
    """Every world-th item of a data set, starting with item rank. Setting `transform` sets that of the data set.

    >>> list(Share(['a', 'b', 'c', 'd', 'e'], rank=1, world=2))
    ['b', 'd']
    """

    def __init__(self, dataset: Any, rank: int, world: int) -> None:
        self.dataset, self.indices = dataset, range(rank, len(dataset), world)

    @property
    def transform(self) -> Any:
        """That of the data set."""
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[self.indices[i]]


class ShareReader:
    """Every world-th sample of one of timm's streaming readers in a loader's worker.

    The streams of all processes must be equal: the same number of workers, no shuffling.

    >>> list(ShareReader(['a', 'b', 'c', 'd', 'e'], rank=1, world=2))
    ['b', 'd']
    """

    def __init__(self, reader: Any, rank: int, world: int) -> None:
        self.reader, self.rank, self.world = reader, rank, world
        # With a process group, the readers divide by rank themselves, and pad.
        for name, alone in (('dist_rank', 0), ('dist_num_replicas', 1)):
            if hasattr(reader, name):
                setattr(reader, name, alone)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.reader), self.rank, None, self.world)

    def __len__(self) -> int:
        return -(-(len(self.reader) - self.rank) // self.world)

    def __getattr__(self, name: str) -> Any:
        if name == 'reader':  # not yet set: a copy is being unpickled in a worker
            raise AttributeError(name)
        return getattr(self.reader, name)


def share(dataset: Any, rank: int, world: int) -> Any:
    """The share of one process of any data set of timm. The data set itself if world is 1.

    >>> [len(share(range(5), rank, 2)) for rank in (0, 1)]
    [3, 2]
    """
    if world == 1:
        return dataset
    if isinstance(dataset, IterableImageDataset):
        dataset.reader = ShareReader(dataset.reader, rank, world)
        return dataset
    return Share(dataset, rank, world)
