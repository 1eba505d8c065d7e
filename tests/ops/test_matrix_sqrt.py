"""Both roots against float64 eigenvalues; gradients by gradcheck, with asymmetric cotangents too."""

import numpy as np
import pytest
import reference
import torch
from common import EXACT
from torch import Tensor

from timm_3g.ops import covariance, sqrt_covariance, sqrtm_eigh, sqrtm_newton_schulz

ROOTS = [sqrtm_newton_schulz, sqrtm_eigh]


def spd(eigenvalues: list[float], batch: int = 2) -> Tensor:
    """Symmetric matrices with these eigenvalues, float64."""
    q, _ = torch.linalg.qr(torch.randn(batch, len(eigenvalues), len(eigenvalues), dtype=torch.float64))
    return q @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ q.mT


@pytest.mark.parametrize('num_iters', [1, 2, 3, 5, 7])
def test_newton_schulz_is_the_scalar_recursion_on_eigenvalues(num_iters):
    cov = covariance(torch.randn(3, 20, 12, dtype=torch.float64))  # rank 11 of 20
    for got, one in zip(sqrtm_newton_schulz(cov, num_iters), cov, strict=True):
        np.testing.assert_allclose(got, reference.newton_schulz_by_eigenvalues(one.numpy(), num_iters), **EXACT)


def test_five_steps_are_not_the_root():
    # The figures of the docstring: f(l)/sqrt(l) at l = 0.1, 0.01, 0.001, and f(l)/l for small l.
    eigenvalues = [0.1, 0.01, 0.001, 1e-5]
    cov = torch.diag(torch.tensor([1 - sum(eigenvalues), *eigenvalues], dtype=torch.float64))
    f = sqrtm_newton_schulz(cov).diagonal()[1:]
    ratio = f / torch.tensor(eigenvalues, dtype=torch.float64).sqrt()
    assert [round(r, 2) for r in ratio[:3].tolist()] == [1.0, 0.66, 0.24]
    assert float(f[3] / 1e-5) == pytest.approx(1.5**5, rel=1e-3)


def test_many_steps_are_the_root():
    cov = spd([1.0, 0.5, 0.2, 0.1])
    for got, one in zip(sqrtm_newton_schulz(cov, 12), cov, strict=True):
        np.testing.assert_allclose(got, reference.sqrtm_exact(one.numpy()), **EXACT)


@pytest.mark.parametrize('eigenvalues', [[4.0, 1.0, 0.25, 1e-3], [1.0, 1.0, 1.0, 2.0]])
def test_eigh_is_the_root(eigenvalues):
    cov = spd(eigenvalues)
    torch.testing.assert_close(sqrtm_eigh(cov) @ sqrtm_eigh(cov), cov, **EXACT)


def test_eigh_float32_on_a_rank_deficient_covariance():
    x = torch.randn(2, 64, 20, dtype=torch.float64)
    exact = torch.stack([torch.from_numpy(reference.sqrtm_exact(c.numpy())) for c in covariance(x)])
    ours = sqrtm_eigh(covariance(x.float())).double()
    # sqrt(1.2e-7) of the largest root in 45 null directions: the stated floor
    assert float((ours - exact).norm() / exact.norm()) < 2e-3


@pytest.mark.parametrize('root', ROOTS)
@pytest.mark.parametrize('eigenvalues', [[2.0, 1.0, 0.5, 0.1], [1.0, 1.0, 0.5, 0.5]])
def test_gradcheck(root, eigenvalues):
    assert torch.autograd.gradcheck(root, spd(eigenvalues).requires_grad_())


@pytest.mark.parametrize('root', ROOTS)
def test_gradient_with_an_asymmetric_cotangent_through_features(root):
    """A triangle makes the cotangent one-sided: d/dX of <G, root(cov(X))> for a G that is not symmetric."""
    cotangent = torch.randn(4, 4, dtype=torch.float64)
    x = torch.randn(2, 4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: (cotangent * root(covariance(x))).sum((-2, -1)), x)


@pytest.mark.parametrize('root', ROOTS)
@pytest.mark.parametrize('shape', [(3, 3), (2, 3, 3), (2, 1, 3, 3)])
def test_leading_dimensions(root, shape):
    assert root(torch.eye(3).expand(shape)).shape == shape


@pytest.mark.parametrize('root', ROOTS)
@pytest.mark.parametrize('scale', [0.0, 1e-20, 1e-8, 1.0, 1e8, 1e20])
def test_finite_forward_and_backward(root, scale):
    x = (torch.randn(2, 6, 4) * scale**0.5).requires_grad_()
    root(covariance(x)).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize('root', ROOTS)
def test_is_homogeneous_of_degree_one_half(root):
    cov = spd([1.0, 0.5, 0.01]).float()
    torch.testing.assert_close(root(cov * 1e-12) * 1e6, root(cov), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('root', ROOTS)
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_nan_stays_nan_in_its_own_matrix(root, bad):
    cov = spd([1.0, 0.5, 0.2])
    clean = root(cov)
    cov[0, 1, 2] = bad
    out = root(cov)
    assert out[0].isnan().all()
    torch.testing.assert_close(out[1], clean[1])


def test_eigh_has_no_gradient_between_floored_directions():
    """The floored function is constant there; 1 / (sqrt(l_i) + sqrt(l_j)) would be 1e7."""
    cov = torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)).requires_grad_()
    sqrtm_eigh(cov).sum().backward()
    assert cov.grad[1:, 1:].abs().max() == 0
    torch.testing.assert_close(cov.grad[0], torch.tensor([0.5, 1.0, 1.0], dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize('function', [torch.sum, lambda root: root.square().sum()])
def test_eigh_has_no_second_derivative(function):
    """Neither with a cotangent that depends on cov nor with a constant one, whose path would be dropped without a word."""
    cov = spd([2.0, 1.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(function(sqrtm_eigh(cov)), cov, create_graph=True)
    with pytest.raises(RuntimeError, match=r'sqrtm_eigh \(the exact root\) has no second derivative. sqrtm_newton_schulz'):
        torch.autograd.grad(gradient.sum(), cov)
    for outer in (torch.func.jacrev, torch.func.jacfwd):
        with pytest.raises(RuntimeError, match='has no second derivative'):
            outer(torch.func.jacrev(lambda cov: function(sqrtm_eigh(cov))))(cov.detach())


def test_eigh_is_linear_in_its_cotangent_and_says_so():
    """A second derivative that does not touch cov is one of a linear map."""
    cov, cotangent = spd([2.0, 1.0]), spd([3.0, 0.5]).requires_grad_()
    pullback = torch.func.vjp(sqrtm_eigh, cov)[1]
    (gradient,) = torch.autograd.grad(pullback(cotangent)[0].sum(), cotangent)
    torch.testing.assert_close(gradient, pullback(torch.ones(2, 2, 2, dtype=torch.float64))[0])


def test_eigh_in_forward_mode_and_under_vmap():
    x = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: sqrtm_eigh(covariance(x)),
        x,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


@pytest.mark.parametrize('root', [sqrtm_newton_schulz, sqrtm_eigh])
def test_autocast_changes_nothing(root):
    x = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(0))
    cov = (x @ x.mT / 20).requires_grad_()
    expected = root(cov)
    with torch.autocast('cpu', torch.bfloat16):
        found = root(cov)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match='num_iters must be at least 1; got 0'):
        sqrtm_newton_schulz(torch.eye(3), 0)
    with pytest.raises(ValueError, match=r'got 0 and 0\.0'):
        sqrt_covariance(torch.rand(1, 3, 4), 0)
    with pytest.raises(ValueError, match=r'eps not negative; got 5 and -0\.1'):
        sqrt_covariance(torch.rand(1, 3, 4), eps=-0.1)


@pytest.mark.parametrize('function', [sqrtm_newton_schulz, sqrtm_eigh])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.int64])
def test_half_precision_is_refused(function, dtype):
    with pytest.raises(TypeError, match=f'{function.__name__} takes float32 or float64 matrices; got {dtype}'):
        function(torch.zeros(2, 2, dtype=dtype))


def test_the_floor_of_the_exact_root():
    assert torch.equal(sqrtm_eigh(torch.zeros(2, 2)), 1e-15 * torch.eye(2))
    small = torch.diag(torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(sqrtm_eigh(small)[1, 1], torch.tensor(1.2e-7).sqrt())
