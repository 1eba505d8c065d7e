"""A data set divided among processes so that every image counts once, for evaluation.

timm's sampler and its streaming readers repeat images until all processes have equally many; here process `rank` of `world`
takes the items rank, rank + world, ... and none twice.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from timm.data import IterableImageDataset
from torch.utils.data import Dataset


class Share(Dataset):
    """Every world-th item of a data set, from item rank on. Setting `transform` sets that of the data set itself."""

    def __init__(self, dataset: Any, rank: int, world: int) -> None:
        self.dataset, self.indices = dataset, range(rank, len(dataset), world)

    @property
    def transform(self) -> Any:
        """The data set's own."""
        return self.dataset.transform

    @transform.setter
    def transform(self, transform: Any) -> None:
        self.dataset.transform = transform

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Any:
        return self.dataset[self.indices[i]]


class ShareReader:
    """Every world-th sample that one of timm's streaming readers gives in a loader's worker; the streams must be equal in all
    processes: as many workers, no shuffling."""

    def __init__(self, reader: Any, rank: int, world: int) -> None:
        self.reader, self.rank, self.world = reader, rank, world
        # The readers divide by rank themselves, and pad, as soon as there is a process group.
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
    """The share of one process of any data set that timm makes; the data set itself where world is 1."""
    if world == 1:
        return dataset
    if isinstance(dataset, IterableImageDataset):
        dataset.reader = ShareReader(dataset.reader, rank, world)
        return dataset
    return Share(dataset, rank, world)
