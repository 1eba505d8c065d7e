"""Loss and accuracy of runs of train.py: read from their summary.csv, and drawn against epochs."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm_3g.utils.files import require_picture
from timm_3g.utils.options import takes_fields_of

# Columns of train.py's summary.csv, and what they are called in the picture.
COLUMNS = {
    'train_loss': 'training loss',
    'eval_loss': 'validation loss',
    'eval_top1': 'validation accuracy, top-1, %',
}


@dataclass(frozen=True)
class CurvesOptions:
    """The options of `draw_run_curves`.

    Args:
        runs: folders that train.py wrote. A run has the name of its folder.
        output: the picture, a PNG.
        title: above the picture.

    Raises:
        ValueError: two runs of one name.

    >>> CurvesOptions([Path('a/run'), Path('b/run')])
    Traceback (most recent call last):
    ValueError: The runs must have different names; got run, run.
    """

    runs: Sequence[Path | str]
    output: Path | str = Path('curves.png')
    title: str = ''

    def __post_init__(self) -> None:
        names = [name_of_run(folder) for folder in self.runs]
        if len(set(names)) < len(names):
            raise ValueError(f'The runs must have different names; got {", ".join(names)}.')


def name_of_run(folder: str | Path) -> str:
    """The name of its folder, of '.' and '..' too.

    >>> name_of_run('output/train/mine/.')
    'mine'
    """
    return Path(os.path.abspath(folder)).name


@dataclass(frozen=True)
class RunSummary:
    """The columns COLUMNS of a run by epoch, counted from 0 as train.py does, in their order.

    >>> run = RunSummary({0: {'eval_top1': 50.0}, 1: {'eval_top1': 60.0}, 2: {'eval_top1': 55.0}})
    >>> run.column('eval_top1'), run.best_epoch
    ([50.0, 60.0, 55.0], 1)
    """

    rows: dict[int, dict[str, float]]

    def column(self, name: str) -> list[float]:
        """The values of a column."""
        return [values[name] for values in self.rows.values()]

    @property
    def best_epoch(self) -> int | None:
        """The first epoch of the highest top-1 accuracy. None if no accuracy is finite."""
        top1 = {epoch: values['eval_top1'] for epoch, values in self.rows.items()}
        return max((epoch for epoch, value in top1.items() if math.isfinite(value)), key=top1.__getitem__, default=None)


@takes_fields_of(CurvesOptions)
def draw_run_curves(options: CurvesOptions) -> dict[str, RunSummary]:
    """Draw losses and accuracy of runs against epochs into one PNG. Needs the extra `demo` (matplotlib).

    Args:
        options: see CurvesOptions. Each field may be given by name.

    Returns:
        The summary of each run by its name.

    Raises:
        FileNotFoundError: a folder without summary.csv.
        ValueError: two runs of one name, a file that is not a summary of train.py, a name of the picture without `.png`.
        OSError: the picture cannot be written.
        ModuleNotFoundError: the extra is missing.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp(), 'run')
    >>> folder.mkdir()
    >>> _ = (folder / 'summary.csv').write_text('epoch,train_loss,eval_loss,eval_top1\\n0,2.0,1.9,30.0\\n1,1.5,1.4,50.0\\n')
    >>> runs = draw_run_curves([folder], output=folder / 'curves.png')
    >>> runs['run'].column('eval_top1'), (folder / 'curves.png').is_file()
    ([30.0, 50.0], True)
    """
    from .plot import draw_curves

    output = Path(options.output)
    require_picture(output)
    runs = {name_of_run(folder): read_summary(folder) for folder in options.runs}
    panels = {label: {name: run.column(column) for name, run in runs.items()} for column, label in COLUMNS.items()}
    shown = {label: lines for label, lines in panels.items() if any(math.isfinite(y) for line in lines.values() for y in line)}
    draw_curves(shown or panels, options.title, output, {name: [epoch + 1 for epoch in run.rows] for name, run in runs.items()})
    return runs


def read_summary(folder: str | Path) -> RunSummary:
    """The summary.csv of a run. Where a resumed run goes on from an earlier epoch, what stood from there on does not count.

    A run without validation has NaN in the columns of it.

    Raises:
        FileNotFoundError: no summary.csv in the folder.
        ValueError: not the summary of a run.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / 'summary.csv').write_text('epoch,train_loss,eval_loss,eval_top1\\n0,2.0,1.9,30.0\\n')
    >>> read_summary(folder).rows
    {0: {'train_loss': 2.0, 'eval_loss': 1.9, 'eval_top1': 30.0}}
    """
    file = Path(folder, 'summary.csv')
    if not file.is_file():
        raise FileNotFoundError(f'{folder} holds no summary.csv: name a folder that train.py wrote.')
    try:
        with file.open(encoding='utf-8-sig', newline='') as stream:
            header, *lines = [line for line in csv.reader(stream) if line] or [[]]
        rows: dict[int, dict[str, float]] = {}
        for line in lines:
            if line[0] == 'epoch':  # of a resumed run, which may have other columns
                header = line
                continue
            row = dict(zip(header, line, strict=True))
            epoch = int(row['epoch'])
            rows = {before: values for before, values in rows.items() if before < epoch}
            rows[epoch] = {name: float(row[name] if name in row or name == 'train_loss' else 'nan') for name in COLUMNS}
        if not rows or min(rows) < 0:
            raise ValueError('epochs must count from 0, and one must have ended')
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f'{file} is no summary of train.py: {error!r}.') from error
    return RunSummary(dict(sorted(rows.items())))
