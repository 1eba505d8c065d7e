"""The models that visitors can choose: a list fixed at the start, each in memory once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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
        name: what visitors call it, see `names_of`.
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
        models: see `PageOptions.models`.
        device: see `PageOptions.device`.

    Attributes:
        names: what visitors call them, in the order of `models`.

    Raises:
        ValueError: a model that timm does not know.

    >>> shelf = Shelf(['resnet10_mini_3g.cifar10'], device='cpu')
    >>> shelf.get('resnet10_mini_3g.cifar10').classes[3]
    'cat'
    >>> shelf.get('local-dir:/etc')
    Traceback (most recent call last):
    ValueError: This page has no model 'local-dir:/etc'. It has resnet10_mini_3g.cifar10.
    """

    def __init__(self, models: Sequence[str], device: str | None = None) -> None:
        for model in models:
            require_model(model.partition('=')[0])
        self.names = names_of(models)
        self._models = dict(zip(self.names, models, strict=True))
        self.device = device
        self._loaded: dict[str, ShelfModel] = {}
        self._lock = Lock()

    def get(self, name: str) -> ShelfModel:
        """The model of that name.

        Raises:
            ValueError: it is not on the list.
            FileNotFoundError, ValueError, RuntimeError: it has no weights that could be loaded, or no classifier.
        """
        if name not in self._models:
            raise ValueError(f'This page has no model {name!r:.80}. It has {", ".join(self.names)}.')
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = _load(name, self._models[name], self.device)
            return self._loaded[name]


def names_of(models: Sequence[str]) -> tuple[str, ...]:
    """What visitors call models: without the folders of this machine. Where two would have one name, with a number.

    >>> names_of(['resnet10_mini_3g.cifar10', 'local-dir:/home/ada/birds', 'resnet50_3g=/home/ada/last.pth', 'local-dir:birds'])
    ('resnet10_mini_3g.cifar10', 'birds', 'resnet50_3g (last.pth)', 'birds, 2')
    """
    names: list[str] = []
    for model in models:
        arch, _, file = model.partition('=')
        local = arch.startswith('local-dir:')
        name = f'{arch} ({Path(file).name})' if file else Path(arch.partition(':')[2]).name if local else arch
        taken = sum(other.rpartition(', ')[0] == name or other == name for other in names)
        names.append(f'{name}, {taken + 1}' if taken else name)
    return tuple(names)


def _load(name: str, model: str, device: str | None) -> ShelfModel:
    arch, _, file = model.partition('=')
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
