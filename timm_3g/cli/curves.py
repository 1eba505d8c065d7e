"""`timm-3g curves RUN...`: loss and accuracy of runs of train.py against epochs, as a PNG."""

import argparse
import csv
import math
from pathlib import Path

from timm_3g.training.plot import draw_curves
from timm_3g.utils.files import require_writable

EXAMPLE = 'timm-3g curves output/train/3g output/train/avg --output curves.png'

# Columns of train.py's summary.csv, and what they are called in the picture.
COLUMNS = {
    'train_loss': 'training loss',
    'eval_loss': 'validation loss',
    'eval_top1': 'validation accuracy, top-1, %',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='folders that train.py wrote, named after them')
    parser.add_argument('--output', type=Path, default=Path('curves.png'), metavar='PNG', help='(default: %(default)s)')
    parser.add_argument('--title', default='', help='above the picture')


def run(args: argparse.Namespace) -> None:
    """Draw, and print each run's last and best epoch."""
    require_writable(args.output)
    rows = {folder.name: _read_rows(folder) for folder in args.runs}
    if len(rows) < len(args.runs):
        raise ValueError(f'The runs must have different names; got {", ".join(folder.name for folder in args.runs)}.')
    panels = {label: {run: _column(of, column) for run, of in rows.items()} for column, label in COLUMNS.items()}
    draw_curves(panels, args.title, args.output, {run: [epoch + 1 for epoch in of] for run, of in rows.items()})
    for name, of in rows.items():
        top1 = {epoch: values['eval_top1'] for epoch, values in of.items()}
        best = max((epoch for epoch, value in top1.items() if math.isfinite(value)), key=top1.__getitem__, default=None)
        said = 'no accuracy is a number' if best is None else f'best {top1[best]:.2f} % after epoch {best + 1}'
        print(f'{name}: {len(top1)} epoch{"s" * (len(top1) > 1)}, last {list(top1.values())[-1]:.2f} %, {said}')
    print(f'Curves: {args.output}')


def read_summary(folder: Path) -> dict[str, list[float]]:
    """The columns COLUMNS of a run's summary.csv, a number an epoch. Of an epoch that a resumed run repeated, the last counts.

    Raises:
        FileNotFoundError: no run there.
        ValueError: not the summary of a run.
    """
    rows = _read_rows(folder)
    return {column: _column(rows, column) for column in COLUMNS}


def _column(rows: dict[int, dict[str, float]], column: str) -> list[float]:
    return [values[column] for values in rows.values()]


def _read_rows(folder: Path) -> dict[int, dict[str, float]]:
    """COLUMNS by epoch, as train.py counts them (from 0), in their order."""
    file = folder / 'summary.csv'
    if not file.is_file():
        raise FileNotFoundError(f'{folder} holds no summary.csv: name a folder that train.py wrote.')
    try:
        with file.open(encoding='utf-8-sig', newline='') as stream:
            lines = [row for row in csv.DictReader(stream) if row['epoch'] != 'epoch']
        rows = {int(row['epoch']): {column: float(row[column]) for column in COLUMNS} for row in lines}
        if not rows or min(rows) < 0:
            raise ValueError('epochs must count from 0, and one must have ended')
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f'{file} is no summary of train.py: {error!r}.') from error
    return dict(sorted(rows.items()))
