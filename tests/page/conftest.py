"""A page that is served by `timm-3g page`, in a process of its own."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import timm
import torch

from timm_3g.page.options import SHIPPED

SECONDS = 60


@pytest.fixture
def free_port() -> str:
    return _free_port()


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


@contextmanager
def serve(folder: Path, *models: str, end: int = signal.SIGINT) -> Iterator[tuple[str, Path]]:
    """Address and log of a page. It is ended by the signal `end`, and must leave no upload behind."""
    command = [sys.executable, '-m', 'timm_3g', 'page', '--device', 'cpu', '--port', _free_port(), '--models', *models]
    log = folder / 'log'
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'TMPDIR': str(folder)}
    start = {'stdout': log.open('w'), 'stderr': subprocess.STDOUT, 'env': environment, 'preexec_fn': _heed_interrupts}
    with start['stdout'], subprocess.Popen(command, **start) as process:
        try:
            yield _address(log, process), log
            process.send_signal(end)
            process.wait(SECONDS)
        finally:
            process.kill()
    assert not list(folder.glob('.timm_3g.page.*')) and not list(folder.glob('timm_3g.*')), 'uploads are left behind'


def _heed_interrupts() -> None:
    """What a shell starts in the background ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _address(log: Path, process: 'subprocess.Popen[bytes]') -> str:
    """What the command prints once it serves."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r'http://[\d.]+:\d+/', log.read_text())
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture(scope='module')
def address(tmp_path_factory) -> Iterator[str]:
    """Of a page with the weights that ship, the same from a folder, and a network without re-weighting."""
    folder = tmp_path_factory.mktemp('page')
    torch.save(timm.create_model('resnet10t').state_dict(), folder / 'timms.pth')
    shipped = Path(timm.get_pretrained_cfg(SHIPPED).file).parent
    with serve(folder, SHIPPED, f'local-dir:{shipped}', f'resnet10t={folder / "timms.pth"}') as (found, _):
        yield found
