"""What a study compares: one YAML file, and the runs that it stands for."""

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from timm_3g.data import Corrupt
from timm_3g.utils.yaml_file import read_yaml

from .run import FINAL, FRACTION, GRID, NAME, Run, as_json

# Options of train.py that change how many epochs there are, and the values with which they do not.
LENGTHENING = {'cooldown_epochs': 0, 'lr_cycle_limit': 1}
LONGEST_NAME, LONGEST_SUFFIX = 255, '.starter.lock.tmp'  # of file systems, and of a run's files


@dataclass(frozen=True)
class Study:
    """The content of a study's YAML file.

    Attributes:
        name: of the study, the file's name by default.
        recipe: what all arms share: options of train.py from the YAML file that `recipe` names, then `options`.
        arms: name -> options. The first arm is the one that the others are compared with.
        seeds: of the runs that count.
        axes: option -> values: every arm is run at every combination. `fraction` takes a share of the training images.
        grid: option -> values: the points that are tried for every arm at every combination.
        grid_at: axis -> the value at which the grid is tried, of the axis or another one. The choice serves all values of the
            axis: with {'epochs': 2}, runs of two epochs choose the rate of longer ones.
        grid_seeds: of the runs that serve to choose a point. None of `seeds`.
        test_split: of the data, evaluated once after each run that counts.
        corruptions: of the test images (`timm_3g.data.Corrupt`), each evaluated once after each run that counts.

    Raises:
        ValueError: a name that cannot be that of a file, no arm or seed, a repeated value, a grid without seeds of its own, a
            grid_at without a grid or of no axis, a fraction outside (0, 1], no such corruption, corruptions without a
            test_split, a key that two places set, an option that makes runs longer than epochs, a recipe without model, epochs,
            train_split or val_split.

    >>> recipe = {'model': 'resnet10_mini_3g', 'epochs': 2, 'train_split': 'train', 'val_split': 'holdout'}
    >>> study = Study('poolings', recipe, {'avg': {'gp': 'avg'}, '3g': {'gp': '3g'}}, seeds=[0, 1])
    >>> [run.name for run in study.runs({})]
    ['avg-s0', 'avg-s1', '3g-s0', '3g-s1']
    """

    name: str
    recipe: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    seeds: Sequence[int]
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    grid_seeds: Sequence[int] = ()
    grid_at: Mapping[str, Any] = field(default_factory=dict)
    test_split: str = 'test'
    corruptions: Sequence[str] = ()

    def __post_init__(self) -> None:
        for kind, names in (('name', [self.name]), ('arms', self.arms), ('axes', self.axes), ('grid', self.grid)):
            for name in names:
                if not isinstance(name, str) or not NAME.fullmatch(name):
                    raise ValueError(f'{kind}: a name must be letters, digits and _ . + -; got {name!r:.80}.')
        if not self.arms:
            raise ValueError('arms must name at least one arm.')
        self._require_plain_options()
        lists = [('seeds', self.seeds), ('grid_seeds', self.grid_seeds), ('corruptions', self.corruptions)]
        for kind, values in (*lists, *self.axes.items(), *self.grid.items()):
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise ValueError(f'{kind} must be a list; got {values!r:.80}.')
            may_be_empty = kind in ('grid_seeds', 'corruptions')
            if len({as_json(value) for value in values}) < len(values) or not (values or may_be_empty):
                raise ValueError(f'{kind} must list different values, at least one; got {values!r:.80}.')
        for seed in (*self.seeds, *self.grid_seeds):
            if type(seed) is not int or seed < 0:
                raise ValueError(f'A seed must be an integer of at least 0; got {seed!r:.80}.')
        if bool(self.grid) != bool(self.grid_seeds) or set(self.seeds) & set(self.grid_seeds):
            raise ValueError(
                'A grid needs grid_seeds, none of them in seeds, so that what was chosen is not what is reported; '
                f'got grid over {list(self.grid)}, grid_seeds {list(self.grid_seeds)}, seeds {list(self.seeds)}.'
            )
        for name, options in self.arms.items():
            if not isinstance(options, Mapping):
                raise ValueError(f'The arm {name} must map options of train.py to values; got {options!r:.80}.')
        for key in self.grid_at:
            if key not in self.axes or not self.grid:
                raise ValueError(
                    f'grid_at says where on the axes the grid is tried: {key!r:.80} must be an axis, and the study needs a '
                    f'grid; got axes {list(self.axes)}, grid over {list(self.grid)}.'
                )
        for fraction in (*self.axes.get(FRACTION, ()), *([self.grid_at[FRACTION]] if FRACTION in self.grid_at else [])):
            if isinstance(fraction, bool) or not isinstance(fraction, int | float) or not 0 < fraction <= 1:
                raise ValueError(f'{FRACTION} must be in (0, 1]; got {fraction!r:.80}.')
        if len({Corrupt(name) for name in self.corruptions}) < len(self.corruptions):
            raise ValueError(f'corruptions must list different values; got {list(self.corruptions)!r:.80}.')
        if self.corruptions and not self.test_split:
            raise ValueError('corruptions are of the test images: name a test_split, or leave them out.')
        if not isinstance(self.test_split, str):
            raise ValueError(f"test_split must be the name of a split, or '' for none; got {self.test_split!r:.80}.")
        self._require_distinct_keys()
        self._require_runs()

    def _require_plain_options(self) -> None:
        """Raise ValueError for options that are no names and plain values, which a file of train.py and JSON can hold."""
        of_arms = ((f'The arm {name}', given) for name, given in self.arms.items() if isinstance(given, Mapping))
        of_study = (('axes', self.axes), ('grid', self.grid), ('grid_at', self.grid_at))
        for where, options in (('The recipe', self.recipe), *of_arms, *of_study):
            for key, value in options.items():
                if not isinstance(key, str):
                    raise ValueError(f'{where}: names of options must be text; got {key!r:.80}.')
                try:
                    as_json(value)
                except TypeError as error:
                    raise ValueError(
                        f'{where}: {key} must be text, a number, a list or a mapping; got {value!r:.80}.'
                    ) from error

    def _require_runs(self) -> None:
        """Raise ValueError unless every run says what it must, and has a name of its own."""
        names: set[str] = set()
        for run in self.runs({}):
            for key in ('model', 'epochs', 'train_split', 'val_split'):
                value = run.options.get(key)
                is_right = type(value) is int and value > 0 if key == 'epochs' else isinstance(value, str) and value
                if not is_right:
                    rule = 'an integer of at least 1' if key == 'epochs' else 'as text'
                    raise ValueError(f'The recipe must say {key}, {rule}; got {value!r:.80}.')
            for key, plain in LENGTHENING.items():
                if run.options.get(key) not in (None, plain):
                    raise ValueError(
                        f'{key} makes train.py train longer than epochs, so that arms could not be compared; got '
                        f'{run.options[key]!r:.80}. Leave it out.'
                    )
            if len(f'{run.stem}{LONGEST_SUFFIX}'.encode()) > LONGEST_NAME:
                raise ValueError(
                    f'The files of the run {run.name:.80}... would have names of more than {LONGEST_NAME} bytes. Give arms and '
                    f'values of axes and grid shorter names.'
                )
            if run.name in names:
                raise ValueError(
                    f'Two runs would have the name {run.name}. Name values of axes and grid that files tell apart.'
                )
            names.add(run.name)

    def _require_distinct_keys(self) -> None:
        """An option stands in one place, so that no arm escapes what the study varies."""
        varied = [*self.axes, *self.grid, 'seed']
        for name, options in self.arms.items():
            twice = [key for key in options if key in varied]
            if twice:
                raise ValueError(f'{twice[0]} is varied by the study, and cannot be an option of the arm {name}.')
        for place, options in (('axes', self.axes), ('grid', self.grid)):
            if 'seed' in options:
                raise ValueError(f'seed cannot stand in {place}: every arm has the seeds that seeds and grid_seeds list.')
        if FRACTION in self.recipe or any(FRACTION in options for options in self.arms.values()) or FRACTION in self.grid:
            raise ValueError(f'{FRACTION} can only be an axis.')
        both = sorted(set(self.axes) & set(self.grid))
        if both:
            raise ValueError(f'{both[0]} is an axis and in the grid. Leave one out.')

    @cached_property
    def cells(self) -> list[tuple[str, dict[str, Any]]]:
        """Every arm at every combination of the axes."""
        return [(arm, point) for point in _product(self.axes) for arm in self.arms]

    def grid_runs(self, arm: str, axes: Mapping[str, Any]) -> list[Run]:
        """The runs from which the options of one cell are chosen. [] without a grid. With `grid_at`, cells share them."""
        where = {**axes, **self.grid_at}
        return [self._run(GRID, arm, where, point, seed) for point in _product(self.grid) for seed in self.grid_seeds]

    def final_runs(self, arm: str, axes: Mapping[str, Any], choice: Mapping[str, Any]) -> list[Run]:
        """The runs of one cell that count."""
        return [self._run(FINAL, arm, axes, choice, seed) for seed in self.seeds]

    def runs(self, held_out: Mapping[str, float]) -> Iterator[Run]:
        """All runs, those of the grid first. Where it is not complete, final runs have its first point.

        Args:
            held_out: name of a run -> accuracy on the held-out images, of the runs that are done.
        """
        of_grid = (run for arm, axes in self.cells for run in self.grid_runs(arm, axes))
        yield from {run.label: run for run in of_grid}.values()
        for arm, axes in self.cells:
            yield from self.final_runs(arm, axes, self.chosen(arm, axes, held_out) or next(_product(self.grid)))

    def chosen(self, arm: str, axes: Mapping[str, Any], held_out: Mapping[str, float]) -> dict[str, Any] | None:
        """The point of the grid with the highest mean accuracy, the first of equals. None before all its runs are done."""
        tried = self.grid_runs(arm, axes)
        if any(run.name not in held_out for run in tried):
            return None
        points = list(_product(self.grid))
        return max(points, key=lambda point: sum(held_out[run.name] for run in tried if run.choice == point))

    def _run(self, phase: str, arm: str, axes: Mapping[str, Any], choice: Mapping[str, Any], seed: int) -> Run:
        varied = {key: value for key, value in {**axes, **choice}.items() if key != FRACTION}
        options = {**_merged(self.recipe, self.arms[arm], varied), 'seed': seed}
        # The chosen point is not in the name of a run that counts: its cell has one.
        where = {**axes, **(choice if phase == GRID else {})}
        parts = [
            *([GRID] if phase == GRID else []),
            arm,
            *(f'{key}={_short(value)}' for key, value in where.items()),
            f's{seed}',
        ]
        test_split, corruptions = (self.test_split, tuple(self.corruptions)) if phase == FINAL else ('', ())
        return Run('-'.join(parts), phase, arm, dict(axes), dict(choice), seed, options, test_split, corruptions)


def read_study(file: str | Path) -> Study:
    """The study that a YAML file describes.

    Its keys are those of `Study`, and `options`: what all arms share beside the recipe. `recipe` names a YAML file of train.py,
    relative to the study's file; None for no such file.

    Raises:
        OSError: the file or its recipe cannot be read.
        ValueError: not YAML, an unknown or missing key, or what `Study` raises.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'poolings.yaml')
    >>> _ = file.write_text(
    ...     'options: {model: resnet10_mini_3g, epochs: 2, train_split: train, val_split: holdout}\\n'
    ...     'arms: {avg: {gp: avg}, 3g: {gp: 3g}}\\n'
    ...     'seeds: [0, 1, 2]\\n'
    ... )
    >>> study = read_study(file)
    >>> study.name, len(list(study.runs({})))
    ('poolings', 6)
    """
    file = Path(file)
    content = _mapping(file)
    known = {one.name for one in fields(Study)} | {'options'}
    for key in content:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1)
            hint = f'Nearest: {nearest[0]}.' if nearest else f'Keys: {", ".join(sorted(known))}.'
            raise ValueError(f'{file}: unknown key {key!r:.80}. {hint}')
    for key in ('arms', 'seeds'):
        if key not in content:
            raise ValueError(f'{file} must have {key}.')
    for key in ('arms', 'axes', 'grid', 'grid_at', 'options'):
        if not isinstance(content.get(key, {}), Mapping):
            raise ValueError(f'{file}: {key} must map names to values; got {content[key]!r:.80}.')
    recipe, options = content.pop('recipe', None), content.pop('options', {})
    if not isinstance(recipe, str | None):
        raise ValueError(f'{file}: recipe must name a YAML file; got {recipe!r:.80}.')
    if content.get('test_split', '') is None:  # a key without a value
        content['test_split'] = ''
    shared = _mapping(file.parent / recipe) if recipe else {}
    named = content.get('name')
    content['name'] = file.stem if named is None else str(named)  # YAML reads 2024 as a number
    given_arms = content.pop('arms')
    arms = {str(arm): {} if given is None else given for arm, given in given_arms.items()}
    if len(arms) < len(given_arms):
        raise ValueError(f'{file}: two arms have one name; got {", ".join(map(repr, given_arms)):.200}.')
    try:
        return Study(**{**content, 'recipe': _merged(shared, options), 'arms': arms})
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error


def _mapping(file: Path) -> dict[str, Any]:
    content = read_yaml(file)
    if not isinstance(content, dict):
        raise ValueError(f'{file} must map names to values; it holds {type(content).__name__}.')
    return content


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers override. Mappings (model_kwargs, opt_kwargs) are joined key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            joined = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
            merged[key] = {**merged[key], **value} if joined else value
    return merged


def _product(values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination. One empty combination without values."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _short(value: Any) -> str:
    """A value in the name of a file."""
    text = value if isinstance(value, str) else as_json(value)
    return re.sub(r'[^A-Za-z0-9_.+]+', '_', text)
