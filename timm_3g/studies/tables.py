"""The tables of a study, from the rows of its CSV alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from .results import Row
from .run import FINAL, GRID, as_json


@dataclass(frozen=True)
class Cell:
    """The runs that count of one arm at one combination of the axes, by seed.

    >>> Cell('3g', {'epochs': 7}, []).title
    'epochs 7'
    """

    arm: str
    axes: dict[str, object]
    rows: list[Row]

    @property
    def title(self) -> str:
        """Where it stands on the axes. '' without axes."""
        return ', '.join(f'{key} {value}' for key, value in self.axes.items())

    @property
    def test(self) -> dict[int, float]:
        """Seed -> top-1 accuracy on the test images in percent."""
        return {row.run.seed: row.figures.test_top1 for row in self.rows if row.figures.test_top1 is not None}

    @property
    def corruptions(self) -> list[str]:
        """Names of the corruptions that any of its runs has."""
        return list(dict.fromkeys(name for row in self.rows for name in row.figures.corrupted))

    def corrupted(self, names: Sequence[str]) -> dict[int, float]:
        """Seed -> mean top-1 accuracy over corruptions in percent, of the runs that have all of them."""
        found = {row.run.seed: row.figures.corrupted for row in self.rows}
        return {seed: mean(top1[name] for name in names) for seed, top1 in found.items() if names and set(names) <= set(top1)}


def cells_of(rows: Sequence[Row]) -> list[Cell]:
    """The cells, in the order of the rows.

    Raises:
        ValueError: rows of two states of a study: with other axes, or runs of one cell that differ in more than the seed.
    """
    found: dict[tuple[str, str], Cell] = {}
    for row in rows:
        if row.run.phase == FINAL:
            found.setdefault((as_json(row.run.axes), row.run.arm), Cell(row.run.arm, dict(row.run.axes), [])).rows.append(row)
    cells = list(found.values())
    for cell in cells:
        for row in cell.rows:
            if cell.axes.keys() != cells[0].axes.keys() or _recipe(row) != _recipe(cell.rows[0]):
                other = cells[0].rows[0] if cell.axes.keys() != cells[0].axes.keys() else cell.rows[0]
                raise ValueError(
                    f'{row.run.name} has other axes or options than {other.run.name}, and cannot be compared with it: the '
                    f'study was changed between them. Remove the rows of one of its states.'
                )
    return cells


def _recipe(row: Row) -> str:
    """What the runs of one cell share."""
    return as_json([{**row.run.options, 'seed': None}, row.run.test_split])


ROUNDING = 2e-4  # points. Accuracies have four decimals, so that equal differences are not equal to the last digit


@dataclass(frozen=True)
class Difference:
    """Accuracy of an arm minus that of another over the seeds that both have.

    Attributes:
        seeds: how many.
        mean: in points.
        error: standard error of the mean. nan with one seed.
        p: of the two-sided paired t-test. nan with one seed, or if all differences are equal (within ROUNDING).
    """

    seeds: int
    mean: float
    error: float
    p: float


def difference(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """The paired difference of accuracies by seed. None if no seed is in both. Needs SciPy (the extra `demo`)."""
    from scipy.stats import ttest_rel

    seeds = sorted(set(arm) & set(baseline))
    if not seeds:
        return None
    ours, theirs = [arm[seed] for seed in seeds], [baseline[seed] for seed in seeds]
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    error = stdev(differences) / math.sqrt(len(seeds)) if len(seeds) > 1 else math.nan
    p = float(ttest_rel(ours, theirs).pvalue) if max(differences) - min(differences) > ROUNDING else math.nan
    return Difference(len(seeds), mean(differences), error, p)


def tables(rows: Sequence[Row]) -> str:
    """Markdown: one table per combination of the axes, the table of the grid, and what a reader must know of them.

    The first arm of the rows is the one that the others are compared with. Times and memory are means over the runs
    whose training they measured.
    """
    cells = cells_of(rows)
    parts: list[str] = []
    comparisons = 0
    for title in dict.fromkeys(cell.title for cell in cells):
        group = [cell for cell in cells if cell.title == title]
        first = cells[0].arm
        for heading, made in ((title, _accuracy(group, first)), ('On corrupted test images', _robustness(group, first))):
            if made.lines:
                parts.append('\n'.join([f'**{heading}**', ''] * bool(heading) + made.lines))
                comparisons += made.comparisons
    if cells:
        parts.append(
            'Accuracy: mean ± sample standard deviation over runs. Differences: mean ± standard error over the seeds that both '
            f'arms have. p: two-sided paired t-test, {comparisons} comparisons, not corrected for their number.'
        )
    tried = [row for row in rows if row.run.phase == GRID]
    if tried:
        parts.append(_grid(tried, cells))
    parts.append(_source(rows))
    return '\n\n'.join(parts)


def pairs_table(rows: Sequence[Row], pairs: Sequence[tuple[str, str]]) -> str:
    """Markdown: per combination of the axes a table of paired differences, a line for each pair of arms.

    Args:
        rows: of the CSV.
        pairs: the first arm minus the second.

    Returns:
        On clean test images, under each corruption, and on the mean of the corruptions. Empty where no seed is in both arms.

    Raises:
        ValueError: an arm of no row.
    """
    cells = cells_of(rows)
    arms = dict.fromkeys(row.run.arm for row in rows)
    for arm in dict.fromkeys(arm for pair in pairs for arm in pair):
        if arm not in arms:
            raise ValueError(f'The page asks for the arm {arm}, which has no run. Arms with runs: {", ".join(arms)}.')
    parts: list[str] = []
    comparisons = 0
    for title in dict.fromkeys(cell.title for cell in cells):
        made = _pairs({cell.arm: cell for cell in cells if cell.title == title}, pairs)
        parts.append('\n'.join([f'**{title}**', ''] * bool(title) + made.lines))
        comparisons += made.comparisons
    parts.append(
        'The first arm minus the second: mean ± standard error over the seeds that both have. p: two-sided paired t-test, '
        f'{comparisons} comparisons, not corrected for their number.'
    )
    return '\n\n'.join(parts)


@dataclass(frozen=True)
class _Table:
    """Lines of Markdown, and how many p they have."""

    lines: list[str]
    comparisons: int = 0


def _compare(group: Sequence[Cell], first: str, accuracies: Sequence[Mapping[int, float]]) -> list[Difference | None]:
    """Each arm's accuracies minus those of the arm `first`. None for itself, and where it has no run."""
    baseline = next((found for cell, found in zip(group, accuracies, strict=True) if cell.arm == first), {})
    return [difference(found, baseline) if cell.arm != first else None for cell, found in zip(group, accuracies, strict=True)]


def _accuracy(group: Sequence[Cell], first: str) -> _Table:
    """Accuracy and cost of every arm at one combination of the axes."""
    header = ['runs', 'held-out top-1, %', 'test top-1, %', f'minus {first}', 'p', 'parameters', 's per epoch', 'MiB']
    lines = [_line('arm', *header), _line('---', *['---:'] * len(header))]
    compared = _compare(group, first, [cell.test for cell in group])
    for cell, found in zip(group, compared, strict=True):
        # A process that had no epoch left to train measured neither time nor memory of training.
        trained = [row.figures for row in cell.rows if row.figures.seconds_per_epoch]
        lines.append(
            _line(
                cell.arm,
                len(cell.rows),
                spread([row.figures.val_top1 for row in cell.rows]),
                spread(list(cell.test.values())),
                *_compared(found),
                f'{cell.rows[0].figures.param_count:,}',
                f'{mean(figures.seconds_per_epoch or 0.0 for figures in trained):.0f}' if trained else '',
                f'{mean(figures.memory_mib for figures in trained):.0f}' if trained else '',
            )
        )
    return _Table(lines, _count(compared))


def _robustness(group: Sequence[Cell], first: str) -> _Table:
    """Accuracy on corrupted test images. Without lines if no run has any.

    Means and differences are over all corruptions of the table. They are empty where runs lack one.
    """
    names = list(dict.fromkeys(name for cell in group for name in cell.corruptions))
    if not names:
        return _Table([])
    header = ['clean', *names, 'mean of the corrupted', f'minus {first}', 'p']
    lines = [_line('arm', *header), _line('---', *['---:'] * len(header))]
    means = [cell.corrupted(names) for cell in group]
    compared = _compare(group, first, means)
    for cell, corrupted, found in zip(group, means, compared, strict=True):
        each = [[row.figures.corrupted[name] for row in cell.rows if name in row.figures.corrupted] for name in names]
        values = [list(cell.test.values()), *each, list(corrupted.values())]
        lines.append(_line(cell.arm, *map(spread, values), *_compared(found)))
    return _Table(lines, _count(compared))


def _pairs(group: Mapping[str, Cell], pairs: Sequence[tuple[str, str]]) -> _Table:
    """The differences at one combination of the axes. An arm that has no run there has an empty line."""
    names = list(dict.fromkeys(name for cell in group.values() for name in cell.corruptions))
    header = ['clean', 'p', *names, *['mean of the corrupted', 'p'] * bool(names)]
    lines = [_line('arms', *header), _line('---', *['---:'] * len(header))]
    comparisons, nobody = 0, Cell('', {}, [])
    for pair in pairs:
        arm, other = (group.get(name, nobody) for name in pair)
        clean = difference(arm.test, other.test)
        each = [difference(arm.corrupted([name]), other.corrupted([name])) for name in names]
        overall = difference(arm.corrupted(names), other.corrupted(names))
        found = [*_compared(clean), *(_compared(one)[0] for one in each), *_compared(overall) * bool(names)]
        lines.append(_line(' - '.join(pair), *found))
        comparisons += _count([clean, overall])
    return _Table(lines, comparisons)


def _compared(found: Difference | None) -> tuple[str, str]:
    """A difference with its standard error, and its p."""
    if not found:
        return '', ''
    error = '' if math.isnan(found.error) else f' ± {found.error:.2f}'
    p = '' if math.isnan(found.p) else '<0.001' if found.p < 0.0005 else f'{found.p:.3f}'
    return f'{found.mean:+.2f}{error}', p


def _count(compared: Sequence[Difference | None]) -> int:
    """How many have a p."""
    return sum(found is not None and not math.isnan(found.p) for found in compared)


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation with two decimals.

    >>> spread([90.0, 92.0]), spread([90.0]), spread([])
    ('91.00 ± 1.41', '90.00', '')
    """
    if not values:
        return ''
    return f'{mean(values):.2f}' + (f' ± {stdev(values):.2f}' if len(values) > 1 else '')


def _grid(tried: Sequence[Row], cells: Sequence[Cell]) -> str:
    """Every point that was tried for every arm, the chosen one in bold."""
    places = {id(cell): _place(cell, tried) for cell in cells}
    chosen = {(places[id(cell)], cell.arm, as_json(cell.rows[0].run.choice)) for cell in cells}
    elsewhere = dict.fromkeys(cell.title for cell in cells if places[id(cell)] not in (None, as_json(cell.axes)))
    points: dict[tuple[str, str, str], list[Row]] = {}
    for row in tried:
        points.setdefault((as_json(row.run.axes), row.run.arm, as_json(row.run.choice)), []).append(row)
    lines = ['| arm | tried | held-out top-1, % |', '| --- | --- | ---: |']
    for point, found in points.items():
        first = found[0].run
        where = ', '.join(f'{key} {value}' for key, value in {**first.axes, **first.choice}.items())
        bold = '**' if point in chosen else ''
        lines.append(_line(first.arm, f'{bold}{where}{bold}', spread([row.figures.val_top1 for row in found])))
    more = f', also for {"; ".join(elsewhere)}' if elsewhere else ''
    return f'Options were chosen on the held-out images, the best of these points for each arm{more}:\n\n' + '\n'.join(lines)


def _place(cell: Cell, tried: Sequence[Row]) -> str | None:
    """Where on the axes the options of a cell were tried: its own place, or with `grid_at` the nearest one."""
    places = [row.run.axes for row in tried if row.run.arm == cell.arm]
    if not places:
        return None
    return as_json(max(places, key=lambda axes: sum(axes.get(key) == value for key, value in cell.axes.items())))


def _source(rows: Sequence[Row]) -> str:
    def each(*values: object) -> str:
        return ', '.join(dict.fromkeys(str(value) for value in values if value not in ('', None)))

    figures = [row.figures for row in rows]
    tested = each(*(f'{f.test_images:,}' for f in figures if f.test_images is not None))
    corrupted = ' and corruption' if any(f.corrupted for f in figures) else ''
    dates = sorted(f.date[:10] for f in figures)
    sentences = [
        f'{len(rows)} runs of the study `{rows[0].study}`, {each(dates[0], dates[-1]).replace(", ", " to ")}.',
        f'Seeds: {each(*(row.run.seed for row in rows))}.',
        f'Images: {each(*(f"{f.train_images:,}" for f in figures))} to train on, '
        f'{each(*(f"{f.val_images:,}" for f in figures))} held out'
        + (f', {tested} in the test split, evaluated once per run{corrupted}.' if tested else '.'),
        f'Machine: {each(*(f.cpu if f.device == "cpu" else f.device for f in figures))}, '
        f'{each(*(f.threads for f in figures))} threads.',
        f'torch {each(*(f.torch for f in figures))}, timm {each(*(f.timm for f in figures))}, '
        f'timm_3g {each(*(f.timm_3g for f in figures))} at commit {each(*(f.commit for f in figures)) or "unknown"}.',
    ]
    return ' '.join(sentences)


def _line(*cells: object) -> str:
    return '| ' + ' | '.join(str(cell) for cell in cells) + ' |'
