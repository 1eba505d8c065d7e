"""The CSV of a study: one row per run that is done. It is complete at any moment, and holds all that a report needs."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from timm_3g.utils.files import write_text

from .run import FINAL, GRID, NAME, Run, as_json


@dataclass(frozen=True)
class Figures:
    """What a run found. The process that trained writes it, as JSON beside the run's folder.

    Attributes:
        sha256: of the run (`Run.sha256`).
        val_images, val_top1, val_top5: held-out images, accuracy in percent.
        test_images, test_top1, test_top5: the same on the test split. None for a run of the grid.
        train_loss: of the last epoch.
        train_images: number of images of the training split, after `fraction`.
        param_count: number of parameters.
        seconds_per_epoch: training and the evaluation of train.py. None if this process had no epoch left to train.
        memory_mib: largest memory of the process in MiB. On a GPU that of the GPU.
        resumed: whether the training went on from a checkpoint.
        device, cpu, threads, torch, timm, timm_3g, commit, date: on what, with what, when. commit is that of the study's
            file, with '+' after it if the repository had other changes.
        corrupted: corruption -> top-1 accuracy in percent on the test split with it. JSON in the CSV. A CSV of a version
            without this column has none.
    """

    sha256: str
    val_images: int
    val_top1: float
    val_top5: float
    test_images: int | None
    test_top1: float | None
    test_top5: float | None
    train_loss: float
    train_images: int
    param_count: int
    seconds_per_epoch: float | None
    memory_mib: int
    resumed: bool
    device: str
    cpu: str
    threads: int
    torch: str
    timm: str
    timm_3g: str
    commit: str
    date: str
    corrupted: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the CSV: a run and its figures."""

    study: str
    run: Run
    figures: Figures

    def cells(self) -> dict[str, Any]:
        """The values by column. axes, choice and options are JSON, and epochs stands there for readers."""
        run = {name: getattr(self.run, name) for name in ('phase', 'arm', 'seed', 'epochs', 'test_split')}
        json_of_run = {name: as_json(getattr(self.run, name)) for name in _JSON}
        figures = {name: _cell(value) for name, value in asdict(self.figures).items()}
        cells = {'study': self.study, 'run': self.run.name, **run, **json_of_run, **figures}
        return {name: cells[name] for name in COLUMNS}


_JSON = ('axes', 'choice', 'options')
_TYPES: dict[str, Any] = {one.name: one.type for one in fields(Figures)}
COLUMNS = ['study', 'run', 'phase', 'arm', 'axes', 'choice', 'seed', 'epochs', 'test_split', *_TYPES, 'options']
_PERCENT = ('val_top1', 'val_top5', 'test_top1', 'test_top5')
_COLUMNS_BEFORE = [name for name in COLUMNS if name != 'corrupted']  # of versions that corrupted no images


def read_figures(file: Path, run: Run) -> Figures | None:
    """The figures that a process left. None if there are none, or they are of other options."""
    try:
        figures = Figures(**json.loads(file.read_text(encoding='utf-8')))
    except (FileNotFoundError, TypeError, ValueError):
        return None
    return figures if figures.sha256 == run.sha256 else None


def write_figures(file: Path, figures: Figures) -> None:
    """Write them, whole or not at all."""
    write_text(file, json.dumps(asdict(figures), indent=1) + '\n')


def read_results(file: Path) -> list[Row]:
    """The rows of a CSV. [] if there is no such file.

    Raises:
        ValueError: other columns, a value that is none of its column, a run that stands twice, or no CSV.

    >>> read_results(Path('missing.csv'))
    []
    """
    if not file.exists():
        return []
    try:
        text = file.read_text(encoding='utf-8-sig')
        return list(_rows(text)) if text.strip() else []
    except (ValueError, csv.Error) as error:
        raise ValueError(f'{file} is no CSV of a study: {error}. Move it, or name another file.') from error


def _rows(text: str) -> Iterator[Row]:
    reader = csv.DictReader(io.StringIO(text))
    if reader.fieldnames not in (COLUMNS, _COLUMNS_BEFORE):
        raise ValueError(f'its columns must be {", ".join(COLUMNS[:4])}, ...; got {", ".join(reader.fieldnames or ())!r:.80}')
    seen: dict[tuple[str, ...], int] = {}
    for line in reader:
        number = reader.line_num
        try:
            row = _row(line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'line {number}: {error}') from error
        before = seen.setdefault(row.run.label, number)
        if before != number:
            raise ValueError(f'lines {before} and {number} are both of {row.run.name}')
        yield row


def write_results(file: Path, rows: Iterable[Row]) -> None:
    """Write the CSV, whole or not at all. A file that has this text already is left as it is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(row.cells() for row in rows)
    if not file.exists() or file.read_text(encoding='utf-8') != text.getvalue():
        write_text(file, text.getvalue())


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return json.dumps(value) if value else ''  # in the order of the study
    return '' if value is None else int(value) if isinstance(value, bool) else value


def _row(line: Mapping[str, str]) -> Row:
    if None in line or None in line.values():
        raise ValueError(f'it must have {len(line.keys() - {None})} values')
    figures: dict[str, Any] = {name: _value(name, line.get(name, '')) for name in _TYPES}
    axes, choice, options = (_mapping(name, line[name]) for name in _JSON)
    study, phase, arm = line['study'], line['phase'], line['arm']
    if not NAME.fullmatch(study) or not NAME.fullmatch(arm) or phase not in (GRID, FINAL):
        raise ValueError(
            f'study and arm must be names, and phase {GRID} or {FINAL}; got {study!r:.80}, {arm!r:.80}, {phase!r:.80}'
        )
    if line['seed'] != str(options.get('seed')):
        raise ValueError(f'seed must be that of its options, {options.get("seed")!r:.80}; got {line["seed"]!r:.80}')
    where = (line['run'], phase, arm, axes, choice, int(line['seed']), options, line['test_split'])
    run = Run(*where, corruptions=tuple(figures['corrupted']))
    if run.sha256 != figures['sha256']:
        raise ValueError(f'the options of {run.name} are not those of its sha256')
    return Row(study, run, Figures(**figures))


def _mapping(name: str, text: str) -> dict[str, Any]:
    """The JSON of axes, choice or options."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f'{name} must map names to values; got {text!r:.80}')
    return found


def _value(name: str, text: str) -> Any:
    """The value of a column of `Figures` in its type."""
    kind = _TYPES[name]
    if kind == Mapping[str, float]:
        return _accuracies(text) if text else {}
    if not text and kind in (int | None, float | None):
        return None
    if kind is str:
        return text
    try:
        value = bool(int(text)) if kind is bool else float(text) if kind in (float, float | None) else int(text)
    except ValueError as error:
        raise ValueError(f'{name} must be a number; got {text!r:.80}') from error
    if name in _PERCENT and not 0 <= value <= 100:
        raise ValueError(f'{name} must be in percent, from 0 to 100; got {text!r:.80}')
    return value


def _accuracies(text: str) -> dict[str, float]:
    """The JSON of `corrupted`."""
    found = json.loads(text)
    if not isinstance(found, dict) or not all(isinstance(value, float | int) and 0 <= value <= 100 for value in found.values()):
        raise ValueError(f'corrupted must map corruptions to accuracies in percent; got {text!r:.80}')
    return {name: float(value) for name, value in found.items()}
