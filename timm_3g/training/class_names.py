"""The class names of the data that train.py learns from, kept beside its checkpoints."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm.data
import timm.utils

from timm_3g.data import CLASS_NAMES
from timm_3g.utils.files import write_text


@contextmanager
def kept_class_names() -> Iterator[None]:
    """While it lasts, a run of train.py writes CLASS_NAMES into its folder: one name a line, in the order of the index.

    train.py stays as it is. It takes two names of timm's when it starts: the function that makes its data sets, which knows
    the classes, and the class that saves its checkpoints, which knows the folder and is made in the first process alone.
    Data without names of its own leaves no file.
    """
    create_dataset, saver = timm.data.create_dataset, timm.utils.CheckpointSaver
    names: list[str] = []

    def create(*args: Any, **kwargs: Any) -> Any:
        dataset = create_dataset(*args, **kwargs)
        if kwargs.get('is_training'):
            names[:] = _names_of(dataset)
        return dataset

    class Saver(saver):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if names and self.checkpoint_dir:
                write_text(Path(self.checkpoint_dir, CLASS_NAMES), ''.join(f'{name}\n' for name in names))

    timm.data.create_dataset, timm.utils.CheckpointSaver = create, Saver
    try:
        yield
    finally:
        timm.data.create_dataset, timm.utils.CheckpointSaver = create_dataset, saver


def _names_of(dataset: Any) -> list[str]:
    """By index; [] where the data set has none that a text file of lines can keep, each index once."""
    class_to_idx = getattr(getattr(dataset, 'reader', dataset), 'class_to_idx', None) or {}
    names = sorted(class_to_idx, key=class_to_idx.__getitem__)
    each_once = sorted(class_to_idx.values()) == list(range(len(names)))
    kept = all(isinstance(name, str) and name and [name] == name.strip().splitlines() for name in names)
    return names if each_once and kept else []
