"""The page itself: what stands where, what happens on a click, and who may come."""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import skimage.data
from PIL import Image
from starlette.middleware import Middleware

from timm_3g.utils.options import takes_fields_of
from timm_3g.utils.temporary import start_of, sweep
from timm_3g.utils.terminal import one_line

from .look import Look, look, prepare, see
from .options import PageOptions
from .pictures import overlays
from .quota import UploadQuota
from .shelf import Shelf, ShelfModel
from .statistics import draw_statistics
from .table import COLUMNS, table_of, write_table

os.environ['GRADIO_ANALYTICS_ENABLED'] = 'False'  # read when Gradio is imported

# Photographs that scikit-image ships.
EXAMPLES = {
    'cat': 'chelsea',
    'astronaut': 'astronaut',
    'coffee': 'coffee',
    'rocket': 'rocket',
    'cameraman': 'camera',
}

TITLE = 'timm_3g'
NAME = 'timm_3g.page'  # of the temporary folder
AT_ONCE = 2  # events, for all visitors together
INTRODUCTION = """# timm_3g
Second-order pooling for timm. Drop, paste or choose an image. It stays on the machine that runs this page."""

# Gradio's gallery keeps its columns on a narrow screen, and is as high as a few rows.
CSS = """
#maps .grid-wrap { min-height: 0; height: auto; max-height: none; }
@media (max-width: 640px) { #maps .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""


@takes_fields_of(PageOptions)
def build_page(options: PageOptions) -> Any:
    """The page as a `gradio.Blocks`, not yet served. The first model is loaded.

    Args:
        options: the fields of `PageOptions`, by name, or one `PageOptions`.

    Returns:
        A `gradio.Blocks` with its queue. `launch_options` has what its `launch` needs.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: a model that cannot be loaded.

    >>> build_page(device='cpu').title
    'timm_3g'
    """
    shelf = Shelf(options.models, options.device)
    shelf.load(shelf.names[0])
    answers = _Answers(shelf, options)
    names = list(shelf.names)
    examples = tempfile.TemporaryDirectory(prefix='timm_3g.examples.', dir=os.environ.get('GRADIO_TEMP_DIR'))
    with gr.Blocks(title=TITLE, delete_cache=(300, 3300), analytics_enabled=False) as blocks:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column():
                photo = gr.Image(
                    label='Image',
                    type='filepath',
                    image_mode=None,
                    sources=['upload', 'clipboard'],
                    height=320,
                    elem_id='photo',
                )
                # Gradio would open the file, and answer with a traceback if that fails. The path has been checked by then.
                setattr(photo, 'preprocess', _path_of)  # noqa: B010
                gr.Examples(
                    [[str(file)] for file in _example_files(Path(examples.name))],
                    photo,
                    label='Photographs',
                    example_labels=list(EXAMPLES),
                )
            with gr.Column():
                model = gr.Dropdown(names, value=names[0], label='Model', elem_id='model')
                label = gr.Label(label='Answer', num_top_classes=5, elem_id='answer')
        with gr.Tab('Re-weighting'):
            opacity = gr.Slider(0, 1, value=0.6, step=0.05, label='Strength of the map over the image', elem_id='opacity')
            maps = gr.Gallery(label='Maps and their product', columns=4, height='auto', elem_id='maps')
            without = gr.Markdown(visible=False)
        with gr.Tab('Compare'):
            with gr.Row():
                others = [gr.Dropdown(names, value=names[i % len(names)], label=f'Model {"AB"[i]}') for i in range(2)]
            comparing = gr.Button('Compare', elem_id='compare')
            with gr.Row():
                both = [gr.Label(label='Answer', num_top_classes=5, elem_id=f'answer-{"ab"[i]}') for i in range(2)]
        with gr.Tab('Statistics'):
            channel = gr.Number(0, label='Channel', precision=0, minimum=0, elem_id='channel')
            drawing = gr.Button('Draw', elem_id='draw')
            plot = gr.Plot(label='Activations and spectrum', elem_id='statistics')
        with gr.Tab('Many images'):
            files = gr.File(file_count='multiple', type='filepath', label='Images', elem_id='files')
            sorting = gr.Button('Classify all', elem_id='classify-all')
            table = gr.Dataframe(headers=list(COLUMNS), label='Predictions', interactive=False, elem_id='table')
            saved = gr.File(label='As CSV', interactive=False, elem_id='csv')
        shown = [label, maps, without]
        # One group: so many events at once, of whatever kind.
        group: dict[str, Any] = {'concurrency_id': 'page', 'concurrency_limit': AT_ONCE}
        for event in (photo.change, model.change, opacity.release):
            event(answers.show, [photo, model, opacity], shown, show_progress='minimal', **group)
        comparing.click(answers.compare, [photo, *others], both, **group)
        drawing.click(answers.statistics, [photo, model, channel], plot, **group)
        sorting.click(answers.many, [files, model], [table, saved], **group)
    blocks.examples_folder = examples  # it goes with the page
    return blocks.queue(max_size=options.queue, api_open=False)


def launch_options(options: PageOptions) -> dict[str, Any]:
    """Arguments of the page's `launch`."""
    uploads = Path(os.environ.get('GRADIO_TEMP_DIR') or Path(tempfile.gettempdir(), 'gradio'))
    quota = Middleware(UploadQuota, folder=uploads, most=options.files * options.megabytes * 2**20)
    return {
        'server_name': options.host,
        'app_kwargs': {'middleware': [quota]},
        'server_port': options.port,
        'share': options.share,
        'css': CSS,
        'max_file_size': f'{options.megabytes}mb',
        'footer_links': [],
        'quiet': True,
        'ssr_mode': False,
    }


@takes_fields_of(PageOptions)
def page(options: PageOptions) -> None:
    """Serve the page until the process is interrupted.

    Uploaded files live in a temporary folder that is removed in the end, and each for an hour at most.

    Args:
        options: the fields of `PageOptions`, by name, or one `PageOptions`.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: a model that cannot be loaded.
        OSError: the port is taken.
    """
    sweep(Path(tempfile.gettempdir()), NAME)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=start_of(NAME)))
        before = os.environ.get('GRADIO_TEMP_DIR')
        os.environ['GRADIO_TEMP_DIR'] = folder
        stack.callback(_restore, before)
        if threading.current_thread() is threading.main_thread():
            stack.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, _exit))
        blocks = build_page(options)
        if options.is_open:
            who = 'everybody who has the address' if options.share else 'other machines of the network'
            print(f'The page is open to {who}: anybody there can use this processor.', file=sys.stderr)
        _, local, public = blocks.launch(**launch_options(options), prevent_thread_lock=True)
        stack.callback(blocks.close, verbose=False)
        print(f'The page is at {local}{f" and {public}" if public else ""} Ctrl-C ends it.', flush=True)
        blocks.block_thread()


def _restore(folder: str | None) -> None:
    if folder is None:
        os.environ.pop('GRADIO_TEMP_DIR', None)
    else:
        os.environ['GRADIO_TEMP_DIR'] = folder


def _exit(number: int, frame: Any) -> None:
    """So that what is removed in the end is removed after SIGTERM, too."""
    raise SystemExit(128 + number)


def _path_of(payload: Any) -> str | None:
    return payload.path if payload else None


def _example_files(folder: Path) -> list[Path]:
    """The example photographs as files."""
    files = []
    for name, source in EXAMPLES.items():
        file = folder / f'{name}.jpg'
        Image.fromarray(getattr(skimage.data, source)()).save(file)
        files.append(file)
    return files


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


class _Answers:
    """What the page answers to each event."""

    def __init__(self, shelf: Shelf, options: PageOptions) -> None:
        self.shelf, self.options = shelf, options

    def _look(self, model: ShelfModel, file: str | None) -> Look:
        return look(model, file, self.options.megapixels)

    @in_words
    def show(self, file: str | None, name: str, opacity: float) -> tuple[Any, Any, Any]:
        """The classes, the maps, and a sentence where there are no maps."""
        if file is None:  # the visitor has removed the image
            return None, None, gr.update(visible=False)
        model = self.shelf.get(name)
        found = self._look(model, file)
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
        return rows, str(write_table(rows, Path(os.environ.get('GRADIO_TEMP_DIR', tempfile.gettempdir()))))
