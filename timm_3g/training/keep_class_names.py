"""The classes of the data that train.py learns from: they fit the network, number the validation images, and stay on file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm.data
import timm.models
import timm.utils

from timm_3g.data import CLASS_NAMES
from timm_3g.utils.abbreviated import abbreviated
from timm_3g.utils.files import write_text
from timm_3g.utils.launched import is_first_process


@contextmanager
def keep_class_names() -> Iterator[None]:
    """Within this context, a run of train.py writes `class_names.txt` into its folder: one name per line, in index order.

    train.py stays as it is. At its start it takes three names from timm: the function that makes its network, the one that
    makes its data sets, which knows the classes, and the class that saves its checkpoints, which knows the folder and is made
    in the first process only. Data without class names leaves no file. Validation images get the class indices of the
    training images: timm numbers the folders of each split by themselves.

    More classes than the network has outputs are a ValueError when the data set is made. Fewer are a line on stderr.

    >>> before = timm.data.create_dataset
    >>> with keep_class_names():
    ...     timm.data.create_dataset is before
    False
    >>> timm.data.create_dataset is before
    True
    """
    create_model, create_dataset, saver = timm.models.create_model, timm.data.create_dataset, timm.utils.CheckpointSaver
    outputs: list[int] = []  # of the networks, the one that learns first
    names: list[str] = []
    numbers: dict[Any, int] = {}  # of the training images

    def build(*args: Any, **kwargs: Any) -> Any:
        model = create_model(*args, **kwargs)
        outputs.append(model.num_classes)  # every network of timm has it
        return model

    def create(*args: Any, **kwargs: Any) -> Any:
        dataset = create_dataset(*args, **kwargs)
        if kwargs.get('is_training'):
            numbers.clear()
            numbers.update(_numbers_of(dataset))
            names[:] = _names_of(numbers)
            if numbers and outputs:
                _require_outputs(max(numbers.values()) + 1, outputs[0])
            return dataset
        found = _numbers_of(dataset)
        if not numbers or all(numbers.get(name) == index for name, index in found.items()):
            return dataset
        unknown = found.keys() - numbers.keys()
        if unknown:
            raise ValueError(f'Validation images have classes that the training images do not have: {abbreviated(unknown, 8)}.')
        return create_dataset(*args, **{**kwargs, 'class_map': dict(numbers)})

    class Saver(saver):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if names and self.checkpoint_dir:
                write_text(Path(self.checkpoint_dir, CLASS_NAMES), ''.join(f'{name}\n' for name in names))

    timm.models.create_model, timm.data.create_dataset, timm.utils.CheckpointSaver = build, create, Saver
    try:
        yield
    finally:
        timm.models.create_model, timm.data.create_dataset, timm.utils.CheckpointSaver = create_model, create_dataset, saver


def _require_outputs(classes: int, outputs: int) -> None:
    """Raise ValueError if the network has too few outputs for the classes, and say so if it has too many."""
    if classes > outputs:
        raise ValueError(
            f'The training images have {classes} classes, the network has {outputs} outputs. Give --num-classes {classes}.'
        )
    if classes < outputs and is_first_process():
        print(
            f'The network has {outputs} outputs for {classes} classes. --num-classes {classes} leaves out the others.',
            file=sys.stderr,
        )


def _numbers_of(dataset: Any) -> dict[Any, int]:
    """The class indices of a data set by name. {} if it has no names."""
    return getattr(getattr(dataset, 'reader', dataset), 'class_to_idx', None) or {}


def _names_of(numbers: dict[Any, int]) -> list[str]:
    """The class names by index. [] if there are none, if an index is missing, or if a name is not one line of text."""
    names = sorted(numbers, key=numbers.__getitem__)
    each_once = sorted(numbers.values()) == list(range(len(names)))
    kept = all(isinstance(name, str) and name and [name] == name.strip().splitlines() for name in names)
    return names if each_once and kept else []
