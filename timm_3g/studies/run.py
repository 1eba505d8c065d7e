"""One run of a study: what is trained, and what tells it from other runs."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

FRACTION = 'fraction'  # the one axis that is not an option of train.py: the share of the training images
NAME = re.compile(r'[A-Za-z0-9][A-Za-z0-9_.+-]*')  # of a study, an arm or an axis: it becomes that of a file
GRID = 'grid'
FINAL = 'final'


@dataclass(frozen=True)
class Run:
    """One training, and what is evaluated after it.

    Attributes:
        name: for people. Two runs of a study have two.
        phase: 'grid' if it serves to choose the arm's options, 'final' if it counts.
        arm: name of the arm.
        axes: where it stands on the axes of the study, e.g. {'epochs': 7}.
        choice: the point of the grid, e.g. {'lr': 0.01}.
        seed: of the run.
        options: everything that train.py is given, except the data, the output and `fraction`.
        test_split: evaluated once, after training. '' for a run of the grid.
        corruptions: of the test images (`timm_3g.data.Corrupt`), each evaluated once, too.

    >>> run = Run('3g-s0', 'final', '3g', {}, {}, 0, {'model': 'resnet10_mini_3g', 'epochs': 2, 'seed': 0})
    >>> run.sha256[:12]
    '68b3a913605e'
    """

    name: str
    phase: str
    arm: str
    axes: Mapping[str, Any]
    choice: Mapping[str, Any]
    seed: int
    options: Mapping[str, Any]
    test_split: str = ''
    corruptions: tuple[str, ...] = ()

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return int(self.options['epochs'])

    @property
    def fraction(self) -> float:
        """The share of the training images, in (0, 1]."""
        return float(self.axes.get(FRACTION, 1.0))

    @property
    def label(self) -> tuple[str, ...]:
        """What tells a run of a study from the others. A row of the same label with another sha256 is from another recipe."""
        choice = as_json(self.choice) if self.phase == GRID else ''  # a cell has one
        return (self.phase, self.arm, as_json(self.axes), choice, str(self.seed))

    @property
    def sha256(self) -> str:
        """Of what determines the result: the options, the share of the images, the test split and its corruptions."""
        corruptions = [sorted(self.corruptions)] if self.corruptions else []
        return hashlib.sha256(as_json([dict(self.options), self.fraction, self.test_split, *corruptions]).encode()).hexdigest()

    @property
    def stem(self) -> str:
        """Of the names of its files. A run of other options has other files, so that none resumes from another's checkpoint."""
        return f'{self.name}-{self.sha256[:8]}'


def as_json(value: Any) -> str:
    """A value as JSON in one form."""
    return json.dumps(value, sort_keys=True)
