"""Rank correlation against counted ranks, misfit against least squares."""

import numpy as np
import pytest
import torch
from activations_by_hand import FIXED_POINT
from common import EXACT

from timm_3g.figure1.agreement import misfit, rank_correlation


def ranks_by_counting(x):
    """The mean rank of each value among ties."""
    return (x[:, None] > x).sum(1) + (x[:, None] == x).sum(1) / 2


def test_rank_correlation_is_the_correlation_of_ranks_with_ties():
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 6, (2, 5, 30)).astype(float)
    b[0], b[1] = np.exp(a[0]), -a[1]
    found = rank_correlation(torch.from_numpy(a), torch.from_numpy(b).float())
    expected = [np.corrcoef(ranks_by_counting(x), ranks_by_counting(y))[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, **EXACT)
    np.testing.assert_allclose(found[:2], [1, -1], **EXACT)
    assert bool(rank_correlation(torch.ones(1, 4), torch.arange(4.0)[None]).isnan())


@pytest.mark.parametrize('angle', [0.0, 0.3, np.pi / 2, 2.0, np.pi])
def test_misfit_is_the_sine_of_the_angle(angle):
    basis = torch.linalg.qr(torch.randn(12, 2, dtype=torch.float64)).Q.T.view(2, 1, 3, 4)
    b = 5 * (np.cos(angle) * basis[0] + np.sin(angle) * basis[1])
    np.testing.assert_allclose(misfit(0.1 * basis[0], b), [np.sin(angle)], **FIXED_POINT)


def test_misfit_is_the_residual_of_least_squares():
    a, b = np.random.default_rng(5).normal(size=(2, 3, 7))
    residuals = [np.linalg.lstsq(x[:, None], y, rcond=None)[1][0] ** 0.5 / np.linalg.norm(y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(misfit(torch.from_numpy(a), torch.from_numpy(b)), residuals, **EXACT)
