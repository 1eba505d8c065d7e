"""MultivariateGeneralizedGaussian against scipy, the R package mggd, integration over the plane, and its own samples.

Numbers from R: `dmggd` and `kldggd` of CRAN package mggd 1.3.3 (GPL >= 3, github.com/cran/mggd, commit a3bd3817), run unchanged
in R 4.2.2 (`kldggd` with eps = 1e-13). Only its outputs are here, none of its code.
"""

import math
from itertools import product

import numpy as np
import pytest
import torch
from common import EXACT
from scipy import special, stats
from torch import Tensor
from torch.distributions import Independent, MixtureSameFamily, MultivariateNormal, kl_divergence

from timm_3g.mggd import MultivariateGeneralizedGaussian as MGGD

# The trapezoid rule over (angle, log radius) converges exponentially; the densities used vanish at both ends of the radius.
INTEGRAL = {'rtol': 1e-9, 'atol': 1e-9}
# R's own rounding, and that of 17 digits.
FROM_R = {'rtol': 1e-12, 'atol': 1e-12}
# float32 against float64: logarithms of a few numbers of size 10, powers of quadratic forms.
SINGLE = {'rtol': 2e-5, 'atol': 2e-5}
# One normal deviate in 1.7 million is further out; the seeds are fixed.
DEVIATIONS = 5.0

A2 = [[2, 0.7], [0.7, 1.1]]
B2 = [[1.2, -0.3], [-0.3, 0.9]]
A3 = [[1.5, 0.4, -0.3], [0.4, 0.8, 0.25], [-0.3, 0.25, 2.2]]
B3 = [[1, 0.2, 0.1], [0.2, 1.4, -0.3], [0.1, -0.3, 1.8]]

X2 = [[0.6, -1.2], [1.5, -0.25], [-1, 0], [2.1, -3.3], [0.1, 0.9]]
X3 = [[1.1, -0.45, 2.2], [0, 0, 0], [2.5, -1.5, 3], [-0.75, 0.3, 1.2], [1.4, 1.1, 4.1]]
# scatter, shape, log density of X2 at loc (0.5, -1.25), of X3 at (1, -0.5, 2)
R_LOG_PROB = [
    (A2, 0.3, [-6.052824491930461, -6.4483492740177208, -6.7501903252815607, -6.9237139280366158, -6.8141361462874865]),
    (A2, 0.5, [-3.528691925292021, -3.9909539807999526, -4.5889970566464502, -5.0128924155168093, -4.7387577828201009]),
    (A2, 1.0, [-2.1087553306139983, -2.6031997750584428, -4.5110945119005477, -6.729807962192945, -5.2128488978654595]),
    (A2, 2.5, [-1.5706235339730419, -2.063344617513279, -26.940565730130942, -131.59219249506506, -49.688013970075041]),
    (A3, 0.3, [-10.221211089465742, -10.849605696947933, -10.915083264609272, -10.899347904123269, -10.827999745068951]),
    (A3, 0.5, [-5.7513286132983987, -6.7646137830796809, -6.9181910509793738, -6.8805523731799703, -6.7157125057356941]),
    (A3, 1.0, [-3.133443467561015, -5.5347648398485649, -6.2571251259438494, -6.0713617000740463, -5.3245575419942792]),
    (A3, 2.5, [-2.0976817810041606, -27.760758424440471, -51.451275696046032, -44.469115398150002, -22.537638534524039]),
]
# scatter and shape of p, of q, KL(p || q); R computes these seven without Lauricella's series
R_KL = [
    (A2, 1.0, B2, 1.0, 1, 0.51460693469475327),
    (A2, 0.5, B2, 1.0, 1, 17.794979240241531),
    (A2, 0.6, A2, 0.6, 2.5, 0.2114240024789642),
    (A2, 0.7, A2, 1.3, 1, 3.2047531880817384),
    (A3, 1.0, B3, 1.0, 1, 0.28466329520525191),
    (A3, 0.5, B3, 1.0, 1, 22.08585048821741),
    (A3, 0.6, A3, 0.6, 2.5, 0.31713600371844675),
    (A3, 0.7, A3, 1.3, 1, 6.5815944811611047),
]


def double(value: object) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def spd(*shape: int) -> Tensor:
    """Positive definite (*shape, d, d) for (*shape, d), float64, with eigenvalues of at least 1/2."""
    root = torch.randn(*shape, shape[-1], dtype=torch.float64)
    return root @ root.mT / shape[-1] + 0.5 * torch.eye(shape[-1], dtype=torch.float64)


def some(batch: tuple[int, ...] = (), dim: int = 3) -> list[Tensor]:
    """loc, scatter, shape, scale in float64, shape between 0.4 and 1.4."""
    shape, scale = 0.4 + torch.rand(2, *batch, dtype=torch.float64)
    return [torch.randn(*batch, dim, dtype=torch.float64), spd(*batch, dim), shape, scale]


def plane(loc: Tensor) -> tuple[Tensor, Tensor]:
    """Points (n, 2) around loc and their weights: integrals over the plane, from radius 1e-8 to 1e4."""
    radius = torch.linspace(math.log(1e-8), math.log(1e4), 1601, dtype=torch.float64)
    angle = torch.arange(128, dtype=torch.float64) * (2 * math.pi / 128)
    weight = (2 * radius).exp() * (radius[1] - radius[0]) * (2 * math.pi / 128)
    circle = torch.stack([angle.cos(), angle.sin()], -1)
    return loc + (radius.exp()[:, None, None] * circle).reshape(-1, 2), weight.repeat_interleave(128)


def moment_ratio(shape: float, dim: int) -> tuple[float, float]:
    """Variance of a coordinate for scatter I, and its derivative by shape, with scipy."""
    k, inverse = dim / (2 * shape), 1 / shape
    ratio = 2**inverse * math.exp(special.gammaln(k + inverse) - special.gammaln(k)) / dim
    slope = (k * special.digamma(k) - math.log(2) * inverse - (k + inverse) * special.digamma(k + inverse)) / shape
    return ratio, ratio * slope


def assert_mean(samples: Tensor, expected: Tensor | float) -> None:
    """The mean over the first dimension is within DEVIATIONS standard errors."""
    error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - expected).abs() <= DEVIATIONS * error + 1e-12).all()


# Density


@pytest.mark.parametrize('dim', [1, 2, 5])
def test_shape_one_is_scipys_normal(dim):
    loc, scatter, _, scale = some(dim=dim)
    x = torch.randn(20, dim, dtype=torch.float64)
    expected = stats.multivariate_normal(loc, scale * scatter).logpdf(x)
    np.testing.assert_allclose(MGGD(loc, scatter, 1.0, scale).log_prob(x), expected, **EXACT)


@pytest.mark.parametrize('shape', [0.1, 0.5, 1.0, 3.0, 30.0])
def test_one_dimension_is_scipys_gennorm(shape):
    loc, scatter, scale = 0.3, 1.7, 0.6
    judge = stats.gennorm(2 * shape, loc, 2 ** (1 / (2 * shape)) * math.sqrt(scatter * scale))
    ours = MGGD(double([loc]), double([[scatter]]), shape, scale)
    x = double(judge.ppf([0.01, 0.2, 0.49, 0.7, 0.999]))
    np.testing.assert_allclose(ours.log_prob(x[:, None]), judge.logpdf(x), **EXACT)
    np.testing.assert_allclose(ours.entropy(), judge.entropy(), **EXACT)
    np.testing.assert_allclose(ours.variance, [judge.var()], **EXACT)


@pytest.mark.parametrize('scale', [1.0, 0.4])
@pytest.mark.parametrize(('scatter', 'shape', 'expected'), R_LOG_PROB)
def test_density_of_r(scatter, shape, expected, scale):
    loc, x = ([0.5, -1.25], X2) if len(scatter) == 2 else ([1, -0.5, 2], X3)
    ours = MGGD(double(loc), double(scatter) / scale, shape, scale)
    np.testing.assert_allclose(ours.log_prob(double(x)), expected, **FROM_R)


@pytest.mark.parametrize('shape', [0.5, 0.8, 1.0, 1.7, 3.0])
def test_integrals_over_the_plane(shape):
    p = MGGD(double([0.5, -1.25]), double(A2), shape, 0.7)
    x, weight = plane(p.loc)
    log_p = p.log_prob(x)
    mass = weight * log_p.exp()
    np.testing.assert_allclose(mass.sum(), 1, **INTEGRAL)
    np.testing.assert_allclose(-(mass * log_p.clamp(min=-1e6)).sum(), p.entropy(), **INTEGRAL)
    difference = x - p.loc
    covariance = torch.einsum('n,ni,nj->ij', mass, difference, difference)
    np.testing.assert_allclose(covariance, p.covariance_matrix, **INTEGRAL)
    torch.testing.assert_close(p.variance, p.covariance_matrix.diagonal(), rtol=0, atol=0)
    np.testing.assert_allclose((mass[:, None] * x).sum(0), p.mean, **INTEGRAL)
    assert p.mode is p.loc


def test_float32_agrees_with_float64():
    parameters = [*some((6,)), torch.randn(6, 3, dtype=torch.float64)]
    one, two = ([p.to(dtype) for p in parameters] for dtype in (torch.float32, torch.float64))
    for function in (lambda p, x: p.log_prob(x), lambda p, x: p.entropy(), lambda p, x: p.covariance_matrix):
        single = function(MGGD(*one[:4]), one[4])
        assert single.dtype is torch.float32
        torch.testing.assert_close(single.double(), function(MGGD(*two[:4]), two[4]), **SINGLE)


# Samples


@pytest.mark.parametrize('dim', [1, 2, 8])
@pytest.mark.parametrize('shape', [0.1, 0.5, 1.0, 4.0, 30.0])
def test_radial_law_of_samples(shape, dim):
    loc, scatter, _, scale = some(dim=dim)
    x = (MGGD(loc, scatter, shape, scale).sample((5000,)) - loc).numpy()
    power = (np.einsum('ni,ij,nj->n', x, np.linalg.inv(scatter), x) / float(scale)) ** shape
    assert stats.kstest(power, stats.gamma(dim / (2 * shape), scale=2).cdf).pvalue > 1e-3


def test_directions_of_samples_are_uniform_and_do_not_depend_on_the_radius():
    p = MGGD(double([0.5, -1.25]), double(A2), 0.6)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(p.scatter), (p.sample((5000,)) - p.loc).mT, upper=False)
    angle, radius = torch.atan2(*white), white.norm(dim=0)
    for chosen in (angle, angle[radius < radius.median()]):
        assert stats.kstest(chosen, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_moments_of_samples():
    """Of a whole batch, whose elements have nothing in common."""
    shape = double([0.3, 1.0, 5.0])
    p = MGGD(torch.randn(3, 2, dtype=torch.float64), spd(2, 1, 2), shape, double([[0.5], [3.0]]))
    x = p.sample((20_000,))
    assert x.shape == (20_000, 2, 3, 2)
    assert_mean(x, p.loc)
    assert_mean((x - p.loc).unsqueeze(-1) * (x - p.loc).unsqueeze(-2), p.covariance_matrix)


@pytest.mark.parametrize(('shape', 'dim'), [(0.3, 3), (1.0, 3), (4.0, 3), (0.5, 1), (30.0, 1)])
def test_pathwise_gradients(shape, dim):
    """Of E[(c.x)^2] = (c.mu)^2 + delta m c^T Sigma c; each sample has parameters, and so a gradient, of its own."""
    num = 20_000
    loc, scatter, _, scale = some(dim=dim)
    c = torch.randn(dim, dtype=torch.float64)
    leaves = [p.expand(num, *p.shape).clone().requires_grad_() for p in (loc, scatter, double(shape), scale)]
    (MGGD(*leaves).rsample() @ c).square().sum().backward()
    ratio, slope = moment_ratio(shape, dim)
    form = c @ scatter @ c
    expected = [2 * (c @ loc) * c, scale * ratio * torch.outer(c, c), scale * slope * form, ratio * form]
    for leaf, mean in zip(leaves, expected, strict=True):
        assert_mean(0.5 * (leaf.grad + leaf.grad.mT) if leaf is leaves[1] else leaf.grad, mean)


@pytest.mark.parametrize('shape', [0.1, 1.0, 30.0])
def test_float32_samples_and_their_gradients_are_finite(shape):
    leaves = [p.float().requires_grad_() for p in (*some(dim=1)[:2], double(shape), double(2.0))]
    x = MGGD(*leaves).rsample((10_000,))
    x.sum().backward()
    assert x.dtype is torch.float32 and torch.isfinite(x).all()
    assert all(torch.isfinite(leaf.grad).all() and leaf.grad.abs().max() > 0 for leaf in leaves)
    assert not MGGD(*leaves).sample().requires_grad


# Gradients


@pytest.mark.parametrize(
    'function',
    [lambda p, x: p.log_prob(x), lambda p, x: p.entropy(), lambda p, x: p.covariance_matrix],
    ids=['log_prob', 'entropy', 'covariance_matrix'],
)
def test_gradcheck(function):
    loc, scatter, shape, scale = some((2,))
    leaves = [p.requires_grad_() for p in (torch.randn(4, 2, 3, dtype=torch.float64), loc, scatter, shape, scale)]

    def of_leaves(x, loc, scatter, shape, scale):
        return function(MGGD(loc, 0.5 * (scatter + scatter.mT), shape, scale), x)

    assert torch.autograd.gradcheck(of_leaves, leaves)


@pytest.mark.parametrize('shape', [0.3, 0.5, 1.0, 3.0])
def test_at_loc(shape):
    """The density has its largest value there, and no gradient by value or scatter but that of the normalizer."""
    loc, scatter, _, scale = some()
    leaves = [p.requires_grad_() for p in (loc.clone(), loc, scatter, double(shape), scale)]
    p = MGGD(*leaves[1:])
    log_prob = p.log_prob(leaves[0])
    assert log_prob.detach() == p.log_normalizer.detach()
    log_prob.backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
    assert leaves[0].grad.abs().max() == leaves[1].grad.abs().max() == 0
    torch.testing.assert_close(leaves[2].grad, -0.5 * torch.linalg.inv(scatter.detach()), **EXACT)


def test_hessian_at_loc_of_a_gaussian():
    loc, scatter, _, scale = some()
    hessian = torch.autograd.functional.hessian(MGGD(loc, scatter, 1.0, scale).log_prob, loc)
    torch.testing.assert_close(hessian, -torch.linalg.inv(scatter) / scale, **EXACT)


def test_autocast_leaves_samples_alone():
    p = MGGD(torch.zeros(3), spd(3).float(), 0.7)
    draws = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            draws.append(p.rsample((10,)))
    assert torch.equal(*draws)


# Shapes


def wide() -> MGGD:
    """Batch (3, 2) from loc (3, 1), scatter (2,) and shape (2,)."""
    return MGGD(torch.randn(3, 1, 4, dtype=torch.float64), spd(2, 4), double([0.5, 1.7]), 0.8)


def test_parameters_broadcast():
    p = wide()
    assert (p.batch_shape, p.event_shape, p.dim) == ((3, 2), (4,), 4)
    assert p.sample().shape == (3, 2, 4) and p.rsample((5, 4)).shape == (5, 4, 3, 2, 4)
    assert p.mean.shape == p.variance.shape == (3, 2, 4) and p.covariance_matrix.shape == (3, 2, 4, 4)
    assert p.entropy().shape == p.scale.shape == (3, 2)
    x = torch.randn(5, 4, 3, 2, 4, dtype=torch.float64)
    log_prob = p.log_prob(x)
    assert log_prob.shape == (5, 4, 3, 2)
    for i, j in product(range(3), range(2)):
        one = MGGD(p.loc[i, j], p.scatter[i, j], p.shape[i, j], p.scale[i, j])
        torch.testing.assert_close(log_prob[..., i, j], one.log_prob(x[..., i, j, :]), **EXACT)
        torch.testing.assert_close(p.entropy()[i, j], one.entropy(), **EXACT)
        torch.testing.assert_close(p.covariance_matrix[i, j], one.covariance_matrix, **EXACT)


@pytest.mark.parametrize('value', [(4,), (2, 4), (3, 1, 4), (5, 1, 1, 4)])
def test_values_broadcast(value):
    p, x = wide(), torch.randn(value, dtype=torch.float64)
    full = x.expand(*x.shape[:-3], 3, 2, 4)
    torch.testing.assert_close(p.log_prob(x), p.log_prob(full.clone()), rtol=0, atol=0)


def test_empty_batch():
    p = MGGD(torch.zeros(0, 2), torch.eye(2), 0.7, validate_args=False)  # torch's own checks do not take it
    assert p.log_prob(p.rsample((5,))).shape == (5, 0) and p.entropy().shape == (0,)


def test_expand_is_a_view():
    p = wide()
    q = p.expand((5, 3, 2))
    assert (q.batch_shape, q.event_shape) == ((5, 3, 2), (4,))
    for name in ('loc', 'scatter', 'shape', 'scale', '_scatter_tril'):
        one, other = getattr(p, name), getattr(q, name)
        assert other.data_ptr() == one.data_ptr() and other.stride(0) == 0
    x = torch.randn(3, 2, 4, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(x), p.log_prob(x).expand(5, 3, 2), rtol=0, atol=0)
    samples = q.rsample((2,))
    assert samples.shape == (2, 5, 3, 2, 4) and len(samples[..., 0].unique()) == 60
    with pytest.raises(ValueError, match=r'within the support'):
        q.log_prob(x * math.nan)
    assert not MGGD(p.loc, p.scatter, 1.0, validate_args=False).expand((5, 3, 2))._validate_args


def test_inside_independent_and_mixture():
    p = MGGD(*some((3,), dim=2))
    x = torch.randn(7, 2, dtype=torch.float64)
    torch.testing.assert_close(Independent(p, 1).log_prob(x[:3]), p.log_prob(x[:3]).sum(), **EXACT)
    torch.testing.assert_close(Independent(p, 1).entropy(), p.entropy().sum(), **EXACT)
    mixture = MixtureSameFamily(torch.distributions.Categorical(double([0.2, 0.3, 0.5])), p)
    by_hand = (p.log_prob(x[:, None]).exp() * double([0.2, 0.3, 0.5])).sum(-1).log()
    torch.testing.assert_close(mixture.log_prob(x), by_hand, **EXACT)
    assert mixture.sample((5,)).shape == (5, 2)


# Errors


def test_checks_stay_on_after_torch_compile():
    """torch._dynamo switches torch's default off for the whole process when it first compiles."""
    default = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        with pytest.raises(ValueError, match='Expected parameter shape'):
            MGGD(torch.zeros(2), torch.eye(2), math.nan)
        with pytest.raises(ValueError, match='within the support'):
            wide().log_prob(torch.full((4,), math.nan, dtype=torch.float64))
        assert torch.isnan(MGGD(torch.zeros(2), torch.eye(2), math.nan, validate_args=None).entropy())
    finally:
        torch.distributions.Distribution.set_default_validate_args(default)


@pytest.mark.parametrize(
    ('name', 'bad', 'says'),
    [
        ('loc', [0.0, math.nan], r'IndependentConstraint\(Real'),
        ('scatter', [[1.0, 2.0], [2.0, 1.0]], r'PositiveDefinite\(\)'),
        ('scatter', [[1.0, 0.5], [0.0, 1.0]], r'PositiveDefinite\(\)'),
        ('shape', 0.0, r'GreaterThan\(lower_bound=0.0\)'),
        ('shape', [1.0, -1.0], r'GreaterThan\(lower_bound=0.0\)'),
        ('shape', math.nan, r'GreaterThan\(lower_bound=0.0\)'),
        ('scale', -2.0, r'GreaterThan\(lower_bound=0.0\)'),
    ],
)
def test_parameters_outside_their_constraints(name, bad, says):
    arguments = {'loc': torch.zeros(2), 'scatter': torch.eye(2), 'shape': 1.0, 'scale': 1.0, name: torch.tensor(bad)}
    with pytest.raises(ValueError, match=rf'Expected parameter {name} .*to satisfy the constraint {says}'):
        MGGD(**arguments)


@pytest.mark.parametrize(('loc', 'scatter'), [((2,), (3, 3)), ((3,), (3, 2)), ((3,), (3,)), ((), (1, 1))])
def test_dimensions_that_do_not_fit(loc, scatter):
    with pytest.raises(
        ValueError, match=r'loc must be \(\.\.\., d\) and scatter \(\.\.\., d, d\) with .*; got \(.*\) and \(.*\)'
    ):
        MGGD(torch.zeros(loc), torch.ones(scatter), 1.0)


def test_batches_that_do_not_broadcast():
    with pytest.raises(ValueError, match=r'must have batch shapes that broadcast; got \(2,\), \(5,\), \(\), \(\)'):
        MGGD(torch.zeros(2, 3), torch.eye(3).expand(5, 3, 3), 0.5)


def test_one_floating_dtype():
    both = 'loc and scatter must both be float32 or both float64; '
    for dtype in (torch.int64, torch.bfloat16, torch.float64):
        with pytest.raises(TypeError, match=both + f'got {dtype} and torch.float32'):
            MGGD(torch.zeros(2, dtype=dtype), torch.eye(2), 1.5)
    with pytest.raises(TypeError, match=both + 'got torch.float16 and torch.float16'):
        MGGD(torch.zeros(2).half(), torch.eye(2).half(), 1.5)
    with pytest.raises(TypeError, match=r'got torch.float32 and torch.float64'):
        MGGD(torch.zeros(2), torch.eye(2, dtype=torch.float64), 1.5)


def test_value_of_another_dimension():
    with pytest.raises(ValueError, match='right-most size'):
        wide().log_prob(torch.zeros(3, dtype=torch.float64))


# Kullback-Leibler divergence


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(('scatter_p', 'shape_p', 'scatter_q', 'shape_q', 'times', 'expected'), R_KL)
def test_kl_of_r(scatter_p, shape_p, scatter_q, shape_q, times, expected, dtype):
    """Where the factor of the scatter stands, in scatter or in scale, is no matter."""
    tensors = [torch.tensor(scatter, dtype=dtype) for scatter in (scatter_p, scatter_q)]
    loc = torch.ones(len(scatter_p), dtype=dtype)
    for scale_p, scale_q in [(1, times), (0.7, 1.9)]:
        p, q = MGGD(loc, tensors[0] / scale_p, shape_p, scale_p), MGGD(loc, tensors[1] * times / scale_q, shape_q, scale_q)
        np.testing.assert_allclose(kl_divergence(p, q), expected, **(FROM_R if dtype is torch.float64 else SINGLE))


def test_kl_of_gaussians_is_torchs():
    """Batched, with different locations, and with torch's class on either side."""
    (loc_p, scatter_p, _, scale_p), (loc_q, scatter_q, _, scale_q) = some((4, 1)), some((5,))
    ours = MGGD(loc_p, scatter_p, 1.0, scale_p), MGGD(loc_q, scatter_q, 1.0, scale_q)
    torchs = [MultivariateNormal(p.loc, p.scale[..., None, None] * p.scatter) for p in ours]
    expected = kl_divergence(*torchs)
    assert expected.shape == (4, 5)
    for p, q in [ours, (ours[0], torchs[1]), (torchs[0], ours[1])]:
        torch.testing.assert_close(kl_divergence(p, q), expected, **EXACT)


@pytest.mark.parametrize('shape', [0.5, 2.0])
def test_kl_to_a_gaussian_elsewhere_is_the_integral(shape):
    p = MGGD(double([0.5, -1.25]), double(A2), shape, 0.7)
    q = MGGD(double([-0.5, 1.0]), double(B2), 1.0, 2.5)
    x, weight = plane(p.loc)
    log_p = p.log_prob(x)
    integral = (weight * log_p.exp() * (log_p - q.log_prob(x)).nan_to_num(0).clamp(-1e8, 1e8)).sum()
    np.testing.assert_allclose(kl_divergence(p, q), integral, **INTEGRAL)
    np.testing.assert_allclose(kl_divergence(p, MultivariateNormal(q.loc, 2.5 * q.scatter)), integral, **INTEGRAL)


def test_kl_of_a_gaussian_to_its_like_in_scatter_is_the_integral():
    p, q = MultivariateNormal(double([0.5, -1.25]), double(A2)), MGGD(double([0.5, -1.25]), 0.3 * double(A2), 0.6, 2.0)
    x, weight = plane(p.loc)
    log_p = p.log_prob(x)
    np.testing.assert_allclose(kl_divergence(p, q), (weight * log_p.exp() * (log_p - q.log_prob(x))).sum(), **INTEGRAL)


def test_kl_in_one_dimension_has_always_proportional_scatter():
    p, q = MGGD(double([0.3]), double([[2.0]]), 0.7, 0.5), MGGD(double([0.3]), double([[0.9]]), 1.6)
    judges = [stats.gennorm(1.4, 0.3, 2 ** (1 / 1.4)), stats.gennorm(3.2, 0.3, 2 ** (1 / 3.2) * 0.9**0.5)]
    integral = 2 * judges[0].expect(lambda x: judges[0].logpdf(x) - judges[1].logpdf(x), lb=0.3, epsabs=1e-11, limit=200)
    np.testing.assert_allclose(kl_divergence(p, q), integral, rtol=1e-8)


def test_kl_to_itself_is_zero():
    p = MGGD(*some((6,)))
    torch.testing.assert_close(kl_divergence(p, p), torch.zeros(6, dtype=torch.float64), **EXACT)


def test_kl_of_a_batch_takes_the_form_that_each_element_has():
    loc = double([[0.0, 0.0], [1.0, 0.0]])
    p, q = MGGD(loc, double(A2), 0.7), MGGD(torch.zeros_like(loc), double(A2), double([1.3, 1.0]))
    both = kl_divergence(p, q)
    np.testing.assert_allclose(both[0], R_KL[3][-1], **FROM_R)
    p, q = MGGD(loc[1], double(A2), 0.7), MultivariateNormal(loc[0], double(A2))
    torch.testing.assert_close(both[1], kl_divergence(p, q), **EXACT)


@pytest.mark.parametrize(
    ('loc_q', 'scatter_q', 'shape_q'),
    [([0.0, 0.0], B2, 0.8), ([1e-6, 0.0], A2, 0.65), ([0.0, 0.0], [[2, 0.7], [0.7, 1.1 + 1e-9]], 0.65)],
    ids=['R_has_it_by_Lauricella', 'loc', 'scatter'],
)
def test_kl_without_closed_form(loc_q, scatter_q, shape_q):
    p, q = MGGD(double([0.0, 0.0]), double(A2), 0.65), MGGD(double(loc_q), double(scatter_q), shape_q)
    with pytest.raises(NotImplementedError, match=r'has a closed form where q\.shape is 1, or where .* Estimate it'):
        kl_divergence(p, q)
    with pytest.raises(NotImplementedError, match='has a closed form'):
        kl_divergence(MGGD(p.loc, p.scatter, 1.0), MGGD(q.loc, q.scatter, double([1.0, 0.8])))


def test_kl_has_gradients_where_its_form_holds():
    (loc, scatter, shape, scale), (loc_q, scatter_q, _, scale_q) = some(), some()
    leaves = [p.requires_grad_() for p in (loc, scatter, shape, scale, loc_q, scatter_q, scale_q)]

    def to_gaussian(loc, scatter, shape, scale, loc_q, scatter_q, scale_q):
        return kl_divergence(
            MGGD(loc, 0.5 * (scatter + scatter.mT), shape, scale), MGGD(loc_q, 0.5 * (scatter_q + scatter_q.mT), 1.0, scale_q)
        )

    def radial(shape, scale, shape_q, scale_q):
        return kl_divergence(MGGD(loc.detach(), scatter.detach(), shape, scale), MGGD(loc, 3 * scatter, shape_q, scale_q))

    assert torch.autograd.gradcheck(to_gaussian, leaves)
    shape_q = double(1.0).requires_grad_()
    assert torch.autograd.gradcheck(radial, (shape, scale, shape_q, scale_q))
    with pytest.raises(NotImplementedError, match=r'no closed-form derivative with respect to q\.shape\. Detach q\.shape'):
        kl_divergence(MGGD(loc, scatter, shape), MGGD(loc_q, scatter_q, shape_q))
    with torch.no_grad():
        kl_divergence(MGGD(loc, scatter, shape), MGGD(loc_q, scatter_q, shape_q))


def test_hessian_of_kl_at_itself_is_the_fisher_information():
    """Of a Gaussian's mean: Sigma^-1. Both distributions are the same there, so that either form could be taken."""
    p = MGGD(double([0.5, -1.25]), double(A2), 1.0)
    hessian = torch.autograd.functional.hessian(lambda loc: kl_divergence(MGGD(loc, p.scatter, 1.0), p), p.loc)
    torch.testing.assert_close(hessian, torch.linalg.inv(p.scatter), **EXACT)


@pytest.mark.parametrize('dim', [3, 6])
def test_kl_of_proportional_but_nearly_singular_scatters(dim):
    """Hilbert matrices, whose condition numbers are 5e2 and 1.5e7: proportional entry by entry, if not after an inverse."""
    i = torch.arange(1, dim + 1, dtype=torch.float64)
    loc, scatter = torch.zeros(dim, dtype=torch.float64), 1 / (i + i[:, None] - 1)
    kl = kl_divergence(MGGD(loc, scatter, 0.7), MGGD(loc, 3 * scatter, 0.9))
    eye = torch.eye(dim, dtype=torch.float64)
    torch.testing.assert_close(kl, kl_divergence(MGGD(loc, eye, 0.7), MGGD(loc, 3 * eye, 0.9)), rtol=1e-6, atol=0)


def test_kl_of_extreme_shapes_has_gradients():
    """Second moments of shape 1/64 do not fit float32; the form without them must not feel it."""
    shape = torch.tensor(1 / 64, requires_grad=True)
    one = torch.eye(1)
    (grad,) = torch.autograd.grad(kl_divergence(MGGD(torch.zeros(1), one, shape), MGGD(torch.zeros(1), one, 1 / 32)), shape)
    exact = shape.detach().double().requires_grad_()
    one = one.double()
    kl = kl_divergence(MGGD(one[0] * 0, one, exact), MGGD(one[0] * 0, one, 1 / 32))
    torch.testing.assert_close(grad.double(), torch.autograd.grad(kl, exact)[0], rtol=1e-4, atol=0)


def test_kl_across_dimensions():
    with pytest.raises(ValueError, match='on the same R'):
        kl_divergence(MGGD(*some(dim=2)), MGGD(*some(dim=3)))


@pytest.mark.parametrize('name', ['shape', 'scale'])
def test_infinity_is_no_parameter(name):
    with pytest.raises(ValueError, match=f'{name} must be finite; got inf'):
        MGGD(torch.zeros(2), torch.eye(2), **{'shape': 1.0, name: float('inf')})
