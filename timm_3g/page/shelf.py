"""The models that visitors can choose: a list fixed at the start, each in memory once."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
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
from timm_3g.utils.files import require_file
from timm_3g.utils.terminal import one_line

LOCAL, HUB = 'local-dir:', 'hf-hub:'


@dataclass(frozen=True, eq=False)
class ShelfModel:
    """A model that is ready to look at photographs.

    Attributes:
        name: what visitors call it, see `names_of`.
        net: in eval mode, on its device.
        options: where it computes.
        config: how its images are prepared, see `data_config`.
        classes: a name for each class, no two alike.
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
    """Models by name. Each is loaded when it is first asked for, while the others can be used.

    Args:
        models: see `PageOptions.models`.
        device: see `PageOptions.device`.

    Attributes:
        names: what visitors call them, in the order of `models`.

    Raises:
        ValueError: a model that timm does not know.
        FileNotFoundError: a file or folder that is not there.

    >>> shelf = Shelf(['resnet10_mini_3g.open_cifar10'], device='cpu')
    >>> shelf.get('resnet10_mini_3g.open_cifar10').classes[3]
    'cat'
    >>> shelf.get('local-dir:/etc')
    Traceback (most recent call last):
    ValueError: This page has no model 'local-dir:/etc'. It has resnet10_mini_3g.open_cifar10.
    """

    def __init__(self, models: Sequence[str], device: str | None = None) -> None:
        for model in models:
            name, file = split_model(model)
            require_model(name)
            if file:
                require_file(Path(file))
            if name.startswith(LOCAL):
                require_file(Path(name.removeprefix(LOCAL), 'config.json'))
        self.names = names_of(models)
        self.device = device
        self._models = dict(zip(self.names, models, strict=True))
        self._locks = {name: Lock() for name in self.names}
        self._loaded: dict[str, ShelfModel] = {}

    def load(self, name: str) -> ShelfModel:
        """The model of that name, for who runs the page.

        Raises:
            ValueError: it is not on the list.
            FileNotFoundError, ValueError, RuntimeError: it has no weights that could be loaded, or no classifier.
        """
        if name not in self._models:
            raise ValueError(f'This page has no model {name!r:.80}. It has {", ".join(self.names)}.')
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = _load(name, self._models[name], self.device)
            return self._loaded[name]

    def get(self, name: str) -> ShelfModel:
        """The model of that name, for visitors: why it could not be loaded goes to stderr, because it may name folders.

        Raises:
            ValueError: it is not on the list, or could not be loaded.
        """
        if name not in self._models:
            return self.load(name)
        try:
            return self.load(name)
        except Exception as error:  # of timm, torch, the Hub's client, or of the file
            print(f'{name}: {one_line(str(error))}', file=sys.stderr)
            raise ValueError(f'The model {name} could not be loaded.') from None


def split_model(model: str) -> tuple[str, str]:
    """The name that timm.create_model takes, and the weights file of ARCH=FILE or ''.

    >>> split_model('resnet50_3g=lr=0.1.pth'), split_model('local-dir:lr=0.1')
    (('resnet50_3g', 'lr=0.1.pth'), ('local-dir:lr=0.1', ''))
    """
    if model.startswith((LOCAL, HUB)):
        return model, ''
    name, _, file = model.partition('=')
    return name, file


def names_of(models: Iterable[str]) -> tuple[str, ...]:
    """What visitors call models, no two alike: without the folders of this machine.

    >>> names_of(['resnet50_3g.orig_in1k', 'local-dir:/home/ada/birds', 'resnet50_3g=/home/ada/last.pth', 'local-dir:birds'])
    ('resnet50_3g.orig_in1k', 'birds', 'resnet50_3g (last.pth)', 'birds, 2')
    """
    names: list[str] = []
    for model in models:
        arch, file = split_model(model)
        name = Path(arch.removeprefix(LOCAL)).resolve().name if arch.startswith(LOCAL) else arch
        names.append(f'{name} ({Path(file).name})' if file else name)
    return distinct(names)


def _load(name: str, model: str, device: str | None) -> ShelfModel:
    arch, file = split_model(model)
    options = ModelOptions(arch, checkpoint=file or None, device=device, workers=0)
    net = load_model(options)
    require_classifier(net)
    config = data_config(options, net)
    transform = create_transform(**config, is_training=False)
    return ShelfModel(name, net, options, config, distinct(class_names(net)), transform)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number where one is there again: ImageNet has two cranes.

    >>> distinct(['crane', 'cat', 'crane', 'crane, 2'])
    ('crane', 'cat', 'crane, 3', 'crane, 2')
    """
    given, used, seen = set(names), set(), Counter[str]()
    result = []
    for name in names:
        seen[name] += 1
        free = name
        while free in used or (seen[name] > 1 and free in given):
            free = f'{name}, {seen[name]}'
            seen[name] += free in used or free in given
        used.add(free)
        result.append(free)
    return tuple(result)
