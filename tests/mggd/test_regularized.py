"""regularized_covariance against numpy's iteration of eqs. (3) and (6), scipy's minimizer of eq. (5), and gradcheck."""

import math
import re
import warnings
from itertools import pairwise, product

import numpy as np
import pytest
import torch
from common import EXACT
from scipy import linalg, optimize
from torch import Tensor

from timm_3g.mggd import regularized_covariance, regularized_loss, robust_covariance, robust_step, subtract, unrolled_covariance

# Both iterate until the last step is at most 1e-10 of the matrix, or to rounding.
CONVERGED = {'rtol': 1e-8, 'atol': 1e-9}
# BFGS with derivatives by differences ends where the loss is flat to 1e-15 or so: the square root of that, and some.
MINIMIZED = {'rtol': 1e-4, 'atol': 1e-5}
# Central differences of a loss of size 10 with steps of 1e-5: 1e-10 from the third derivative, 1e-10 from rounding.
STATIONARY = 1e-7

BOTH = pytest.mark.parametrize('weights', ['mm', 'pascal'])


def samples(*batch: int, num: int = 12, dim: int = 3, seed: int = 0) -> Tensor:
    """(*batch, num, dim), float64, some far out, correlated, of scale 1 and location near 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((*batch, num, dim)) * np.exp(rng.standard_normal((*batch, num, 1)))
    return 1 + torch.from_numpy(x @ (np.eye(dim) + 0.4))


def centred(x: Tensor) -> np.ndarray:
    return (x - x.mean(-2, keepdim=True)).numpy()


def distances(x: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.einsum('ni,ij,nj->n', x, np.linalg.inv(scatter), x)


def weights_of(u: np.ndarray, dim: int, beta: float, weights: str) -> np.ndarray:
    return beta * u ** (beta - 1) if weights == 'mm' else dim * len(u) * u ** (beta - 1) / (u**beta).sum()


def eq6(x: np.ndarray, weight: np.ndarray, lam: float, half: float = 2) -> np.ndarray:
    """One step with the weights held; half = 1 is what the paper prints."""
    sigma, vectors = np.linalg.eigh(np.einsum('n,ni,nj->ij', weight / len(x), x, x))
    a = (1 - lam) / (half * lam)
    return vectors * (np.sqrt(a * a + np.maximum(sigma, 0) / lam) - a) @ vectors.T


def reference(x: np.ndarray, beta: float, lam: float, weights: str) -> np.ndarray:
    """Half steps from the identity, to rounding."""
    scatter = np.eye(x.shape[1])
    for _ in range(2000):
        step = eq6(x, weights_of(distances(x, scatter), x.shape[1], beta, weights), lam) - scatter
        scatter = scatter + 0.5 * step
        if np.abs(step).max() < 1e-13 * np.abs(scatter).max():
            return scatter
    raise AssertionError('the reference does not converge')


def eq5(x: np.ndarray, scatter: np.ndarray, beta: float, lam: float, weight: np.ndarray | None = None) -> float:
    """J, or J with the weights held."""
    u, s = distances(x, scatter), np.linalg.eigvalsh(scatter)
    return float(np.log(s).sum() + np.mean(u**beta if weight is None else weight * u) + lam * (s - np.log(s) - 1).sum())


def minimizer(loss, dim: int, start: np.ndarray) -> np.ndarray:
    """Over all positive definite matrices, as exponentials of symmetric ones."""

    def scatter(parameters: np.ndarray) -> np.ndarray:
        lower = np.zeros((dim, dim))
        lower[np.tril_indices(dim)] = parameters
        logarithms, vectors = np.linalg.eigh(lower + lower.T)
        return vectors * np.exp(logarithms) @ vectors.T

    return scatter(optimize.minimize(lambda p: loss(scatter(p)), start, method='BFGS', options={'gtol': 1e-6}).x)


def slopes(loss, scatter: np.ndarray) -> np.ndarray:
    """Derivatives of a loss along all symmetric directions, relative to the scatter."""
    dim, root, out = len(scatter), linalg.sqrtm(scatter), []
    for i, j in zip(*np.tril_indices(dim), strict=True):
        direction = np.zeros((dim, dim))
        direction[i, j] = direction[j, i] = 1e-5
        out.append((loss(scatter + root @ direction @ root) - loss(scatter - root @ direction @ root)) / 2e-5)
    return np.array(out)


# Values


@BOTH
@pytest.mark.parametrize('lam', [0.3, 1.0, 2.5])
@pytest.mark.parametrize('beta', [0.25, 0.5, 1.0, 1.4])
def test_equals_numpy(beta, lam, weights):
    x = samples(2)
    for got, one in zip(regularized_covariance(x, beta, lam, weights), centred(x), strict=True):
        np.testing.assert_allclose(got, reference(one, beta, lam, weights), **CONVERGED)


@pytest.mark.parametrize(
    ('beta', 'lam', 'weights'), [(3.0, 1.0, 'mm'), (6.0, 0.2, 'mm'), (3.0, 1.0, 'pascal'), (4.0, 2.0, 'pascal')]
)
def test_equals_numpy_where_full_steps_go_to_and_fro(beta, lam, weights):
    x = samples(num=60)
    np.testing.assert_allclose(
        regularized_covariance(x, beta, lam, weights), reference(centred(x), beta, lam, weights), **CONVERGED
    )


@pytest.mark.parametrize('lam', [0.3, 0.8])
def test_small_samples_lose_no_digits(lam):
    """Where a is above 0, s is sigma / (1 - lam) to first order: sqrt(a^2 + sigma / lam) - a would have no digit left."""
    x = 1e-8 * samples()
    got = regularized_covariance(x, 1.0, lam, tol=1e-12)
    np.testing.assert_allclose(got, np.cov(x.T, bias=True) / (1 - lam), rtol=1e-10)


@pytest.mark.parametrize('loc', [0, 1.5, torch.tensor([1.0, 0.5, -2.0]), torch.zeros(2, 3)])
def test_known_location(loc):
    x = samples(2)
    got = regularized_covariance(x, 0.5, 0.8, loc=loc)
    for i, one in enumerate((x - (loc.unsqueeze(-2) if torch.is_tensor(loc) else loc)).numpy()):
        np.testing.assert_allclose(got[i], reference(one, 0.5, 0.8, 'mm'), **CONVERGED)


def test_root_of_the_covariance():
    """lam = 1 and beta = 1, where neither weights nor shrinkage are left."""
    x = samples(2)
    for got, one in zip(regularized_covariance(x, 1.0, 1.0), centred(x), strict=True):
        np.testing.assert_allclose(got, linalg.sqrtm(one.T @ one / len(one)), **EXACT)


@pytest.mark.parametrize(('beta', 'lam'), [(0.3, 0.5), (0.7, 1.0), (1.0, 2.0), (1.6, 0.7)])
def test_loss_is_eq_5(beta, lam):
    x = samples(2)
    scatter = torch.stack([torch.diag(torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)) + 0.2] * 2)
    for got, one in zip(regularized_loss(x, scatter, beta, lam), x, strict=True):
        von_neumann = scatter[0].numpy() - linalg.logm(scatter[0].numpy()) - np.eye(3)
        power = np.mean(distances(one.numpy(), scatter[0].numpy()) ** beta)
        expected = np.linalg.slogdet(scatter[0].numpy())[1] + power + lam * np.trace(von_neumann)
        np.testing.assert_allclose(got, expected, **EXACT)


@pytest.mark.parametrize(('beta', 'lam'), [(0.25, 0.4), (0.6, 1.0), (1.0, 3.0), (1.5, 0.4), (3.0, 1.0), (4.0, 0.2)])
def test_mm_weights_end_where_eq_5_is_stationary(beta, lam):
    """Above beta = 1 too, where the plain steps may go to and fro."""
    x = samples()
    got = regularized_covariance(x, beta, lam).numpy()
    assert np.abs(slopes(lambda scatter: eq5(centred(x), scatter, beta, lam), got)).max() < STATIONARY


def test_plain_steps_do_not_converge_for_a_large_beta():
    x = samples()
    scatter = np.eye(3)
    for _ in range(300):
        before, scatter = scatter, eq6(centred(x), weights_of(distances(centred(x), scatter), 3, 3.0, 'mm'), 1.0)
    assert np.linalg.norm(scatter - before) > np.linalg.norm(scatter)


@pytest.mark.parametrize('start', [-0.5, 0.5])
@pytest.mark.parametrize(('beta', 'lam'), [(0.4, 0.5), (0.8, 2.0)])
def test_mm_weights_end_at_the_minimum_of_eq_5_and_pascals_do_not(beta, lam, start):
    x = samples()
    found = minimizer(lambda scatter: eq5(centred(x), scatter, beta, lam), 3, np.full(6, start) * [1, 0.2, 1, 0.2, 0.2, 1])
    np.testing.assert_allclose(regularized_covariance(x, beta, lam), found, **MINIMIZED)
    pascal = regularized_covariance(x, beta, lam, 'pascal').numpy()
    assert eq5(centred(x), pascal, beta, lam) > eq5(centred(x), found, beta, lam) + 0.01
    assert np.abs(slopes(lambda scatter: eq5(centred(x), scatter, beta, lam), pascal)).max() > 0.1


# Steps


@BOTH
@pytest.mark.parametrize('lam', [0.4, 1.0, 2.0])
def test_each_step_is_the_one_minimizer_with_the_weights_held(lam, weights):
    x, beta = centred(samples()), 0.6
    scatter = np.eye(3) + 0.3
    weight = weights_of(distances(x, scatter), 3, beta, weights)
    got = robust_step(torch.from_numpy(x)[None], torch.from_numpy(scatter)[None], beta, lam, weights == 'pascal')[0].numpy()

    def held(scatter: np.ndarray) -> float:
        return eq5(x, scatter, beta, lam, weight)

    assert np.abs(slopes(held, got)).max() < STATIONARY
    for start in (np.zeros(6), np.array([1.0, 0.3, -1.0, 0.2, -0.3, 0.5])):
        np.testing.assert_allclose(minimizer(held, 3, start), got, **MINIMIZED)
    # What the paper prints, lam in place of 2 lam, is another matrix but for lam = 1.
    printed = eq6(x, weight, lam, half=1)
    if lam == 1:
        np.testing.assert_allclose(printed, got, **EXACT)
    else:
        assert held(printed) > held(got) + 0.01 and np.abs(slopes(held, printed)).max() > 0.1


@pytest.mark.parametrize('lam', [0.5, 1.0, 2.0])
@pytest.mark.parametrize('beta', [0.2, 0.5, 0.8, 1.0])
def test_mm_steps_never_raise_the_loss(beta, lam):
    x = torch.from_numpy(centred(samples(4)))
    for size in (0.01, 1.0, 100.0):
        scatter = size * (torch.eye(3, dtype=torch.float64) + 0.3).expand(4, 3, 3)
        losses = [regularized_loss(x, scatter, beta, lam)]
        for _ in range(30):
            scatter = robust_step(x, scatter, beta, lam, False)
            losses.append(regularized_loss(x, scatter, beta, lam))
        assert all((after <= before + 1e-12 * (1 + before.abs())).all() for before, after in pairwise(losses))
        assert (losses[-1] < losses[0] - 0.01).all()


@pytest.mark.parametrize(('beta', 'lam'), [(3.0, 0.5), (4.0, 0.2), (6.0, 1.0)])
def test_above_one_the_steps_are_shorter_where_the_loss_would_rise(beta, lam):
    x = torch.from_numpy(centred(samples(4)))
    losses = []
    for max_steps in range(1, 11):
        with warnings.catch_warnings():  # stopped early
            warnings.simplefilter('ignore')
            losses.append(regularized_loss(x, regularized_covariance(x, beta, lam, loc=0, max_steps=max_steps), beta, lam))
    assert all((after <= before + 1e-10 * (1 + before.abs())).all() for before, after in pairwise(losses))


@pytest.mark.parametrize('beta', [0.4, 0.8])
def test_pascals_steps_raise_the_loss(beta):
    x = torch.from_numpy(centred(samples(4)))
    scatter = regularized_covariance(x, beta, 0.5)
    losses = [regularized_loss(x, scatter, beta, 0.5)]
    for _ in range(30):
        scatter = robust_step(x, scatter, beta, 0.5, True)
        losses.append(regularized_loss(x, scatter, beta, 0.5))
    assert (losses[1] > losses[0] + 1e-4).all() and (losses[-1] > losses[0] + 1e-3).all()


@pytest.mark.parametrize('beta', [0.4, 0.8])
@pytest.mark.parametrize('lam', [0.3, 1.0, 2.5])
def test_pascals_steps_never_raise_their_own_loss(beta, lam):
    """(d / beta) log mean(u^beta) in place of mean(u^beta), by numpy."""
    x, scatter = centred(samples(1)), np.eye(3)[None]
    losses = []
    for _ in range(30):
        u, values = distances(x[0], scatter[0]), np.linalg.eigvalsh(scatter[0])
        losses.append((1 - lam) * np.log(values).sum() + 3 / beta * np.log((u**beta).mean()) + lam * (values.sum() - 3))
        own = regularized_loss(torch.from_numpy(x), torch.from_numpy(scatter), beta, lam, True)
        np.testing.assert_allclose(own, losses[-1], **EXACT)
        scatter = robust_step(torch.from_numpy(x), torch.from_numpy(scatter), beta, lam, True).numpy()
    assert all(after <= before + 1e-10 for before, after in pairwise(losses)) and losses[-1] < losses[0] - 1e-2


@pytest.mark.parametrize('beta', [4.0, 6.0])
@pytest.mark.parametrize('lam', [0.2, 0.5])
def test_pascals_weights_with_a_large_beta_and_a_small_lam(beta, lam):
    """Full steps make the scatter singular here."""
    x = centred(samples(num=60))
    got = regularized_covariance(torch.from_numpy(x), beta, lam, 'pascal', max_steps=1000, tol=1e-8).numpy()
    np.testing.assert_allclose(eq6(x, weights_of(distances(x, got), 3, beta, 'pascal'), lam), got, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize('lam', [0.3, 1.0, 2.5])
@pytest.mark.parametrize('beta', [0.4, 1.0, 1.5])
def test_pascals_fixed_points_have_trace_d(beta, lam):
    scatter = regularized_covariance(samples(3), beta, lam, 'pascal', tol=1e-12)
    np.testing.assert_allclose(torch.einsum('bii->b', scatter), 3, rtol=1e-10)


@pytest.mark.parametrize('beta', [0.5, 1.5])
def test_scale_is_no_matter_to_pascals_weights_alone(beta):
    x = samples()
    one, large = (regularized_covariance(s * x, beta, 0.8, 'pascal') for s in (1, 1e3))
    torch.testing.assert_close(large, one, **CONVERGED)
    assert (regularized_covariance(1e3 * x, beta, 0.8) - regularized_covariance(x, beta, 0.8)).norm() > 10


def test_more_lam_draws_to_the_identity():
    x = 5 * samples()
    gaps = [float((regularized_covariance(x, 0.5, lam) - torch.eye(3)).norm()) for lam in (0.5, 1.0, 4.0, 1e3)]
    assert sorted(gaps, reverse=True) == gaps and gaps[-1] < 0.05


@BOTH
@pytest.mark.parametrize(('beta', 'lam'), [(0.2, 1.1), (0.5, 0.7), (1.0, 2.0)])
def test_unrolled_steps_end_at_the_fixed_point(beta, lam, weights):
    x = torch.from_numpy(centred(samples(2)))
    got = unrolled_covariance(x, beta, lam, weights == 'pascal')
    torch.testing.assert_close(got, regularized_covariance(x, beta, lam, weights), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize('beta', [0.1, 1.5, 8.0])
def test_unrolled_steps_refuse_shapes_that_need_more(beta):
    with pytest.raises(ValueError, match=r'TorchScript and tracing need beta from 0\.2 to 1'):
        unrolled_covariance(samples(2), beta, 2.0, False)
    with pytest.raises(ValueError, match=r'need lam of at least 0\.5 with pascal'):
        unrolled_covariance(samples(2), 0.2, 0.1, True)


# Few samples


@BOTH
@pytest.mark.parametrize('lam', [1.01, 2.0, 5.0])
def test_few_samples_and_a_large_lam(lam, weights):
    """Three samples in five dimensions: two directions that they do not know, or three after their mean."""
    x = samples(num=3, dim=5)
    for loc, unknown in ((0, 2), (None, 3)):
        eigenvalues = torch.linalg.eigvalsh(regularized_covariance(x, 0.6, lam, weights, loc))
        np.testing.assert_allclose(eigenvalues[:unknown], (lam - 1) / lam, **CONVERGED)
        assert eigenvalues[unknown] > (lam - 1) / lam + 1e-3


@BOTH
@pytest.mark.parametrize('lam', [0.5, 1.0])
def test_few_samples_and_a_small_lam(lam, weights):
    few = samples(num=3)
    regularized_covariance(few, 0.6, lam, weights, loc=0)
    for x, loc in ((few, None), (few[:2], None), (few[:2], 0)):
        with pytest.raises(ValueError, match=r'x has a singular covariance: its samples lie in a subspace.* with lam > 1'):
            regularized_covariance(x, 0.6, lam, weights, loc)
    x = samples(3)
    x[2] = x[2, 0]
    with pytest.raises(ValueError, match=r'singular covariance in 1 of 3 sets of samples, the first at index \(2,\)'):
        regularized_covariance(x, 0.6, lam, weights)


@BOTH
@pytest.mark.parametrize(('beta', 'lam'), [(0.5, 2.0), (1.0, 1.5), (2.0, 4.0)])
def test_samples_that_say_nothing(beta, lam, weights):
    x = torch.full((6, 3), 0.1, dtype=torch.float64, requires_grad=True)  # whose mean is rounded
    got = regularized_covariance(x, beta, lam, weights)
    np.testing.assert_allclose(got.detach(), (lam - 1) / lam * np.eye(3), **EXACT)
    got.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_one_sample_at_the_location():
    """It has weight 0 but counts in N; beta - 1 is no exponent for its distance."""
    x = samples(num=8).numpy()
    got = regularized_covariance(torch.from_numpy(np.vstack([x, np.zeros((1, 3))])), 0.5, 0.7, loc=0)
    scatter = np.eye(3)
    for _ in range(500):
        scatter = 0.5 * (scatter + eq6(x, 8 / 9 * weights_of(distances(x, scatter), 3, 0.5, 'mm'), 0.7))
    np.testing.assert_allclose(got, scatter, **CONVERGED)


# Gradients


@BOTH
@pytest.mark.parametrize('loc', [None, 0])
@pytest.mark.parametrize(
    ('num', 'dim', 'beta', 'lam'),
    [(6, 2, 0.5, 0.6), (6, 2, 1.0, 1.0), (6, 2, 1.8, 0.6), (3, 4, 0.7, 2.0), (5, 2, 2.5, 3.0), (9, 2, 8.0, 3.0)],
)
def test_gradcheck(num, dim, beta, lam, loc, weights):
    x = samples(num=num, dim=dim).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: regularized_covariance(x, beta, lam, weights, loc, tol=1e-12), x, fast_mode=True)


@BOTH
def test_gradcheck_of_a_batch_with_an_asymmetric_cotangent_and_a_location(weights):
    cotangent = torch.randn(3, 3, dtype=torch.float64)
    leaves = samples(2, num=5).requires_grad_(), torch.tensor([0.8, 1.2, 0.9], dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, loc: Tensor) -> Tensor:
        return (cotangent * regularized_covariance(x, 0.6, 0.7, weights, loc, tol=1e-12)).sum((-2, -1))

    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@BOTH
def test_gradient_of_unrolled_steps(weights):
    """Autograd through all steps, against the implicit function theorem."""
    gradients = []
    for function in (
        lambda x: unrolled_covariance(x, 0.6, 0.7, weights == 'pascal'),
        lambda x: regularized_covariance(x, 0.6, 0.7, weights, 0),
    ):
        x = samples(2).requires_grad_()
        (function(x) * torch.arange(9, dtype=torch.float64).view(3, 3)).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, **CONVERGED)


def test_gradient_of_a_constant_channel():
    """Its covariance with the others is linear in its deviations, so that it has a gradient, zero though they are."""
    x = samples(num=6)
    x[:, 1] = 0.1  # whose mean is rounded: what is left must not be seen, but followed
    assert torch.autograd.gradcheck(
        lambda x: regularized_covariance(x, 0.6, 1.5, tol=1e-12), x.requires_grad_(), fast_mode=True
    )


def test_a_gradient_that_is_not_finite_stays_in_its_set():
    x = samples(3).requires_grad_()
    cotangent = torch.ones(3, 3, 3, dtype=torch.float64)
    cotangent[1, 0, 2] = math.nan
    regularized_covariance(x, 0.6, 0.7).backward(cotangent)
    assert torch.isfinite(x.grad).flatten(1).all(1).tolist() == [True, False, True]


def test_no_second_derivative():
    x = samples().requires_grad_()
    (gradient,) = torch.autograd.grad(regularized_covariance(x, 0.5, 0.7).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"regularized_covariance \(global_pool='mggd'\) has no second derivative"):
        torch.autograd.grad(gradient.sum(), x)
    with pytest.raises(RuntimeError, match='has no second derivative'):
        torch.func.hessian(lambda x: regularized_covariance(x, 0.5, 0.7).sum())(x.detach())


@pytest.mark.parametrize('beta', [0.5, 1.3])
@BOTH
def test_forward_mode_and_vmap(weights, beta):
    """The tangent against differences of the estimate, and both derivatives under vmap."""
    x = samples(2).requires_grad_()

    def estimate(x):
        return robust_covariance(x - x.mean(-2, keepdim=True), beta, 0.8, weights == 'pascal', 300, 1e-12)

    assert torch.autograd.gradcheck(
        estimate, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, fast_mode=True
    )
    per_set = torch.func.vmap(estimate)(x.detach())
    torch.testing.assert_close(per_set, estimate(x.detach()), **CONVERGED)
    inner = torch.func.vmap(lambda x: robust_covariance(x, beta, 0.8, False), in_dims=1)
    torch.testing.assert_close(inner(x.detach().transpose(0, 1)), robust_covariance(x.detach(), beta, 0.8, False), **CONVERGED)


def test_a_tangent_that_is_not_finite_stays_in_its_set():
    x = samples(3)
    direction = torch.ones_like(x)
    direction[1, 0, 2] = math.nan
    _, out = torch.func.jvp(lambda x: robust_covariance(x, 0.6, 0.7, False), (x,), (direction,))
    assert torch.isfinite(out).flatten(1).all(1).tolist() == [True, False, True]


# Types and errors


@BOTH
def test_batch_dimensions(weights):
    x = samples(2, 3) * torch.tensor([0.01, 1.0, 30.0]).view(3, 1, 1)
    got = regularized_covariance(x, 0.5, 0.8, weights)
    assert got.shape == (2, 3, 3, 3)
    for i, j in product(range(2), range(3)):
        torch.testing.assert_close(got[i, j], regularized_covariance(x[i, j], 0.5, 0.8, weights), **CONVERGED)
    torch.testing.assert_close(got.mT, got, rtol=1e-12, atol=1e-12)


def test_float32():
    x = samples(2)
    single = x.float().requires_grad_()
    got = regularized_covariance(single, 0.5, 0.8)
    assert got.dtype is torch.float32
    torch.testing.assert_close(got.double(), regularized_covariance(x, 0.5, 0.8), rtol=1e-6, atol=1e-6)
    got.sum().backward()
    assert single.grad.dtype is torch.float32
    regularized_covariance(x.requires_grad_(), 0.5, 0.8).sum().backward()
    torch.testing.assert_close(single.grad.double(), x.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'beta': 0.0}, 'beta must be positive and finite; got 0.0'),
        ({'beta': math.nan}, 'beta must be positive and finite; got nan'),
        ({'beta': math.inf}, 'beta must be positive and finite; got inf'),
        ({'lam': 0.0}, 'lam must be positive and finite; got 0.0'),
        ({'lam': -1}, 'lam must be positive and finite; got -1'),
        ({'lam': math.inf}, 'lam must be positive and finite; got inf'),
        ({'weights': 'printed'}, "weights must be one of mm, pascal; got 'printed'"),
        ({'max_steps': 0}, 'max_steps must be at least 1 and tol positive; got 0 and'),
        ({'tol': 0.0}, 'max_steps must be at least 1 and tol positive; got 300 and 0.0'),
        ({'tol': math.nan}, 'max_steps must be at least 1 and tol positive; got 300 and nan'),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        regularized_covariance(samples(), **{'beta': 0.5, 'lam': 0.8, **options})


@pytest.mark.parametrize('lam', [0.8, 2.0])
def test_not_samples(lam):
    x = samples(2, 3)
    x[1, 2, 5, 0] = math.nan
    with pytest.raises(
        ValueError,
        match=re.escape(
            'x must be finite, and so must the sum of its squares. It has NaN, infinite or too large entries in 1 of 6 sets of '
            'samples, the first at index (1, 2).'
        ),
    ):
        regularized_covariance(x, 0.5, lam)
    x[1, 2] = x[1, 1, :1]
    if lam <= 1:
        with pytest.raises(
            ValueError, match=re.escape('singular covariance in 1 of 6 sets of samples, the first at index (1, 2)')
        ):
            regularized_covariance(x, 0.5, lam)
    for bad in (torch.zeros(9, 2, dtype=torch.int64), torch.zeros(9, 2, dtype=torch.float16)):
        with pytest.raises(TypeError, match=r'must be a float32 or float64 torch\.Tensor; got'):
            regularized_covariance(bad, 0.5, lam)
    for bad in (torch.zeros(9), torch.zeros(0, 3), torch.zeros(0, 9, 3)):
        with pytest.raises(ValueError, match='and not empty; got'):
            regularized_covariance(bad, 0.5, lam)


def test_more_digits_than_there_are():
    """A tolerance below rounding is taken for rounding: no warning."""
    x = samples(2).requires_grad_()
    regularized_covariance(x, 0.6, 0.7, tol=1e-30).sum().backward()


def test_constants_with_a_rounded_mean_in_float32():
    """Where there is no float64."""
    x = torch.full((7, 2), 0.1)
    assert (
        subtract(x, x.mean(0) + 1e-8).count_nonzero() == 0 == subtract(x.double(), x.double().mean(0) + 1e-17).count_nonzero()
    )


@BOTH
def test_warns_where_steps_do_not_suffice(weights):
    x = samples(2)
    with pytest.warns(RuntimeWarning, match='did not converge in 1 steps for 2 of 2 sets of samples; largest residual'):
        got = regularized_covariance(x, 0.3, 0.8, weights, max_steps=1)
    # One step from where it starts, eq. (6) of the sample covariance.
    for i, one in enumerate(centred(x)):
        start = eq6(one, np.ones(len(one)), 0.8)
        expected = eq6(one, weights_of(distances(one, start), 3, 0.3, weights), 0.8)
        np.testing.assert_allclose(got[i], expected, **EXACT)


def test_warns_where_steps_do_not_suffice_for_the_gradient():
    x = samples().requires_grad_()
    loss = regularized_covariance(x, 0.8, 0.8, 'pascal', tol=1e-2, max_steps=7).sum()
    with pytest.warns(RuntimeWarning, match='the gradient of regularized_covariance did not converge in 7 steps'):
        loss.backward()
