"""What the page answers to each event."""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr

from timm_3g.utils.terminal import one_line

from .look import look, prepare, see
from .options import PageOptions
from .pictures import overlays
from .shelf import Shelf
from .statistics import draw_statistics
from .table import table_of, write_table


def in_words(answer: Callable[..., Any]) -> Callable[..., Any]:
    """What went wrong becomes a message to the visitor."""

    @wraps(answer)
    def answered(*args: Any) -> Any:
        try:
            return answer(*args)
        except ValueError as error:
            raise gr.Error(one_line(str(error)), duration=None, print_exception=False) from error
        except Exception as error:  # its text is for who runs the page
            print(f'{answer.__name__}: {type(error).__name__}: {one_line(str(error))}', file=sys.stderr)
            raise gr.Error('This could not be answered.', duration=None, print_exception=False) from error

    return answered


class Answers:
    """What the page answers to each event. Errors of a visitor are in words, see `in_words`.

    Args:
        shelf: the models.
        options: limits on images.
        folder: for files that the page offers.
    """

    def __init__(self, shelf: Shelf, options: PageOptions, folder: Path) -> None:
        self.shelf, self.options, self.folder = shelf, options, folder

    @in_words
    def show(self, file: str | None, name: str, opacity: float) -> tuple[Any, Any, Any]:
        """The classes, the maps, and a sentence where there are no maps."""
        if file is None:  # the visitor has removed the image
            return None, None, gr.update(visible=False)
        model = self.shelf.get(name)
        found = look(model, file, self.options.megapixels)
        pictures = overlays(found, opacity)
        sentence = '' if pictures else f'{name} has no re-weighting, and so no maps.'
        return found.top(model.classes), pictures or None, gr.update(value=sentence, visible=not pictures)

    @in_words
    def compare(self, file: str | None, *names: str) -> list[Any]:
        """The classes by each model, and the time of a forward pass."""
        answers = []
        for name in names:
            model = self.shelf.get(name)
            images = prepare(model, file, self.options.megapixels)
            see(model, images)  # a first pass takes longer
            found = see(model, images)
            answers.append(gr.update(value=found.top(model.classes), label=f'{name}: {1000 * found.seconds:.1f} ms'))
        return answers

    @in_words
    def statistics(self, file: str | None, name: str, channel: int) -> Any:
        """The picture of `draw_statistics`."""
        return draw_statistics(self.shelf.get(name), file, int(channel or 0), self.options.megapixels)

    @in_words
    def many(self, files: list[str] | None, name: str) -> tuple[list[list[str]], str]:
        """The table, and its file."""
        if not files:
            raise ValueError('Choose images first.')
        if len(files) > self.options.files:
            raise ValueError(f'At most {self.options.files} images at once; these are {len(files)}.')
        rows = table_of(self.shelf.get(name), files, self.options.megapixels)
        return rows, str(write_table(rows, self.folder))
