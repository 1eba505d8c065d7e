"""The picture of a study: every run, and the mean of its arm."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from timm_3g.utils.files import save_figure

from .tables import Cell


def draw_study(cells: Sequence[Cell], title: str, file: Path) -> None:
    """Write a PNG: test accuracy of every run, with mean and sample standard deviation of each arm.

    One panel in which lines join the means if one axis alone varies, in numbers. Else one panel per combination of the axes.
    """
    varied = [axis for axis in cells[0].axes if len({str(cell.axes[axis]) for cell in cells}) > 1]
    lines = len(varied) == 1 and all(_is_number(cell.axes[varied[0]]) for cell in cells)
    titles = [''] if lines else list(dict.fromkeys(cell.title for cell in cells))
    arms = list(dict.fromkeys(cell.arm for cell in cells))
    figure = Figure(figsize=(max(5.0, 0.7 * len(arms) + 2) * len(titles), 4.2), layout='constrained')
    figure.suptitle(title)
    for axes, name in zip(figure.subplots(1, len(titles), squeeze=False, sharey=True)[0], titles, strict=True):
        if lines:
            _draw_lines(axes, cells, arms, varied[0])
        else:
            _draw_points(axes, [cell for cell in cells if cell.title == name], name)
    figure.axes[0].set_ylabel('test accuracy, top-1, %')
    save_figure(figure, file)


def _draw_points(axes: Axes, cells: Sequence[Cell], title: str) -> None:
    for i, cell in enumerate(cells):
        values = list(cell.test.values())
        axes.plot([i] * len(values), values, 'o', color='0.6', markersize=4)
        if values:
            axes.errorbar(i, mean(values), stdev(values) if len(values) > 1 else 0.0, fmt='D', capsize=4, color=f'C{i % 10}')
    axes.set_xticks(range(len(cells)), [cell.arm for cell in cells], rotation=30, ha='right')
    axes.set_title(title, parse_math=False)
    axes.grid(axis='y', alpha=0.3)


def _draw_lines(axes: Axes, cells: Sequence[Cell], arms: Sequence[str], axis: str) -> None:
    for i, arm in enumerate(arms):
        own = sorted((cell for cell in cells if cell.arm == arm and cell.test), key=lambda cell: float(str(cell.axes[axis])))
        places = [float(str(cell.axes[axis])) for cell in own]
        for place, cell in zip(places, own, strict=True):
            axes.plot([place] * len(cell.test), list(cell.test.values()), '.', color=f'C{i % 10}', alpha=0.4)
        values = [list(cell.test.values()) for cell in own]
        axes.errorbar(
            places,
            [mean(v) for v in values],
            [stdev(v) if len(v) > 1 else 0.0 for v in values],
            marker='D',
            capsize=4,
            color=f'C{i % 10}',
            label=arm,
        )
    axes.set_xlabel(axis)
    axes.grid(alpha=0.3)
    axes.legend()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
