"""`timm-3g curves RUN...`: loss and accuracy of runs of train.py against epochs, as a PNG."""

import argparse
import csv
from pathlib import Path

from ._plot import draw_curves

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
    summaries = {folder.name: read_summary(folder) for folder in args.runs}
    if len(summaries) < len(args.runs):
        raise ValueError(f'The runs must have different names; got {", ".join(folder.name for folder in args.runs)}.')
    panels = {label: {run: values[column] for run, values in summaries.items()} for column, label in COLUMNS.items()}
    draw_curves(panels, args.title, args.output)
    for name, values in summaries.items():
        top1 = values['eval_top1']
        best = max(range(len(top1)), key=top1.__getitem__)
        print(f'{name}: {len(top1)} epochs, last {top1[-1]:.2f} %, best {top1[best]:.2f} % after epoch {best + 1}')
    print(f'Curves: {args.output}')


def read_summary(folder: Path) -> dict[str, list[float]]:
    """The columns COLUMNS of a run's summary.csv, a number an epoch. Of an epoch that a resumed run repeated, the last counts.

    Raises:
        FileNotFoundError: no run there.
        ValueError: not the summary of a run.
    """
    file = folder / 'summary.csv'
    if not file.is_file():
        raise FileNotFoundError(f'{folder} holds no summary.csv: name a folder that train.py wrote.')
    try:
        with file.open() as stream:
            rows = {row['epoch']: row for row in csv.DictReader(stream) if row['epoch'] != 'epoch'}
        return {column: [float(row[column]) for row in rows.values()] for column in COLUMNS}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{file} is no summary of train.py: {error!r}.') from error
