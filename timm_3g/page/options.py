"""What the page shows, and to whom."""

from collections.abc import Sequence
from dataclasses import dataclass

from timm_3g.utils.options import OptionError, require_at_least

SHIPPED = 'resnet10_mini_3g.open_cifar10'
LOCAL = ('127.0.0.1', 'localhost', '::1')


@dataclass(frozen=True)
class PageOptions:
    """The options of `page`.

    Attributes:
        models: what visitors can choose, the first is chosen at the start. Each is a name that timm.create_model takes and that
            stands for weights (`resnet10_mini_3g.open_cifar10`, `local-dir:DIR`, `hf-hub:ORG/NAME.TAG`), or ARCH=FILE: an
            architecture and a weights file. Visitors can load nothing else.
        device: None for CUDA where there is a GPU, else the CPU.
        host: address to listen on. 127.0.0.1 lets in this machine alone.
        port: None for the first free one from 7860.
        share: ask Gradio for a public address.
        queue: visitors that may wait. The next ones are told to come back.
        megapixels: of an image at most, up to 89, where Pillow warns. Larger ones are refused before they are decoded.
        megabytes: of an uploaded file at most. All uploads together have at most `files` times as much.
        files: of one batch at most.

    Raises:
        ValueError: no model, one twice, or a number out of range.

    >>> PageOptions().models
    ('resnet10_mini_3g.open_cifar10',)
    >>> PageOptions(models=['resnet10_mini_3g.open_cifar10'] * 2)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: models must name each model once, at least one; got resnet10_mini_3g.open_cifar10 twice.
    """

    models: Sequence[str] = (SHIPPED,)
    device: str | None = None
    host: str = '127.0.0.1'
    port: int | None = None
    share: bool = False
    queue: int = 16
    megapixels: int = 50
    megabytes: int = 30
    files: int = 64

    def __post_init__(self) -> None:
        twice = [name for name in self.models if list(self.models).count(name) > 1]
        if twice or not self.models:
            got = f'{twice[0]} twice' if twice else 'none'
            raise OptionError('models', f'must name each model once, at least one; got {got}.')
        require_at_least(1, queue=self.queue, megapixels=self.megapixels, megabytes=self.megabytes, files=self.files)
        if self.megapixels > 89:
            raise OptionError('megapixels', f'must be at most 89, where Pillow warns; got {self.megapixels}.')
        if self.port is not None and not 0 < self.port < 65536:
            raise OptionError('port', f'must be from 1 to 65535; got {self.port}.')

    @property
    def is_open(self) -> bool:
        """Whether other machines can reach the page."""
        return self.share or self.host not in LOCAL
