"""fit_mggd against the R package mggd, numpy and scipy's minimizer, the true parameters, and the symmetries of the likelihood.

Numbers from R: `estparmggd` of CRAN package mggd 1.3.3 (GPL >= 3, github.com/cran/mggd, commit a3bd3817), run in R 4.2.2 with
eps = 1e-14 and with the tolerance of its `uniroot` at 1e-15 and its lower bracket at 1e-3 (as shipped they stop at 5 digits).
Only its outputs are here, none of its code.
"""

import math
import re
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from common import EXACT
from scipy import optimize, special, stats
from torch import Tensor

from timm_3g.mggd import FitRecord, can_fit, fit_mggd
from timm_3g.mggd import MultivariateGeneralizedGaussian as MGGD
from timm_3g.mggd._shape import profile

# Two programs that both stop at a residual of about 1e-9, in shapes that the data determine well.
FROM_R = {'rtol': 1e-8, 'atol': 1e-8}
# One program on data that differ by rounding or by a linear map; its residual is at most 1e-8.
SAME_FIT = {'rtol': 1e-6, 'atol': 1e-8}

# fmt: off
X1 = [
    [1.3434, -0.3932, 4.1157], [-3.8887, -2.6725, 3.6035], [2.701, 3.7264, 6.3988], [3.6436, 6.756, 6.5765],
    [3.7973, 1.738, 3.6982], [2.6026, 0.5229, 4.7213], [5.5534, -0.2529, -2.5361], [-1.6306, -0.4473, 2.3541],
    [14.5713, 5.3706, -3.2244], [4.8689, 1.0818, 0.0272], [-3.2215, -0.4749, 7.9816], [3.3499, -1.309, 5.1525],
    [5.7027, 4.2507, 2.7423], [5.6689, 1.6971, 5.4225], [2.2068, -0.8168, 1.5371], [-0.2407, -0.2104, 2.061],
    [3.9887, 3.192, 5.3254], [1.7596, -0.8112, 7.5811], [2.6223, -0.9569, 3.5358], [0.1725, -1.2133, 4.7112],
    [2.0299, 2.7759, 8.59], [1.7667, -0.6206, 3.2453], [3.9317, 1.0354, 1.253], [-1.6337, -3.469, 3.1993],
    [-1.8838, -4.6339, 2.7243], [1.7844, -0.3569, 1.6155], [-3.7489, -5.0052, 1.7211], [0.0244, -1.505, 3.3027],
    [2.5629, 1.5394, 3.0097], [1.3306, 1.9515, 5.4233], [7.7763, 1.1771, -1.8926], [2.2812, -0.3137, 3.7993],
    [0.1522, 0.6703, 1.4864], [2.7863, 0.412, -0.1426], [1.7214, -1.8886, 2.8562], [-2.7358, 1.518, 5.7941],
    [8.1894, 4.6781, 4.2031], [2.9937, -0.4398, 5.4491], [-2.706, -3.4963, 3.1958], [-3.9046, -3.1861, 1.3645],
]
X2 = [
    [-3.9496, 1.7073], [-3.8934, 2.5084], [-3.3297, 2.1538], [-2.6974, 2.2822], [-4.9089, 2.7944], [-3.4639, 1.9252],
    [-5.4344, 3.7358], [-3.1218, 2.0356], [-3.796, 2.3051], [-5.2144, 3.0577], [-3.3138, 1.8894], [-4.456, 2.5301],
    [-4.8794, 3.2882], [-3.8995, 2.0741], [-3.9593, 1.9771], [-2.9928, 2.4385], [-4.6424, 2.1408], [-5.7416, 3.706],
    [-4.0439, 2.2201], [-5.9265, 3.6255], [-3.4758, 2.105], [-4.1927, 3.743], [-5.2509, 3.4184], [-4.9481, 2.8823],
    [-4.454, 3.1421], [-3.0559, 2.0906], [-4.3864, 2.517], [-1.8108, 1.7114], [-3.1363, 1.5625], [-3.4092, 1.4861],
]
# fmt: on
R_FITS = [
    (
        X1,
        [1.9572425, 0.2404925, 3.29957],
        [
            [5.7750624720799584, 2.980506032112705, -1.2291547889778038],
            [2.980506032112705, 3.071282984322683, 0.42016965960409342],
            [-1.2291547889778038, 0.42016965960409342, 3.0609420529897715],
        ],
        0.76476753903480599,
    ),
    (
        X2,
        [-4.0594933333333332, 2.5017900000000002],
        [[1.1738258182183541, -0.64718831507630725], [-0.64718831507630725, 0.58438612828936043]],
        1.1577312563302053,
    ),
]


def mggd(rng: np.random.Generator, num: int, scatter: np.ndarray, shape: float) -> np.ndarray:
    """Samples (num, d) at location 0, by numpy."""
    direction = rng.standard_normal((num, len(scatter)))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = (2 * rng.standard_gamma(len(scatter) / (2 * shape), num)) ** (1 / (2 * shape))
    return radius[:, None] * direction @ np.linalg.cholesky(scatter).T


def toeplitz(dim: int, rho: float = 0.6) -> np.ndarray:
    return rho ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))


def sets(*batch: int, num: int = 60, dim: int = 3, shape: float = 0.7) -> Tensor:
    """Samples (*batch, num, dim) of one distribution, location 1."""
    rng = np.random.default_rng(0)
    return 1 + torch.from_numpy(mggd(rng, math.prod(batch) * num, toeplitz(dim), shape).reshape(*batch, num, dim))


def product_of(p: MGGD) -> Tensor:
    """scale * scatter: all of the two that data can tell."""
    return p.scale[..., None, None] * p.scatter


def update(x: np.ndarray, scatter: np.ndarray, shape: float) -> np.ndarray:
    """The plain fixed point of Pascal et al., trace d: the paper's eq. (3) with its sum over all samples."""
    u = np.einsum('ni,ij,nj->n', x, np.linalg.inv(scatter), x)
    new = np.einsum('n,ni,nj->ij', u ** (shape - 1) / (u**shape).sum(), x, x)
    return new * len(scatter) / np.trace(new)


def negative_log_likelihood(parameters: np.ndarray, x: np.ndarray) -> float:
    """Of log(shape) and the lower triangle, with logarithms on its diagonal, of a root of scale * scatter."""
    dim, shape = x.shape[1], math.exp(parameters[0])
    root = np.zeros((dim, dim))
    root[np.tril_indices(dim)] = parameters[1:]
    log_det = np.trace(root)
    root[np.diag_indices(dim)] = np.exp(root.diagonal())
    u = (np.linalg.solve(root, x.T) ** 2).sum(0)
    k = dim / (2 * shape)
    constant = special.gammaln(dim / 2) + parameters[0] - dim / 2 * math.log(math.pi) - special.gammaln(k) - k * math.log(2)
    return float((u**shape).sum() / 2 - len(x) * (constant - log_det))


def deviation_of_shape(shape: float, dim: int, num: int) -> float:
    """The Cramer-Rao bound of an estimated shape with unknown scale: T = (u/delta)^b / 2 is Gamma(k), and the scores are
    1 + k psi(k) - T log T for log(b) and b (T - k) for log(delta), up to multiples of the other. By integration."""
    k = dim / (2 * shape)
    t = np.exp(np.linspace(-700 / k if k < 1 else -700, 12, 400_001))
    mass = np.exp(k * np.log(t) - t - special.gammaln(k)) * (np.log(t[1]) - np.log(t[0]))
    score, other = 1 + k * special.digamma(k) - t * np.log(t), t - k
    left = (mass * score**2).sum() - (mass * score * other).sum() ** 2 / (mass * other**2).sum()
    return shape / math.sqrt(num * left)


# Reference values


@pytest.mark.parametrize(('x', 'mean', 'scatter', 'shape'), R_FITS, ids=['3d', '2d'])
def test_fits_of_r(x, mean, scatter, shape):
    p, record = fit_mggd(torch.tensor(x, dtype=torch.float64), tol=1e-11)
    assert record.converged
    np.testing.assert_allclose(p.loc, mean, **FROM_R)
    np.testing.assert_allclose(p.shape, shape, **FROM_R)
    np.testing.assert_allclose(product_of(p), scatter, **FROM_R)
    np.testing.assert_allclose(p.scatter.trace(), len(scatter), **EXACT)


@pytest.mark.parametrize('shape', [1, 1.0, torch.ones(4, dtype=torch.float64)], ids=['int', 'float', 'tensor'])
def test_known_shape_one_is_the_sample_covariance(shape):
    x = sets(4)
    p, record = fit_mggd(x, shape)
    for i, one in enumerate(x):
        covariance = np.cov(one.T, bias=True)
        np.testing.assert_allclose(p.covariance_matrix[i], covariance, **EXACT)
        np.testing.assert_allclose(p.scale[i], covariance.trace() / 3, **EXACT)
        np.testing.assert_allclose(p.scatter[i].trace(), 3, **EXACT)
    assert record.steps.tolist() == [0] * 4 and (p.shape == 1).all()


@pytest.mark.parametrize(('data', 'start'), [(X2, 0.5), (X2, 2.0), (X1, 1.0)])
def test_scipy_finds_nothing_better(data, start):
    x = torch.tensor(data, dtype=torch.float64)
    p, _ = fit_mggd(x)
    centred = (x - x.mean(0)).numpy()
    ours = -float(p.log_prob(x).sum())
    root = np.linalg.cholesky(np.cov(centred.T))
    root[np.diag_indices(len(root))] = np.log(root.diagonal())
    first = [math.log(start), *root[np.tril_indices(len(root))]]
    found = optimize.minimize(negative_log_likelihood, first, (centred,), 'BFGS', options={'gtol': 1e-4})
    assert ours - 1e-9 <= found.fun <= ours + 1e-6
    assert math.exp(found.x[0]) == pytest.approx(float(p.shape), rel=1e-3)


# Truth


@pytest.mark.parametrize(
    ('dim', 'shape', 'stated'),
    [(3, 0.2, 0.002), (3, 0.5, 0.007), (3, 0.8, 0.015), (8, 0.5, None), (8, 1.0, None), (8, 2.0, None)],
)
def test_recovers_the_parameters(dim, shape, stated):
    """The mean shape of many sets of N = 5000 is true within the deviation that is stated for one, or within four
    standard errors; and the deviation itself is that of the Cramer-Rao bound, which maximum likelihood attains."""
    rng, count = np.random.default_rng(5), 24
    p, record = fit_mggd(torch.from_numpy(np.stack([mggd(rng, 5000, toeplitz(dim), shape) for _ in range(count)])), loc=0)
    assert record.converged.all()
    bound = deviation_of_shape(shape, dim, 5000)
    assert abs(float(p.shape.mean()) - shape) <= (stated or 4 * bound / count**0.5)
    least, most = stats.chi2(count - 1).ppf([0.001, 0.999])
    assert least < (count - 1) * float(p.shape.var()) / bound**2 < most
    # An element of a scatter deviates by about sqrt(2 / N) = 0.02 of the diagonal, its mean over the sets by 0.003 to 0.005.
    np.testing.assert_allclose(p.scatter.mean(0), toeplitz(dim), rtol=0, atol=0.025)
    k = dim / (2 * shape)
    variance = 2 ** (1 / shape) * math.exp(special.gammaln(k + 1 / shape) - special.gammaln(k)) / dim
    np.testing.assert_allclose(p.covariance_matrix.mean(0) / variance, toeplitz(dim), rtol=0, atol=0.025)


# Stationary points


@pytest.mark.parametrize('known', [None, 0.3, 0.7, 1.5])
@pytest.mark.parametrize('loc', [None, 0.9])
def test_gradient_of_the_likelihood_is_zero(known, loc):
    x = sets(2)
    p, _ = fit_mggd(x, known, loc)
    shape, scale, scatter = (t.clone().requires_grad_() for t in (p.shape, p.scale, p.scatter))
    MGGD(p.loc, scatter, shape, scale).log_prob(x.movedim(-2, 0)).sum().backward()
    torch.testing.assert_close(scale.grad, torch.zeros_like(scale), rtol=0, atol=1e-6)
    torch.testing.assert_close(scatter.grad, torch.zeros_like(scatter), rtol=0, atol=1e-5)
    if known is None:
        torch.testing.assert_close(shape.grad, torch.zeros_like(shape), rtol=0, atol=1e-5)
    else:
        assert (shape.detach() == known).all() and shape.grad.abs().min() > 1e-2


def test_converges_where_the_plain_fixed_point_does_not():
    rng = np.random.default_rng(0)
    x = mggd(rng, 1000, np.eye(2), 3.0)
    scatter = x.T @ x / len(x)
    for _ in range(300):
        scatter, before = update(x, scatter, 3.0), scatter
    assert np.linalg.norm(scatter - before) > 0.1
    for shape in (None, 3.0):
        p, record = fit_mggd(torch.from_numpy(x), shape, loc=0)
        assert record.converged and record.steps < 60
        np.testing.assert_allclose(update(x, p.scatter.numpy(), float(p.shape)), p.scatter, **SAME_FIT)


@pytest.mark.parametrize('known', [False, True])
@pytest.mark.parametrize(('dim', 'num'), [(2, 2000), (3, 200), (8, 2000)])
def test_converges_for_light_tails(dim, num, known):
    """Few samples too, and a known shape far from theirs: the last set is Gaussian."""
    shapes = [3.0, 4.0, 8.0, 16.0]
    x = [mggd(np.random.default_rng(1), num, toeplitz(dim), shape) for shape in [*shapes, 1.0]]
    p, record = fit_mggd(torch.from_numpy(np.stack(x)), torch.tensor([*shapes, 16.0]) if known else None, loc=0)
    assert record.converged.all() and record.steps.max() <= 120  # 403 where steps that go to and fro are not shortened
    for i, one in enumerate(x):
        np.testing.assert_allclose(update(one, p.scatter[i].numpy(), float(p.shape[i])), p.scatter[i], **SAME_FIT)
    if not known:
        np.testing.assert_allclose(p.shape[:4] / torch.tensor(shapes), 1, atol=0.5)


def test_many_samples_take_few_steps():
    """The step of the scatter cancels the error to first order: 5 steps, where those of length 1 took up to 54."""
    x = np.stack([mggd(np.random.default_rng(1), 20_000, toeplitz(3), shape) for shape in (3.0, 8.0, 16.0)])
    for known in (None, torch.tensor([3.0, 8.0, 16.0])):
        assert fit_mggd(torch.from_numpy(x), known, 0)[1].steps.max() <= 8


def test_the_likelihood_never_falls():
    """Few Gaussian samples and a shape that is far from theirs, stopped early."""
    x = torch.from_numpy(np.stack([mggd(np.random.default_rng(seed), 30, toeplitz(6), 1.0) for seed in range(5)]))
    likelihoods = []
    for max_steps in range(1, 11):
        with pytest.warns(RuntimeWarning, match='did not converge'):
            p, _ = fit_mggd(x, 30.0, 0, max_steps)
        likelihoods.append(p.log_prob(x.movedim(-2, 0)).sum(0))
    assert (torch.stack(likelihoods).diff(dim=0) > -1e-8).all()


def test_newton_step_of_the_shape():
    """Against differences of the profile likelihood in log(shape): their ratio where it is convex, downhill elsewhere."""
    dim, u = 3, mggd(np.random.default_rng(0), 60, np.eye(3), 0.8)
    u = (u**2).sum(1)

    def loss(log_shape: float) -> float:
        shape = math.exp(log_shape)
        k = dim / (2 * shape)
        scale = (shape / dim * np.mean(u**shape)) ** (1 / shape)
        return special.gammaln(k) - log_shape + k * math.log(2) + dim / 2 * math.log(scale) + np.mean((u / scale) ** shape) / 2

    log_shapes, h, convex = np.linspace(math.log(0.05), math.log(20), 40), 1e-3, []
    steps = profile(torch.from_numpy(np.log(u)).expand(40, 60), torch.from_numpy(np.exp(log_shapes)), dim).step
    for log_shape, step in zip(log_shapes, steps.tolist(), strict=True):
        first = (loss(log_shape + h) - loss(log_shape - h)) / (2 * h)
        second = (loss(log_shape + h) + loss(log_shape - h) - 2 * loss(log_shape)) / h**2
        convex.append(second > 0)
        expected = -first / second if second > 0 else -math.copysign(math.inf, first)
        assert step == pytest.approx(np.clip(expected, -math.log(3), math.log(3)), rel=1e-3, abs=1e-5)
    assert 0 < sum(convex) < 40


def test_heavy_tails_and_bad_scales():
    """Cauchy samples, whose covariance says nothing, in channels of 1e-10 to 1e6."""
    rng = np.random.default_rng(2)
    x = torch.from_numpy(rng.standard_normal((400, 5)) @ np.linalg.cholesky(toeplitz(5)).T / rng.standard_normal((400, 1)))
    units = torch.logspace(-10, 6, 5, dtype=torch.float64)
    (p, one), (q, two) = fit_mggd(x, loc=0), fit_mggd(x * units, loc=0)
    assert one.converged and two.converged and p.shape < 0.3
    torch.testing.assert_close(q.shape, p.shape, **SAME_FIT)
    torch.testing.assert_close(product_of(q) / torch.outer(units, units), product_of(p), **SAME_FIT)


# Symmetries


@pytest.mark.parametrize('known', [None, 0.4, 2.5])
def test_is_affine_equivariant(known):
    x = sets(3)
    a, b = torch.randn(3, 3, dtype=torch.float64) * torch.tensor([1e-2, 1.0, 1e2]), torch.tensor([5.0, -3.0, 0.1])
    (p, _), (q, _) = fit_mggd(x, known), fit_mggd(x @ a.mT + b, known)
    torch.testing.assert_close(q.shape, p.shape, **SAME_FIT)
    torch.testing.assert_close(q.loc, p.loc @ a.mT + b, **SAME_FIT)
    torch.testing.assert_close(product_of(q), a @ product_of(p) @ a.mT, **SAME_FIT)


@pytest.mark.parametrize('known', [None, torch.tensor([[0.3], [1.6]])], ids=['unknown', 'known'])
def test_batched_equals_one_by_one(known):
    x = sets(2, 3) * torch.tensor([1e-3, 1.0, 50.0]).view(3, 1, 1)
    x[0] = x[0].sign() * x[0] ** 2  # of another shape
    p, record = fit_mggd(x, known)
    for i, j in product(range(2), range(3)):
        q, alone = fit_mggd(x[i, j], None if known is None else float(known[i, 0]))
        for name in ('loc', 'scatter', 'shape', 'scale'):
            torch.testing.assert_close(getattr(p, name)[i, j], getattr(q, name), **SAME_FIT)
        assert record.steps[i, j] == alone.steps
        torch.testing.assert_close(record.residual[i, j], alone.residual, rtol=1e-2, atol=1e-11)
    assert len(record.steps.unique()) > 1


def test_order_of_samples_is_no_matter():
    x = sets()
    (p, _), (q, _) = fit_mggd(x), fit_mggd(x[torch.randperm(len(x))])
    torch.testing.assert_close(q.shape, p.shape, **SAME_FIT)
    torch.testing.assert_close(product_of(q), product_of(p), **SAME_FIT)


def test_location():
    """0, a number, a vector, one for each set; unknown, it is the mean."""
    x = sets(2)
    mean = x.mean(-2)
    estimated, _ = fit_mggd(x)
    torch.testing.assert_close(estimated.loc, mean)
    for loc in (0, 1.5, mean, mean[0]):
        p, _ = fit_mggd(x, loc=loc)
        expected = torch.as_tensor(loc, dtype=torch.float64).expand(2, 3)
        torch.testing.assert_close(p.loc, expected)
        q, _ = fit_mggd(x - expected.unsqueeze(-2), loc=0)
        assert (q.loc == 0).all()
        torch.testing.assert_close(product_of(p), product_of(q), **SAME_FIT)
        torch.testing.assert_close(p.shape, q.shape, **SAME_FIT)
    given, _ = fit_mggd(x, loc=mean)
    torch.testing.assert_close(given.scatter, estimated.scatter, **SAME_FIT)


@pytest.mark.parametrize('shape', [0.4, 1.0, 3.0])
def test_sample_at_the_location(shape):
    """With known shape it says nothing about the scatter, and counts in the scale as one of N samples."""
    x = sets(num=40) - 1
    (p, _), (q, _) = fit_mggd(torch.cat([x, 0 * x[:1]]), shape, 0), fit_mggd(x, shape, 0)
    torch.testing.assert_close(p.scatter, q.scatter, **SAME_FIT)
    torch.testing.assert_close(p.scale, q.scale * (40 / 41) ** (1 / shape), **SAME_FIT)


# Types


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_record_and_dtypes(dtype):
    x = sets(2, 3).to(dtype).requires_grad_()
    p, record = fit_mggd(x)
    assert isinstance(record, FitRecord) and isinstance(p, MGGD)
    assert p.batch_shape == (2, 3) and p.event_shape == (3,)
    assert all(t.dtype is dtype and not t.requires_grad for t in (p.loc, p.scatter, p.shape, p.scale))
    fields = {'steps': torch.int64, 'residual': torch.float64, 'converged': torch.bool}
    for name, expected in fields.items():
        assert getattr(record, name).dtype is expected and getattr(record, name).shape == (2, 3)
    assert record.converged.all() and (record.residual <= 1e-8).all() and (record.steps > 0).all()
    torch.testing.assert_close(p.scatter.mT, p.scatter, rtol=0, atol=0)


def test_float32_is_close_to_float64():
    x = sets(4)
    (p, _), (q, _) = fit_mggd(x.float()), fit_mggd(x)
    for name in ('loc', 'scatter', 'shape', 'scale'):
        torch.testing.assert_close(getattr(p, name).double(), getattr(q, name), rtol=1e-5, atol=1e-6)


# Errors


@pytest.mark.parametrize(('shape', 'loc', 'needed'), [(0.7, 0, 3), (0.7, None, 4), (None, 0, 4), (None, None, 5)])
def test_too_few_samples(shape, loc, needed):
    x = sets(num=needed)
    says = rf'at least {needed} samples \(.*{"unknown shape" if shape is None else ""}.*\).* got N = {needed - 1}\.'
    with pytest.raises(ValueError, match=says):
        fit_mggd(x[1:], shape, loc)
    with warnings.catch_warnings():  # with unknown shape there is an answer, but seldom a maximum
        warnings.simplefilter('ignore' if shape is None else 'error')
        fit_mggd(x, shape, loc)


@pytest.mark.parametrize('bad', [math.nan, math.inf, 1e160])
def test_not_finite(bad):
    x = sets(2, 3)
    x[1, 2, 5, 0] = x[1, 0, 3, 1] = bad
    with pytest.raises(
        ValueError,
        match=re.escape('too large entries in 2 of 6 sets of samples, the first at index (1, 0)'),
    ):
        fit_mggd(x)
    with pytest.raises(ValueError, match=r'x must be finite.* It has NaN'):
        fit_mggd(x[1, 2])
    with pytest.raises(ValueError, match='loc must be finite, and so must its square; got'):
        fit_mggd(x[0], loc=bad)


@pytest.mark.parametrize('shape', [None, 0.7])
def test_samples_in_a_subspace(shape):
    constant, duplicated, dependent, few, zero = (sets() for _ in range(5))
    constant[:] = constant[0]
    duplicated[:, 2] = duplicated[:, 0]
    dependent[:, 2] = 1e-3 * (dependent[:, 0] - 2 * dependent[:, 1])
    few[2:] = few[1]
    zero[:, 1] = 0
    for bad in (constant, duplicated, dependent, few, zero):
        with pytest.raises(ValueError, match=r'x has a singular covariance: its samples lie in a subspace'):
            fit_mggd(bad, shape)
        with pytest.raises(ValueError, match=r'singular covariance in 1 of 2 sets of samples, the first at index \(1,\)'):
            fit_mggd(torch.stack([sets(), bad]), shape)


@pytest.mark.parametrize('shape', [None, 0.5])
def test_a_constant_whose_mean_is_rounded_is_constant(shape):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[:, 1] = 0.1  # the mean of seven is not 0.1
    with pytest.raises(ValueError, match=r'x has a singular covariance: its samples lie in a subspace'):
        fit_mggd(x, shape)
    assert not can_fit(x.unsqueeze(0)).any()


def test_can_fit_tells_the_sets_apart():
    x = sets(6)
    x[1, 3, 0] = math.inf
    x[2, :, 1] = 0.1
    x[3] = x[3, :, :1].expand_as(x[3])
    half = (8 * x[4, :10]).round()  # integers: their sum is exact
    x[4] = 0.0
    x[4, :20] = torch.cat([half, -half])  # and the rest at the mean, exactly
    assert can_fit(x).tolist() == [True, False, False, False, False, True]
    assert not can_fit(x[:, : x.shape[2] + 1]).any()  # one sample too few
    x[5] *= 1e160  # no finite squares
    assert can_fit(x.double()).tolist() == [True, *[False] * 5]


@pytest.mark.parametrize(
    ('x', 'error', 'message'),
    [
        (torch.ones(5, 2), ValueError, r'x must be \(B, N, d\), sets of samples; got \(5, 2\)'),
        (torch.ones(1, 5, 0), ValueError, r'x must be .* not empty; got \(1, 5, 0\)'),
        (torch.ones(1, 5, 2, dtype=torch.int64), TypeError, r'x must be a float32 or float64 torch\.Tensor; got torch\.int64'),
    ],
)
def test_what_can_fit_does_not_take(x, error, message):
    with pytest.raises(error, match=message):
        can_fit(x)


def test_more_digits_than_there_are():
    """A tolerance below rounding is taken for rounding."""
    assert bool(fit_mggd(sets(2), tol=1e-30)[1].converged.all())


def test_a_known_shape_is_kept_to_the_digit():
    shapes = torch.tensor([0.3, 5.0], dtype=torch.float64)
    assert torch.equal(fit_mggd(sets(2), shapes)[0].shape, shapes)


def test_what_float32_cannot_hold():
    """Everything is computed in float64; the result must not be rounded to a scale of 0 or a singular scatter."""
    x = torch.randn(3, 100, 4)
    with pytest.raises(
        ValueError, match=r'scale does not fit torch\.float32 in 3 of 3 sets .*: it is e\^-\d+, for a shape of 0\.03'
    ):
        fit_mggd(x, 0.03)
    assert bool((fit_mggd(x.double(), 0.03)[0].scale > 0).all())
    with pytest.raises(ValueError, match=r'scale does not fit .* in 1 of 3 sets .* at index \(1,\).* in other units'):
        fit_mggd(x * torch.tensor([1.0, 1e-22, 1.0])[:, None, None], 1.0)
    near = torch.cat([x[0], x[0] + 1e-5 * torch.randn(100, 4)], 1)
    with pytest.raises(ValueError, match=r'x lies too close to a subspace for a scatter in torch\.float32\. Give'):
        fit_mggd(near, 1.0)
    fit_mggd(near.double(), 1.0)


def test_options_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r'loc must be broadcastable to \(4, 3\); got \(2,\)'):
        fit_mggd(sets(4), loc=torch.zeros(2))
    with pytest.raises(ValueError, match=r'shape must be broadcastable to \(4,\); got \(2,\)'):
        fit_mggd(sets(4), torch.ones(2))


def test_sample_at_loc_with_unknown_shape():
    x = sets(2, 3)
    x[1, 0, 4] = 0
    with pytest.raises(ValueError, match=r'x has a sample at loc in .* first at index \(1, 0\)\. With an unknown shape'):
        fit_mggd(x, loc=0)


@pytest.mark.parametrize(
    ('x', 'error', 'says'),
    [
        (torch.zeros(9, 2, dtype=torch.int64), TypeError, r'float32 or float64 torch\.Tensor; got torch.int64'),
        (torch.zeros(9, 2, dtype=torch.bfloat16), TypeError, r'float32 or float64 torch\.Tensor; got torch.bfloat16'),
        ([[1.0, 2.0]], TypeError, r'float32 or float64 torch\.Tensor; got builtins\.list'),
        (np.zeros((9, 2)), TypeError, r'float32 or float64 torch\.Tensor; got numpy\.ndarray'),
        (torch.zeros(9), ValueError, r'must be \(\.\.\., N, d\), .* got \(9,\)'),
        (torch.zeros(0, 9, 2), ValueError, r'not empty; got \(0, 9, 2\)'),
        (torch.zeros(0, 2), ValueError, r'not empty; got \(0, 2\)'),
    ],
)
def test_not_samples(x, error, says):
    with pytest.raises(error, match=says):
        fit_mggd(x)


@pytest.mark.parametrize(
    ('options', 'says'),
    [
        ({'shape': 0.0}, 'shape must be positive and finite; got 0.0'),
        ({'shape': -1}, 'shape must be positive and finite; got -1'),
        ({'shape': math.inf}, 'shape must be positive and finite; got inf'),
        ({'shape': torch.tensor([1.0, math.nan])}, 'shape must be positive and finite; got tensor'),
        ({'tol': 0.0}, 'max_steps must be at least 1 and tol positive; got 500 and 0.0'),
        ({'tol': math.nan}, 'max_steps must be at least 1 and tol positive; got 500 and nan'),
        ({'max_steps': 0}, 'max_steps must be at least 1 and tol positive; got 0 and'),
    ],
)
def test_options_out_of_range(options, says):
    with pytest.raises(ValueError, match=says):
        fit_mggd(sets(2), **options)


# Warnings


def test_warns_where_steps_do_not_suffice():
    x = sets(3)
    x[1] = torch.from_numpy(mggd(np.random.default_rng(0), 60, np.eye(3), 0.15))
    with pytest.warns(
        RuntimeWarning, match=r'^3 of 3 fits .* did not converge\. Largest residual .*e-0\d; see the record'
    ) as warned:
        _, record = fit_mggd(x, max_steps=2)
    assert warned[0].filename == __file__, 'the warning points at the caller'
    assert not record.converged.any() and (record.steps == 2).all() and (record.residual > 1e-8).all()
    # It is on its way all the same, and each fit stops on its own.
    _, enough = fit_mggd(x)
    most = int(enough.steps.max())
    with pytest.warns(RuntimeWarning, match=rf'^{int((enough.steps == most).sum())} of 3 fits .* did not converge'):
        _, record = fit_mggd(x, max_steps=most - 1)
    assert record.converged.tolist() == (enough.steps < most).tolist()


def test_warns_where_the_likelihood_has_no_maximum():
    """Six samples lie on an ellipsoid of three dimensions; the other set is a common one."""
    few = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (6, 3)))
    with pytest.warns(RuntimeWarning, match=r'^1 of 1 .* in 1 of them the likelihood has no maximum \(shape at 1/64 or 64\)'):
        p, record = fit_mggd(few)
    assert p.shape == pytest.approx(64) and not record.converged and record.steps < 50  # it stops there
    many = torch.from_numpy(mggd(np.random.default_rng(0), 6 * 20, np.eye(3), 0.5)).reshape(20, 6, 3)
    with pytest.warns(RuntimeWarning, match=r'the likelihood has no maximum'):
        fit_mggd(many)
