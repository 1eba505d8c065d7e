"""Shared by all tests: the registries that tests iterate over, and tolerances with names."""

# isort: off
from local_hub import HUB  # first: before anything imports huggingface_hub
# isort: on

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from fakehub import FakeHub
from PIL import Image

import timm_3g
from timm_3g.cli import _timm_scripts
from timm_3g.layers.create_pool import POOLS
from timm_3g.models import _fetched

MODELS = [name for name in timm.list_models() if timm.models.model_entrypoint(name).__module__.startswith('timm_3g.')]
SMALL = 'resnet10_mini_3g'
LITE = 'tf_efficientnet_lite0_3g'  # the other class of models

# float64 against float64: only the order of sums differs.
EXACT = {'rtol': 1e-10, 'atol': 1e-12}
# float32 against float64, through covariance, five steps and a Linear.
FLOAT32 = {'rtol': 1e-4, 'atol': 1e-6}

assert timm_3g.list_pools()[: len(POOLS)] == list(POOLS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
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


def features(batch: int = 2, channels: int = 12, height: int = 5, width: int = 4, **kwargs) -> torch.Tensor:
    """What a backbone hands over: non-negative, correlated channels, every image different."""
    mix = torch.randn(channels, channels, **kwargs) / channels**0.5
    return torch.einsum('cd,bdhw->bchw', mix, torch.randn(batch, channels, height, width, **kwargs)).relu()


def assert_agree(name: str, got: torch.Tensor, expected: torch.Tensor, **tolerance) -> None:
    """`torch.testing.assert_close` of a pooling's vectors, computed in two ways that add in another order.

    The signed root of cbp jumps at 0, and a sum that is 0 in one order may be 1e-9 in another: two of its entries may differ.
    """
    wrong = ~torch.isclose(got, expected, **tolerance)
    if name != 'cbp' or int(wrong.sum()) > 2:
        torch.testing.assert_close(got, expected, **tolerance)


def image_folder(root: Path, splits: dict[str, int], classes: int = 3, size: tuple[int, int] = (32, 32)) -> Path:
    """An ImageFolder of noisy one-coloured PNGs that a network can learn: SPLIT/CLASS/N.png, so many of each class."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (classes, 3))
    for split, number in splits.items():
        for c in range(classes):
            folder = root / split / f'class{c}'
            folder.mkdir(parents=True)
            for i in range(number):
                noise = rng.normal(0, 40, (*size[::-1], 3))
                Image.fromarray(np.clip(colours[c] + noise, 0, 255).astype(np.uint8)).save(folder / f'{i}.png')
    return root


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
    command = [sys.executable, str(Path(__file__).with_name('publish_through_xet.py')), str(folder)]
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
    return torch.device('cuda')


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tests that did not run for want of timm's scripts, a GPU or Xet are no success; say it where everybody looks."""
    if _without_xet:
        terminalreporter.section('NOT RUN: hf_xet is not here, or has dropped its local mode', sep='!', red=True, bold=True)
        terminalreporter.write_line('Transfers through Xet were not tested; those through LFS were.')
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
