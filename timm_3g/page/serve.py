"""The page as it is served: where, how much of it, and what is removed in the end."""

import os
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from starlette.middleware import Middleware

from timm_3g.utils.options import takes_fields_of
from timm_3g.utils.temporary import start_of, sweep

from .build import build_page
from .options import PageOptions
from .quota import UploadQuota

NAME = 'timm_3g.page'  # of the temporary folder

# Gradio's gallery keeps its columns on a narrow screen, and is as high as a few rows.
CSS = """
#maps .grid-wrap { min-height: 0; height: auto; max-height: none; }
@media (max-width: 640px) { #maps .grid-container { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""


def launch_options(options: PageOptions) -> dict[str, Any]:
    """Arguments of the page's `launch`.

    >>> launch_options(PageOptions(megabytes=5))['max_file_size']
    '5mb'
    """
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

    >>> page(port=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: port must be from 1 to 65535; got 0.
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
