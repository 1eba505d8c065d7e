"""Lines against epochs, one per run: the pictures of `demo` and `curves`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from timm_3g.utils.files import save_figure


def draw_curves(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    file: Path,
    epochs: Mapping[str, Sequence[int]] | None = None,
) -> None:
    """Write a PNG, whole or not at all.

    Args:
        panels: label of the vertical axis -> name of the run -> a value for each epoch.
        title: above all panels.
        file: the picture.
        epochs: name of the run -> its epochs; None for 1, 2, and so on.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'curves.png')
    >>> draw_curves({'accuracy, %': {'3g': [50.0, 60.0]}}, 'digits', file)
    >>> file.read_bytes()[1:4]
    b'PNG'
    """
    figure = Figure(figsize=(6 * len(panels), 4), layout='constrained')
    figure.suptitle(title, parse_math=False)
    for axes, (label, runs) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        lines = [
            axes.plot(epochs[name] if epochs else range(1, len(values) + 1), values, marker='o', markersize=4)[0]
            for name, values in runs.items()
        ]
        axes.set(xlabel='epoch', ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        for text in axes.legend(lines, list(runs)).get_texts():  # as labels, names that begin with _ would be left out
            text.set_parse_math(False)
    save_figure(figure, file)
