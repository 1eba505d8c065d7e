"""Held-out log-likelihood against scipy: known distributions, degenerate sets."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import torch
from activations_by_hand import MAXIMUM, fit_gennorm
from common import EXACT

from timm_3g.figure1 import densities as _figure1_densities
from timm_3g.figure1 import heldout as _figure1_heldout
from timm_3g.figure1.heldout import compare


@pytest.mark.parametrize('name, shape', [('laplace', 0.5), ('normal', 1.0), ('light', 2.0)])
def test_gain_and_shape_of_known_distributions(name, shape):
    """The gain is the entropy of the Gaussian of the same variance minus that of the distribution."""
    rng = np.random.default_rng(1)
    exact = scipy.stats.gennorm(2 * shape)
    x = torch.from_numpy(exact.rvs((2, 4, 4000, 1), random_state=rng) * 3 + 5)
    found = compare(x[0], x[1])
    gain = scipy.stats.norm(0, exact.std()).entropy() - exact.entropy()
    assert gain < 1e-12 if name == 'normal' else gain > 0.02
    assert bool(found.fitted.all())
    np.testing.assert_allclose(found.shape.mean(), shape, rtol=0.05)
    np.testing.assert_allclose((found.generalized - found.gaussian).mean(), gain, atol=0.005)
    np.testing.assert_allclose(found.generalized.mean(), -exact.entropy() - np.log(3), atol=0.02)


def test_one_dimension_is_scipys():
    """Fitted on one half, weighed on the other, both ways; float32 samples as activations are."""
    rng = np.random.default_rng(2)
    x = (rng.standard_t(5, (2, 3, 150, 1)) * 0.1 + [[[0.0]], [[3.0]], [[-20.0]]]).astype(np.float32)
    found = compare(*torch.from_numpy(x))
    for s in range(3):
        gaussian, generalized, log_shape = [], [], []
        for train, test in ((x[0, s, :, 0], x[1, s, :, 0]), (x[1, s, :, 0], x[0, s, :, 0])):
            train, test = train.astype(float), test.astype(float)
            gaussian.append(scipy.stats.norm.logpdf(test, train.mean(), train.std()).mean())
            p, loc, scale = fit_gennorm(train)
            generalized.append(scipy.stats.gennorm.logpdf(test, p, loc, scale).mean())
            log_shape.append(np.log(p / 2))
        np.testing.assert_allclose(found.gaussian[s], np.mean(gaussian), **EXACT)
        np.testing.assert_allclose(found.generalized[s], np.mean(generalized), **MAXIMUM)
        np.testing.assert_allclose(found.shape[s].log(), np.mean(log_shape), atol=1e-5)


def test_two_dimensions_are_scipys():
    """The Gaussian is multivariate_normal; the other is eq. (1) of the paper, maximised by BFGS over scatter and shape."""
    rng = np.random.default_rng(3)
    x = rng.standard_t(4, (2, 120, 2)) @ np.array([[2.0, 0.3], [-0.7, 0.1]]) + [1.0, -2.0]

    def log_density(difference, p):
        tril = np.array([[np.exp(p[0]), 0], [p[1], np.exp(p[2])]])
        beta = np.exp(p[3])
        u = np.square(np.linalg.solve(tril, difference.T)).sum(0)
        return p[3] - np.log(np.pi) - scipy.special.gammaln(1 / beta) - np.log(2) / beta - p[0] - p[2] - 0.5 * u**beta

    gaussian, generalized = [], []
    for train, test in (x, x[::-1]):
        mean = train.mean(0)
        gaussian.append(scipy.stats.multivariate_normal(mean, np.cov(train.T, bias=True)).logpdf(test).mean())
        fit = scipy.optimize.minimize(lambda p, t=train - mean: -log_density(t, p).mean(), np.zeros(4), options={'gtol': 1e-7})
        generalized.append(log_density(test - mean, fit.x).mean())
    found = compare(*torch.from_numpy(x).unsqueeze(1))
    np.testing.assert_allclose(found.gaussian, [np.mean(gaussian)], **EXACT)
    np.testing.assert_allclose(found.generalized, [np.mean(generalized)], **MAXIMUM)


def test_degenerate_sets_are_left_out_and_touch_no_other():
    a, b = torch.randn(2, 8, 60, 2, dtype=torch.float64) * torch.rand(2, 8, 60, 1, dtype=torch.float64)
    alone = compare(a, b)
    assert bool(alone.fitted.all())
    bad = [0, 2, 3, 5, 6]
    a[0, :, 1] = 7.0  # constant
    b[2, 3, 0] = torch.nan
    a[3, 0, 0] = torch.inf
    b[5, :, 1] = 2 * b[5, :, 0]  # in a subspace
    a[6] = torch.cat([torch.zeros(2, 2), *2 * [torch.eye(2), -torch.eye(2)], torch.randint(5, (25, 2)).repeat(2, 1)])  # at loc
    a[6, -25:] *= -1
    angle = torch.arange(60, dtype=torch.float64) * torch.pi / 30
    a[7] = torch.stack([angle.cos(), angle.sin()], 1)  # the higher the shape, the better: no maximum, and yet no escape
    found = compare(a, b)
    assert found.fitted.tolist() == [s not in bad for s in range(8)]
    for figures, expected in zip(found[:3], alone[:3], strict=True):
        assert figures.isnan().tolist() == [s in bad for s in range(8)]
        torch.testing.assert_close(figures[[1, 4]], expected[[1, 4]], rtol=1e-6, atol=1e-8)
    assert found.generalized[7] < found.gaussian[7] - 1e3 and found.shape[7] > 5
    assert found.converged.tolist() == [s not in [*bad, 7] for s in range(8)]


def test_sets_are_compared_in_pieces(monkeypatch):
    a, b = torch.randn(2, 7, 40, 2)
    whole = compare(a, b)
    monkeypatch.setattr(_figure1_heldout, '_NUMBERS_AT_A_TIME', 3 * 80)
    for figures, expected in zip(compare(a, b), whole, strict=True):
        torch.testing.assert_close(figures, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('gain, says', [(-1e30, '<-1000'), (1e30, '>+1000'), (-999.4, '-999'), (0.01234, '+0.0123')])
def test_gains_that_are_figures(gain, says):
    assert _figure1_densities._nats(gain) == says


@pytest.mark.parametrize('samples', [torch.zeros(3, 9, 1), torch.randn(3, 2, 1), torch.full((3, 9, 2), torch.nan)])
def test_nothing_can_be_fitted(samples):
    found = compare(samples, samples)
    assert not bool(found.fitted.any()) and all(bool(t.isnan().all()) for t in found[:3])


def test_folds_without_samples_are_not_fitted():
    """One image with one position: half of it is nothing."""
    found = compare(torch.zeros(3, 0, 1), torch.zeros(3, 0, 1))
    assert not bool(found.fitted.any()) and bool(found.gaussian.isnan().all())


def test_losses_without_bound_are_losses():
    """Quantiles between two infinities are nan, which is no gain."""
    row = {'sets': 1, 'fitted': 1, 'no_maximum': 0, 'won': 0, 'shape': 0.1}
    said = _figure1_densities._summary([{**row, 'gain': gain} for gain in (-np.inf, -np.inf, -3.6e30, np.nan)])
    assert said[4:7] == ['<-1000'] * 3


def test_an_image_in_neither_fold_is_not_described():
    x = torch.randn(3, 1, 4, generator=torch.Generator().manual_seed(0)).double()
    x[2] = 1e6
    (row,) = _figure1_densities._channels('l', x)
    assert row['samples'] == 8 and abs(row['mean']) < 10
