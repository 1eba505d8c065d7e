"""What a benchmark found: rows of figures, tables to print, and the CSV."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timm_3g.utils.files import write_text
from timm_3g.utils.machine import Machine
from timm_3g.utils.table import aligned

from .case import Case, split_shared
from .options import SECTIONS


@dataclass(frozen=True)
class Row:
    """One figure. `value` is nan if there is none, and `note` says why.

    >>> row = Row('head', Case.of(batch=8), 'ours', 'forward', 'median', 1.5, 'ms')
    >>> row.case['batch'], row.value, row.unit
    (8, 1.5, 'ms')
    """

    section: str
    case: Case
    form: str
    phase: str
    quantity: str
    value: float
    unit: str
    note: str = ''


COLUMNS = [f.name for f in fields(Row)] + [f.name for f in fields(Machine)]


class Report:
    """The rows of a run, in order.

    Args:
        machine: written beside every row of the CSV.
        folder: where `save` writes benchmark.csv. None writes nothing.
        sections: what this run measures. Rows of other sections in the CSV stay there, as their pictures do in the folder.

    Attributes:
        rows: all figures so far.
        notes: of each section that is done, lines to print below its table.

    Raises:
        ValueError: the CSV has other columns.

    >>> import torch
    >>> from timm_3g.utils.machine import describe
    >>> report = Report(describe(torch.device('cpu'), 'on'))
    >>> report.add('head', Case.of(batch=2, dim=6), 'ours', 'forward', 'median', 1.23456, 'ms')
    >>> print(report.table('head'))
    all: batch=2 dim=6
    case  phase    form  median, ms
          forward  ours       1.235
    """

    def __init__(self, machine: Machine, folder: Path | None = None, sections: Iterable[str] = ()) -> None:
        self.machine = machine
        self.folder = folder
        self.rows: list[Row] = []
        self.notes: dict[str, list[str]] = {}
        self.before: list[dict[str, str]] = []
        if self.file and self.file.exists():
            with self.file.open(newline='', encoding='utf-8') as stream:
                reader = csv.DictReader(stream)
                if reader.fieldnames != COLUMNS:
                    raise ValueError(
                        f'{self.file} has other columns than this version writes; move it, or name another --output.'
                    )
                self.before = [row for row in reader if row['section'] not in set(sections)]

    @property
    def file(self) -> Path | None:
        """The CSV."""
        return self.folder and self.folder / 'benchmark.csv'

    def add(self, section: str, case: Case, form: str, phase: str, quantity: str, value: float, unit: str = '') -> None:
        """Add a figure."""
        self.rows.append(Row(section, case, form, phase, quantity, float(value), unit))

    def fail(self, section: str, case: Case, form: str, phase: str, note: str) -> None:
        """Add a row for a figure that could not be measured, with the reason."""
        self.rows.append(Row(section, case, form, phase, 'failed', float('nan'), '', note))

    def values(self, section: str, quantity: str) -> list[Row]:
        """The rows of this quantity."""
        return [row for row in self.rows if row.section == section and row.quantity == quantity]

    def text(self, section: str) -> str:
        """A section to print: title, table, notes."""
        return '\n'.join([f'{section}: {SECTIONS[section]}', self.table(section), *self.notes.get(section, [])])

    def table(self, section: str) -> str:
        """The rows of a section as aligned text: what all cases share, then a line for each case, phase and form."""
        rows = [row for row in self.rows if row.section == section]
        if not rows:
            return ''
        shared, rest = split_shared(row.case for row in rows)
        columns = list(dict.fromkeys((row.quantity, row.unit) for row in rows if not row.note))
        columns += [('note', '')] if any(row.note for row in rows) else []
        lines: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
        for row in rows:
            line = lines.setdefault((str(rest[row.case]), row.phase, row.form), {})
            if row.note:
                line['note', ''] = row.note
            else:
                line[row.quantity, row.unit] = f'{row.value:.0f}' if 1e4 <= abs(row.value) < 1e7 else f'{row.value:.4g}'
        grid = [['case', 'phase', 'form', *(f'{quantity}, {unit}' if unit else quantity for quantity, unit in columns)]]
        grid += [[*key, *(line.get(column, '') for column in columns)] for key, line in lines.items()]
        return '\n'.join([*([f'all: {shared}'] if shared.items else []), *aligned(grid, left=3)])

    def save(self) -> None:
        """Write the CSV with all rows so far, whole or not at all: one line per figure, the machine repeated in each."""
        if not self.file:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(self.before)
        machine = asdict(self.machine)
        writer.writerows({**vars(row), **machine} for row in self.rows)
        write_text(self.file, text.getvalue())
