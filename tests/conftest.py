"""Fixtures of all tests, and red lines at the end of the report for tests that could not run."""

# isort: off
import os
import shutil

if 'PYTEST_XDIST_WORKER' in os.environ:  # one thread each, before anything imports torch: workers share the cores
    os.environ.setdefault('OMP_NUM_THREADS', '1')
from local_hub import HUB  # first: before anything imports huggingface_hub
# isort: on

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakehub import FakeHub

from timm_3g.checkpoints import fetched as _fetched
from timm_3g.training import timm_scripts as _timm_scripts

# pytest adds its handlers to every logger that does not propagate, and takes them off, six times a test. Torch has some 50.
for _name, _logger in logging.root.manager.loggerDict.items():
    if _name.startswith('torch') and isinstance(_logger, logging.Logger):
        _logger.propagate = True

# torch.jit knows an operator by its id() and does not hold it. Importing torch.ao.quantization frees four, and what takes their
# place in memory, such as the padding of a convolution, is a builtin that cannot be scripted. What is held keeps its id.
_builtins = []
_register_builtin = torch.jit._builtins._register_builtin


def _hold_builtin(operator: Any, name: str) -> None:
    _builtins.append(operator)
    _register_builtin(operator, name)


torch.jit._builtins._register_builtin = _hold_builtin


@pytest.fixture(autouse=True)
def _seed() -> None:
    # torch.manual_seed keeps a stack trace for each GPU that it does not find, at every call.
    torch.default_generator.manual_seed(0)
    torch._dynamo.reset()


@pytest.fixture(autouse=True, scope='session')
def _no_fetched_weights(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What `timm-3g get` has brought to this machine must not help; tests of it name a folder of their own."""
    _fetched.cache_root = lambda: tmp_path_factory.getbasetemp() / 'nothing fetched'


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The local Hub, empty, with a cold cache and the token of `acme`; the client does not sleep between its retries."""
    HUB.repos.clear()
    HUB.lfs.clear()
    HUB.requests.clear()
    HUB.fail.clear()
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'hub cache'))
    monkeypatch.setenv('HF_TOKEN', 'hf_acme')
    monkeypatch.setattr('huggingface_hub.utils._http.time.sleep', lambda seconds: None)
    yield HUB
    assert not HUB.errors, HUB.errors


_without_script: set[str] = set()


@pytest.fixture
def timm_script(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """The path of one of timm's scripts, from $TIMM_SCRIPTS or the cache. Tests never download: without one they are skipped,
    and the end of the report says so."""

    def find(name: str) -> Path:
        cached = _timm_scripts.cache_dir() / name
        if not os.environ.get(_timm_scripts.ENV) and not _timm_scripts.is_pinned(cached):
            _without_script.add(request.node.nodeid)
            pytest.skip(f"timm's {name} is not at hand: set TIMM_SCRIPTS to a checkout of timm")
        return _timm_scripts.find_script(name)

    return find


_without_xet: set[str] = set()


@pytest.fixture
def skip_without_xet(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """What to call where hf_xet cannot transfer to the disk: the test ends as skipped, and the report with a red line."""

    def skip(reason: str) -> None:
        _without_xet.add(request.node.nodeid)
        pytest.skip(reason)

    return skip


@pytest.fixture(autouse=True, scope='session')
def xet_process(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """publish_through_xet.py and its folder; started before the first test, if one is for it, since it takes 8 s."""
    if not any(item.path.name == 'test_hub_xet.py' for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp('xet')
    command = [sys.executable, str(Path(__file__).parent / 'support' / 'publish_through_xet.py'), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        yield process, folder
        process.kill()


_without_gpu: set[str] = set()


@pytest.fixture
def gpu(request: pytest.FixtureRequest) -> torch.device:
    """A CUDA device. Where there is none the test does not run, and the report ends with a red line that says so."""
    if not torch.cuda.is_available():
        _without_gpu.add(request.node.nodeid)
        pytest.skip('there is no GPU here')
    torch.cuda.manual_seed_all(0)
    return torch.device('cuda')


_without_browser: set[str] = set()


@pytest.fixture(scope='session')
def chromium() -> str:
    """The path of Chromium."""
    return shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome') or ''


@pytest.fixture(autouse=True)
def _needs_browser(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker('browser') and not request.getfixturevalue('chromium'):
        _without_browser.add(request.node.nodeid)
        pytest.skip('there is no Chromium here')


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests that did not run for want of something on this machine are no success; say it where everybody looks."""
    if _without_xet:
        terminalreporter.section('NOT RUN: hf_xet is not here, or has dropped its local mode', sep='!', red=True, bold=True)
        terminalreporter.write_line('Transfers through Xet were not tested; those through LFS were.')
    if _without_browser:
        terminalreporter.section('NOT RUN: there is no Chromium here', sep='!', red=True, bold=True)
        terminalreporter.write_line(f'{len(_without_browser)} tests of the page need one: apt-get install chromium')
    if _without_gpu:
        terminalreporter.section('NOT RUN: there is no GPU here', sep='!', red=True, bold=True)
        terminalreporter.write_line(f'{len(_without_gpu)} tests need one.')
    if _without_script:
        terminalreporter.section("NOT RUN: timm's scripts are not at hand", sep='!', red=True, bold=True)
        terminalreporter.write_line(
            f'{len(_without_script)} tests need them. Set TIMM_SCRIPTS to a checkout of timm and run again:'
        )
        terminalreporter.write_line(
            'git clone https://github.com/huggingface/pytorch-image-models; export TIMM_SCRIPTS=$PWD/pytorch-image-models'
        )
