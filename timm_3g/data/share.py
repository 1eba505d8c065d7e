"""A data set divided among processes, for an evaluation in which every image counts once.

timm's sampler and its streaming readers repeat images until all processes have equally many. Here process `rank` of `world`
takes the items rank, rank + world, and so on, none of them twice. In place of an image that cannot be read, timm takes the next
one, with that one's label, or in a stream none. Here it is an error.
"""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

from PIL import Image
from timm.data import ImageDataset, IterableImageDataset
from torch.utils.data import Dataset

from timm_3g.compat import is_unreadable, read_once, set_up_stream
from timm_3g.utils.terminal import one_line


class UnreadableImageError(ValueError):
    """An image of a data set cannot be read.

    A DataLoader raises it again with the traceback of its worker as the message. The last line of that is what counts.

    >>> str(UnreadableImageError('Caught an error in a worker.\\nUnreadableImageError: a.png cannot be read.\\n'))
    'a.png cannot be read.'
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rpartition(f'{type(self).__name__}: ')[2])


# What timm raises over an image that it cannot read, and what Pillow raises beside the errors that timm knows.
DAMAGED = (RuntimeError, SyntaxError, Image.DecompressionBombError, zlib.error, struct.error, EOFError)


class Share(Dataset):
    """Every world-th item of a data set, starting with item rank. Setting `transform` sets that of the data set.

    An image of timm's ImageDataset that cannot be read raises UnreadableImageError.

    >>> list(Share(['a', 'b', 'c', 'd', 'e'], rank=1, world=2))
    ['b', 'd']
    """

    def __init__(self, dataset: Any, rank: int, world: int) -> None:
        self.dataset, self.indices = dataset, range(rank, len(dataset), world)
        if isinstance(dataset, ImageDataset):
            read_once(dataset)

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
        index = self.indices[i]
        try:
            return self.dataset[index]
        except DAMAGED as error:
            if not isinstance(self.dataset, ImageDataset) or (isinstance(error, RuntimeError) and not is_unreadable(error)):
                raise
            name = self.dataset.filename(index, absolute=True)
            raise UnreadableImageError(f'{name} cannot be read as an image. Replace or remove it.') from error


def _refuse_sample(error: Exception) -> NoReturn:
    """What a stream calls over a sample that it cannot read."""
    said = one_line(f'{type(error).__name__}: {error}')
    raise UnreadableImageError(f'A sample of the stream cannot be read: {said}. Replace or remove it.') from error


class ShareReader:
    """Every world-th sample of one of timm's streaming readers in a loader's worker. An unreadable one is an error.

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
        set_up_stream(self.reader, _refuse_sample)
        return itertools.islice(iter(self.reader), self.rank, None, self.world)

    def __len__(self) -> int:
        return -(-(len(self.reader) - self.rank) // self.world)

    def __getattr__(self, name: str) -> Any:
        if name == 'reader':  # not yet set: a copy is being unpickled in a worker
            raise AttributeError(name)
        return getattr(self.reader, name)


def share(dataset: Any, rank: int, world: int) -> Any:
    """The share of one process of any data set of timm.

    >>> [len(share(range(5), rank, 2)) for rank in (0, 1)]
    [3, 2]
    """
    if isinstance(dataset, IterableImageDataset):
        dataset.reader = ShareReader(dataset.reader, rank, world)
        return dataset
    return Share(dataset, rank, world)
