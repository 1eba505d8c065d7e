"""Shared by the tests: the registries that they iterate over, tolerances with names, features, folders of images."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import timm_3g
from timm_3g.checkpoints import is_ours
from timm_3g.layers.create_pool import POOLS

ROOT = Path(__file__).parents[2]  # of the repository
REGISTERED = [name for name in timm.list_models() if timm.models.model_entrypoint(name).__module__.startswith('timm_3g.')]
FIRST_ORDER = [name for name in REGISTERED if not is_ours(name)]  # networks that timm lacks, with timm's own pooling
MODELS = [name for name in REGISTERED if is_ours(name)]
SMALL = 'resnet10_mini_3g'
LITE = 'tf_efficientnet_lite0_3g'  # the other class of models

# Gates at random, as the authors start them: where every map is constant, a test of a map proves little.
create_global_pool = partial(timm_3g.create_global_pool, head_init='orig')

# float64 against float64: only the order of sums differs.
EXACT = {'rtol': 1e-10, 'atol': 1e-12}
# float32 against float64, through covariance, five steps and a Linear.
FLOAT32 = {'rtol': 1e-4, 'atol': 1e-6}

assert timm_3g.list_pools()[: len(POOLS)] == list(POOLS)


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


def shallow(name: str, **options: object) -> nn.Module:
    """A pooling and a classifier behind one convolution: where a deep network would take longer and prove no more."""
    few = {'num_reweights': 1} if name in POOLS and 'num_reweights' in POOLS[name].options else {}
    pool = create_global_pool(name, 16, 8, **few, **options)
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), pool, nn.Linear(pool.out_features, 10))


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


def slow_unless(fast: bool, *values: object) -> object:
    """Values of one case of a parametrized test, which only `pytest -m slow` runs unless `fast`."""
    return pytest.param(*values, marks=() if fast else pytest.mark.slow)
