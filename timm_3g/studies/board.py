"""Which runs of a study are done, which are free, and what the rest will take."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import mean

from filelock import SoftFileLease, Timeout

from .config import Study
from .job import Job
from .results import Row, read_figures, read_results, write_results
from .run import GRID, Run


class Board:
    """The runs of a study and the rows of those that are done."""

    def __init__(self, content: Study, folder: Path, file: Path) -> None:
        self.study, self.folder, self.file = content, folder, file
        self.rows: dict[str, Row] = {}
        self.runs: list[Run] = []
        self._locks: dict[str, tuple[SoftFileLease, SoftFileLease]] = {}

    def update(self) -> None:
        """Read the CSV and what the runs have left."""
        in_file = {row.run.label: row for row in read_results(self.file)}
        self.rows = {}
        held_out: dict[str, float] = {}
        # The rows of the grid determine what the other runs are.
        for phase_is_grid in (True, False):
            self.runs = list(self.study.runs(held_out))
            for run in self.runs:
                if (run.phase == GRID) is phase_is_grid and (row := self._row(run, in_file)):
                    self.rows[run.name] = row
                    held_out[run.name] = row.figures.val_top1

    def _row(self, run: Run, in_file: Mapping[tuple[str, ...], Row]) -> Row | None:
        if run.phase != GRID and self.study.chosen(run.arm, run.axes, self._held_out()) is None:
            return None
        figures = read_figures(self.folder / f'{run.stem}.json', run)
        if figures:
            return Row(self.study.name, run, figures)
        row = in_file.get(run.label)
        if row and row.figures.sha256 != run.sha256:
            raise ValueError(
                f'{self.file} has a row of {run.name} with other options than the study has now. '
                'Name another file with --results, or remove that row.'
            )
        return replace(row, study=self.study.name) if row else None  # the study may have had another name

    def _held_out(self) -> dict[str, float]:
        return {name: row.figures.val_top1 for name, row in self.rows.items()}

    def ready(self) -> list[Run]:
        """Runs that are not done and whose options are known."""
        known = self._held_out()
        return [run for run in self.missing() if (run.phase == GRID or self.study.chosen(run.arm, run.axes, known) is not None)]

    def claim(self, job: Job) -> bool:
        """Take the run, unless another process starts or trains it, or has done so. `release` it when its process has ended.

        The locks are kept: they remember how long they have seen no sign of life. Both are looked at each time, so that a
        machine that fell silent is waited for once.
        """
        starter, trainer = self._locks.setdefault(job.run.name, (job.starter_lock(), job.lock()))
        try:
            starter.acquire(blocking=False)
        except Timeout:
            if job.file('.lock').exists():  # one that is free is left to the process that is being started
                with suppress(Timeout), trainer.acquire(blocking=False):
                    pass
            return False
        with suppress(Timeout), trainer.acquire(blocking=False):
            if not read_figures(job.file('.json'), job.run):  # done since the board was read
                return True
        starter.release()
        return False

    def release(self, job: Job) -> None:
        """Give back a run that was claimed."""
        self._locks[job.run.name][0].release()

    def save(self) -> None:
        """Write the CSV, again if a process has finished a run meanwhile: whoever writes last has seen all."""
        self.update()
        while True:
            rows = self.done()
            others = [row for row in read_results(self.file) if row.run.label not in {one.run.label for one in rows}]
            if rows or others:
                write_results(self.file, [*rows, *others])
            before = set(self.rows)
            self.update()
            if set(self.rows) == before:
                return

    def done(self) -> list[Row]:
        """The rows, in the order of the study."""
        return [self.rows[run.name] for run in self.runs if run.name in self.rows]

    def missing(self) -> list[Run]:
        """The runs that are not done."""
        return [run for run in self.runs if run.name not in self.rows]


def estimate(rows: list[Row], missing: list[Run]) -> float | None:
    """Seconds of the missing runs, one after the other. None if no run is done.

    An epoch takes what it took in runs of the same arm, or in all where the arm has none, times the share of the images.
    """
    timed = [(row, row.figures.seconds_per_epoch) for row in rows if row.figures.seconds_per_epoch]
    if not timed:
        return None if missing else 0.0
    whole = [(row.run.arm, seconds / row.run.fraction) for row, seconds in timed]
    everywhere = mean(seconds for _, seconds in whole)
    per_arm = {arm: mean(seconds for name, seconds in whole if name == arm) for arm, _ in whole}
    return sum(per_arm.get(run.arm, everywhere) * run.epochs * run.fraction for run in missing)
