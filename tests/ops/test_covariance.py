"""covariance and append_ones against numpy and closed forms."""

import numpy as np
import pytest
import reference
import torch
from common import EXACT

from timm_3g.ops import append_ones, covariance


@pytest.mark.parametrize('lead', [(), (3,), (2, 3)])
@pytest.mark.parametrize('centered', [True, False])
def test_equals_numpy(lead, centered):
    x = torch.randn(*lead, 4, 7, dtype=torch.float64) + 2.0
    ours = covariance(x, centered, eps=0.125).reshape(-1, 4, 4)
    for got, one in zip(ours, x.reshape(-1, 4, 7), strict=True):
        np.testing.assert_allclose(got, reference.covariance(one.numpy(), centered, 0.125), **EXACT)


def test_is_numpy_cov_with_bias():
    x = torch.randn(5, 9, dtype=torch.float64)
    np.testing.assert_allclose(covariance(x), np.cov(x.numpy(), bias=True), **EXACT)


def test_one_position_is_eps_identity():
    assert torch.equal(covariance(torch.randn(2, 3, 1), eps=0.5), 0.5 * torch.eye(3).expand(2, 3, 3))


def test_large_mean_keeps_digits():
    x = torch.randn(8, 50, dtype=torch.float64)
    shifted = covariance((x + 1e4).float())
    torch.testing.assert_close(shifted.double(), covariance(x), rtol=5e-3, atol=5e-3)  # x itself keeps 1e-3 of its digits


def test_gaussian_embedding_blocks():
    x = torch.randn(2, 3, 6, dtype=torch.float64)
    got = covariance(append_ones(x), centered=False)
    for mat, one in zip(got, x, strict=True):
        np.testing.assert_allclose(mat, reference.gaussian_embedding(one.numpy()), **EXACT)
    mean = x.mean(-1)
    torch.testing.assert_close(got[:, :3, 3], mean)
    torch.testing.assert_close(got[:, :3, :3], covariance(x) + mean.unsqueeze(2) * mean.unsqueeze(1))
    assert torch.equal(got[:, 3, 3], torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize('function', [covariance, append_ones])
def test_gradcheck(function):
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)


@pytest.mark.parametrize('eps', [-1.0, float('nan')])
def test_an_eps_below_zero(eps):
    with pytest.raises(ValueError, match=f'eps must not be negative; got {eps}'):
        covariance(torch.ones(2, 3), eps=eps)
