"""Shared by all tests: the registries that tests iterate over, and tolerances with names."""

import pytest
import timm
import torch

import timm_3g
from timm_3g.layers.create_pool import POOLS

MODELS = sorted({*timm.list_models(module='resnet_3g'), *timm.list_models(module='resnet_gcp')})
SMALL = 'resnet10_mini_3g'

# float64 against float64: only the order of sums differs.
EXACT = {'rtol': 1e-10, 'atol': 1e-12}
# float32 against float64, through covariance, five steps and a Linear: the bound.
FLOAT32 = {'rtol': 1e-4, 'atol': 1e-6}

assert timm_3g.list_pools()[: len(POOLS)] == list(POOLS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def features(batch: int = 2, channels: int = 12, height: int = 5, width: int = 4, **kwargs) -> torch.Tensor:
    """What a backbone hands over: non-negative, correlated channels, every image different."""
    mix = torch.randn(channels, channels, **kwargs) / channels**0.5
    return torch.einsum('cd,bdhw->bchw', mix, torch.randn(batch, channels, height, width, **kwargs)).relu()
