"""Pictures of the benchmark: bars for what is compared, lines for what grows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from timm_3g.utils.files import save_figure

from .case import split_shared
from .report import Report, Row


@dataclass(frozen=True)
class Line:
    """Points to join: dashed for what is not measured."""

    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


def draw_section(
    report: Report, section: str, title: str, quantity: str = 'median', keep: Callable[[Row], bool] = lambda row: True
) -> None:
    """SECTION.png in the report's folder: bars of one quantity. Nothing without a folder, or without rows.

    Args:
        report: whose rows.
        section: of the rows, and the name of the picture.
        title: above the device's name.
        quantity: of the rows.
        keep: which rows.
    """
    rows = [row for row in report.values(section, quantity) if keep(row)]
    if rows and report.folder:
        draw_bars(rows, f'{title} ({report.machine.device})', report.folder / f'{section}.png')


def draw_bars(rows: Sequence[Row], title: str, file: Path) -> None:
    """A PNG with a panel for each phase, a group for each case, a bar for each form: its value over the first one of the group,
    with its name at the end.

    Args:
        rows: of one section and one quantity, at least one.
        title: above all panels.
        file: the picture, written whole or not at all.
    """
    phases = list(dict.fromkeys(row.phase for row in rows))
    cases = list(dict.fromkeys(row.case for row in rows))
    forms = list(dict.fromkeys(row.form for row in rows))
    height = 1.8 + 0.25 * sum(len({row.form for row in rows if row.case == case}) + 1 for case in cases)
    figure = Figure(figsize=(2 + 5 * len(phases), height), layout='constrained')
    shared, rest = split_shared(cases)
    figure.suptitle(f'{title}\n{shared}', fontsize=10)
    for axes, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
        names, places, position = [], [], 0.0
        for case in cases:
            bars = [row for row in rows if row.case == case and row.phase == phase]
            for row in bars:
                length = row.value / bars[0].value
                axes.barh(position, length, color=f'C{forms.index(row.form) % 10}')
                axes.annotate(f' {row.form}: {row.value:.3g} {row.unit}', (length, position), va='center', fontsize=8)
                position += 1
            if bars:
                names.append(str(rest[case]))
                places.append(position - (len(bars) + 1) / 2)
                position += 1
        axes.set(xlabel=f'{rows[0].quantity}, over the first of the group', title=phase)
        axes.margins(x=0.5)  # room for the words at the end of the longest bar
        axes.set_yticks(places, names, fontsize=8)
        axes.invert_yaxis()
    save_figure(figure, file)


@dataclass(frozen=True)
class Panel:
    """Lines by name. The first word of a name, up to a comma, settles the colour."""

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Line]


def draw_lines(report: Report, section: str, panels: Sequence[Panel], log_x: bool = True) -> None:
    """SECTION.png in the report's folder: panels side by side, whole or not at all. Nothing without a folder.

    Args:
        report: whose folder.
        section: the name of the picture.
        panels: lines to draw.
        log_x: a logarithmic horizontal axis. The vertical one always is.
    """
    if not report.folder:
        return
    figure = Figure(figsize=(5.5 * len(panels), 4), layout='constrained')
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        colours = list(dict.fromkeys(name.partition(',')[0] for name in panel.lines))
        for name, line in panel.lines.items():
            colour = f'C{colours.index(name.partition(",")[0]) % 10}'
            axes.plot(line.x, line.y, '--' if line.dashed else 'o-', color=colour, markersize=4, label=name)
        axes.set(xscale='log' if log_x else 'linear', yscale='log', title=panel.title)
        axes.set(xlabel=panel.x_label, ylabel=panel.y_label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, report.folder / f'{section}.png')
