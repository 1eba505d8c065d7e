"""What stands where on the page, and which answer belongs to which event."""

import os
import tempfile
from pathlib import Path
from typing import Any

import gradio as gr
import skimage.data
from PIL import Image

from timm_3g.utils.options import takes_fields_of

from .answers import Answers
from .options import PageOptions
from .shelf import Shelf
from .table import COLUMNS

# Photographs that scikit-image ships.
EXAMPLES = {
    'cat': 'chelsea',
    'astronaut': 'astronaut',
    'coffee': 'coffee',
    'rocket': 'rocket',
    'cameraman': 'camera',
}

TITLE = 'timm_3g'
AT_ONCE = 2  # events, for all visitors together
INTRODUCTION = """# timm_3g
Second-order pooling for timm. Drop, paste or choose an image. It stays on the machine that runs this page."""


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
    own = tempfile.TemporaryDirectory(prefix='timm_3g.own.', dir=os.environ.get('GRADIO_TEMP_DIR'))
    answers = Answers(shelf, options, Path(own.name))
    names = list(shelf.names)
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
                photo.preprocess = _path_of
                gr.Examples(
                    [[str(file)] for file in _example_files(Path(own.name))],
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
    blocks.own_files = own  # they go with the page
    return blocks.queue(max_size=options.queue, api_open=False)


def _path_of(payload: Any) -> str | None:
    return payload.path if payload else None


def _example_files(folder: Path) -> list[Path]:
    """The example photographs as files, without loss: `timm-3g predict` gives the same answers."""
    files = []
    for name, source in EXAMPLES.items():
        file = folder / f'{name}.png'
        Image.fromarray(getattr(skimage.data, source)()).save(file)
        files.append(file)
    return files
