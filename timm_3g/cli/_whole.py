"""Files written under a temporary name, then renamed: the old content or the new, never half of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # verbs that draw nothing do without the extra
    from matplotlib.figure import Figure


SOFTWARE = 'timm_3g'  # in our PNGs, so that they can be told from a user's own


def write_text(file: Path, text: str) -> None:
    """In UTF-8."""
    with _beside(file) as partial:
        partial.write_text(text, encoding='utf-8')


def save_figure(figure: 'Figure', file: Path) -> None:
    """As a PNG of 110 dots an inch."""
    with _beside(file) as partial:
        figure.savefig(partial, dpi=110, format='png', metadata={'Software': SOFTWARE})


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    partial = file.with_name(f'.{file.name}.{os.getpid()}')
    try:
        yield partial
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
