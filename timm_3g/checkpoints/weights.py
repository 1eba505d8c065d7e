"""A weights file as a value: read once, hashed once, decoded once, and then carried instead of its path."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from timm_3g.utils.files import require_file

from .decode import load_pickle, metadata_in, read_header, state_dict_in, tensors_in, training_in, unreadable
from .description import description
from .hub import config_of_base
from .integrity import check_sha256, expected_sha256, hash_stream, read_and_hash, read_config
from .record import Record

SAFETENSORS = '.safetensors'


class _Content(NamedTuple):
    sha256: str
    tensors: dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class Weights:
    """The content of a weights file. `open_weights` makes it.

    The attributes `tensors` and `sha256` are there as soon as the file was read in the background, and raise ValueError where
    it is not the published file or cannot be decoded (see `open_weights`). All else is there at once.

    Attributes:
        record: what the file and config.json beside it say, apart from the tensors.

    >>> import timm, timm_3g
    >>> weights = open_weights(timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file)
    >>> weights.description('resnet10_mini_3g')['input_size'], weights.record.function('resnet10_mini_3g')['num_iters']
    ((3, 32, 32), 5)
    """

    record: Record
    _content: Callable[[], _Content] = field(repr=False)

    @property
    def file(self) -> Path:
        """The file that was read."""
        return self.record.file

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, as 64 lower-case hex digits."""
        return self._content().sha256

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state dict on the CPU under the names of the file, without 'module.'. To be read, not to be changed."""
        return self._content().tensors

    def verify(self) -> None:
        """Wait until the file was read.

        Raises:
            ValueError: not the published file, or it cannot be decoded (see `open_weights`).
        """
        self._content()

    def description(self, arch: str) -> dict[str, Any]:
        """Images and labels of the weights, as fields of timm's pretrained_cfg, if they are of the architecture `arch`.

        Raises:
            ValueError: config.json beside the file is invalid.
        """
        return description(self.record, arch)


def open_weights(file: str | Path, use_ema: bool = True, config: Mapping[str, Any] | None = None) -> Weights:
    """Open a .pth, .pth.tar or .safetensors file, hash it and decode it, each once, in one pass over its bytes.

    What is verified is what is decoded: no byte is read twice, and pickled classes are never executed. A safetensors file is
    read by a thread, while the caller builds the model.

    Args:
        use_ema: EMA weights where a checkpoint has both kinds, as timm's pretrained path does.
        config: config.json in the folder of the file, if the caller has read it. None reads it.

    Returns:
        The weights. Their tensors are views of one buffer, which has the size of the file.

    Raises:
        OSError: no such file, or it cannot be read.
        ValueError: config.json beside it is invalid; here or from `tensors` and `sha256`: not the published file (see
            `check_sha256`), truncated, not a state dict of tensors, or in need of pickled classes.

    >>> import timm, timm_3g
    >>> weights = open_weights(timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file)
    >>> weights.sha256[:8], tuple(weights.tensors['fc.weight'].shape), weights.record.key
    ('36551a8a', (10, 2080), 'resnet10_mini_3g.cifar10')
    """
    file = Path(file)
    require_file(file)
    config = read_config(file) if config is None else config
    return (_open_safetensors if file.suffix.lower() == SAFETENSORS else _open_pickle)(file, config, use_ema)


def _open_pickle(file: Path, config: Mapping[str, Any], use_ema: bool) -> Weights:
    """What torch.save wrote. Nothing is known of it before it is decoded, and it is not before it was verified."""
    record = Record(file, {}, config, {})
    expected = expected_sha256(record)
    with open(file, 'rb') as stream:  # one opening, so that the bytes that are verified are those that are decoded
        found = hash_stream(stream)
        check_sha256(record, expected, found)
        try:
            checkpoint = load_pickle(stream)
        except Exception as error:  # whatever torch, pickle and zip raise over a damaged file
            raise unreadable(file, error) from error
    content = _Content(found, state_dict_in(checkpoint, file, use_ema))
    training = training_in(checkpoint, use_ema)
    return Weights(Record(file, {}, config, training, config_of_base(training.get('model'))), lambda: content)


def _open_safetensors(file: Path, config: Mapping[str, Any], use_ema: bool) -> Weights:
    """The header at once, the rest in a thread."""

    def read() -> _Content:
        with stream:
            content, found = read_and_hash(stream, start)
        check_sha256(record, expected, found)
        try:
            tensors = tensors_in(content)
        except Exception as error:  # whatever a damaged header makes the decoder raise
            raise unreadable(file, error) from error
        return _Content(found, state_dict_in(tensors, file, use_ema))

    with ExitStack() as on_error:
        stream = on_error.enter_context(open(file, 'rb'))
        start = read_header(stream)
        record = Record(file, metadata_in(start), config, {})
        expected = expected_sha256(record)
        executor = ThreadPoolExecutor(1)
        future = executor.submit(read)
        on_error.pop_all()  # the thread closes the file
    executor.shutdown(wait=False)
    return Weights(record, future.result)
