"""The models that visitors can choose: a list fixed at the start, each in memory once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from timm.data import create_transform
from torch import nn

from timm_3g.inference import ModelOptions
from timm_3g.inference.data_config import data_config
from timm_3g.inference.model import load_model
from timm_3g.models.loading import class_names, require_classifier, require_model


@dataclass(frozen=True, eq=False)
class ShelfModel:
    """A model that is ready to look at photographs.

    Attributes:
        name: what visitors call it.
        net: in eval mode, on its device.
        options: where it computes.
        config: how its images are prepared, see `data_config`.
        classes: a name for each class, each once.
        transform: from a PIL image to a tensor.
        lock: held while the network runs: what records its maps is attached to it.
    """

    name: str
    net: nn.Module
    options: ModelOptions
    config: dict[str, Any]
    classes: tuple[str, ...]
    transform: Any
    lock: Lock = field(default_factory=Lock)


class Shelf:
    """Models by name. Each is loaded when it is first asked for.

    Args:
        names: see `PageOptions.models`.
        device: see `PageOptions.device`.

    Raises:
        ValueError: a name that timm does not know.

    >>> shelf = Shelf(['resnet10_mini_3g.cifar10'], device='cpu')
    >>> shelf.get('resnet10_mini_3g.cifar10').classes[3]
    'cat'
    >>> shelf.get('local-dir:/etc')
    Traceback (most recent call last):
    ValueError: This page has no model 'local-dir:/etc'. It has resnet10_mini_3g.cifar10.
    """

    def __init__(self, names: Sequence[str], device: str | None = None) -> None:
        for name in names:
            require_model(name.partition('=')[0])
        self.names = tuple(names)
        self.device = device
        self._loaded: dict[str, ShelfModel] = {}
        self._lock = Lock()

    def get(self, name: str) -> ShelfModel:
        """The model of that name.

        Raises:
            ValueError: it is not on the list.
            FileNotFoundError, ValueError, RuntimeError: it has no weights that could be loaded, or no classifier.
        """
        if name not in self.names:
            raise ValueError(f'This page has no model {name!r:.80}. It has {", ".join(self.names)}.')
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = _load(name, self.device)
            return self._loaded[name]


def _load(name: str, device: str | None) -> ShelfModel:
    arch, _, file = name.partition('=')
    options = ModelOptions(arch, checkpoint=file or None, device=device, workers=0)
    net = load_model(options)
    require_classifier(net)
    config = data_config(options, net)
    transform = create_transform(**config, is_training=False)
    return ShelfModel(name, net, options, config, _distinct(class_names(net)), transform)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names, with the index of the class where a name is there twice: ImageNet has two cranes."""
    names = list(names)
    return tuple(name if names.count(name) == 1 else f'{name} ({index})' for index, name in enumerate(names))
