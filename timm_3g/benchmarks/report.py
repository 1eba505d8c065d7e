"""What a benchmark found and where: the machine, rows of figures, the table for the eye and the CSV for pandas."""

import csv
import io
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

import timm
import torch

import timm_3g
from timm_3g.utils.files import write_text


@dataclass(frozen=True)
class Machine:
    """Where, when and on what: the last columns of the CSV, the head of the output."""

    date: str
    device: str
    cpu: str
    cores: int
    threads: int
    load: str
    python: str
    torch: str
    cuda: str
    tf32: str
    timm: str
    timm_3g: str
    command: str

    def lines(self) -> list[str]:
        """For the eye."""
        load = f', load average {self.load} at the start' if self.load else ''
        return [
            self.command,
            self.date,
            f'device: {self.device}' + (f', TF32 in float32 products: {self.tf32}' if self.tf32 else ''),
            f'CPU: {self.cpu}, {self.cores} cores, {self.threads} torch threads{load}',
            f'Python {self.python}, torch {self.torch}, CUDA {self.cuda or "none"}, timm {self.timm}, timm_3g {self.timm_3g}',
        ]


def describe(device: torch.device, tf32: str) -> Machine:
    """The machine that this runs on; tf32: whether float32 products on the GPU use it where the case does not say."""
    affinity = getattr(os, 'sched_getaffinity', None)  # what a container may use; Linux only
    load = getattr(os, 'getloadavg', None)
    return Machine(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu',
        cpu=_cpu_name(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=f'{load()[0]:.2f}' if load else '',
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda or '',
        tf32=tf32 if device.type == 'cuda' else '',
        timm=timm.__version__,
        timm_3g=timm_3g.__version__,
        command=shlex.join(['timm-3g', *sys.argv[1:]]),
    )


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass  # no Linux
    return platform.processor() or platform.machine()


@dataclass(frozen=True)
class Row:
    """One figure. `case` is KEY=VALUE words; `value` is nan where `note` says why there is none."""

    section: str
    case: str
    form: str
    phase: str
    quantity: str
    value: float
    unit: str
    note: str = ''


COLUMNS = [f.name for f in fields(Row)] + [f.name for f in fields(Machine)]


class Report:
    """The rows of a run, in order, and the CSV that they go to.

    Args:
        machine: written beside every row.
        folder: where `save` writes benchmark.csv.
        sections: what this run measures. Rows of other sections in the CSV stay there, as their pictures do in the folder.

    Raises:
        ValueError: the CSV is there with other columns.
    """

    def __init__(self, machine: Machine, folder: Path, sections: Iterable[str]) -> None:
        self.machine = machine
        self.file = folder / 'benchmark.csv'
        self.rows: list[Row] = []
        self.before: list[dict[str, str]] = []
        if self.file.exists():
            with self.file.open(newline='', encoding='utf-8') as stream:
                reader = csv.DictReader(stream)
                if reader.fieldnames != COLUMNS:
                    raise ValueError(
                        f'{self.file} has other columns than this version writes; move it, or name another --output.'
                    )
                self.before = [row for row in reader if row['section'] not in set(sections)]

    def add(self, section: str, case: str, form: str, phase: str, quantity: str, value: float, unit: str = '') -> None:
        """One more figure."""
        self.rows.append(Row(section, case, form, phase, quantity, float(value), unit))

    def fail(self, section: str, case: str, form: str, phase: str, note: str) -> None:
        """A figure that could not be had, and why."""
        self.rows.append(Row(section, case, form, phase, 'failed', float('nan'), '', note))

    def values(self, section: str, quantity: str) -> list[Row]:
        """The rows of this quantity."""
        return [row for row in self.rows if row.section == section and row.quantity == quantity]

    def table(self, section: str) -> str:
        """The rows of a section as aligned text: what all cases share, then a line for each case, phase and form."""
        rows = [row for row in self.rows if row.section == section]
        if not rows:
            return ''
        shared, short = shared_words([row.case for row in rows])
        columns = list(dict.fromkeys((row.quantity, row.unit) for row in rows if not row.note))
        columns += [('note', '')] if any(row.note for row in rows) else []
        lines: dict[tuple[str, str, str], dict[tuple[str, str], str]] = {}
        for row in rows:
            line = lines.setdefault((short[row.case], row.phase, row.form), {})
            if row.note:
                line['note', ''] = row.note
            else:
                line[row.quantity, row.unit] = f'{row.value:.0f}' if 1e4 <= abs(row.value) < 1e7 else f'{row.value:.4g}'
        grid = [['case', 'phase', 'form', *(f'{quantity}, {unit}' if unit else quantity for quantity, unit in columns)]]
        grid += [[*key, *(line.get(column, '') for column in columns)] for key, line in lines.items()]
        widths = [max(len(line[i]) for line in grid) for i in range(len(grid[0]))]
        return '\n'.join([*([f'all: {shared}'] if shared else []), *(_aligned(line, widths) for line in grid)])

    def save(self) -> Path:
        """Write all rows so far, whole or not at all: one row a figure, the machine repeated in each."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        writer.writeheader()
        writer.writerows(self.before)
        machine = asdict(self.machine)
        writer.writerows({**asdict(row), **machine} for row in self.rows)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.file, text.getvalue())
        return self.file


def shared_words(cases: Iterable[str]) -> tuple[str, dict[str, str]]:
    """The KEY=VALUE words that all cases have, and each case without them; everything where there is one case only."""
    words = {case: case.split() for case in cases}
    shared = [word for word in next(iter(words.values())) if all(word in others for others in words.values())]
    return ' '.join(shared), {case: ' '.join(w for w in of if w not in shared) for case, of in words.items()}


def _aligned(cells: Iterable[str], widths: list[int]) -> str:
    """Words to the left, figures (from the fourth column on) to the right."""
    return '  '.join(c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))).rstrip()
