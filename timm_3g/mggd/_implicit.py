"""The derivative of the fixed point Sigma = F(Sigma, x) of `_robust.robust_step`, by the implicit function theorem.

With the partial derivatives A = dF/dSigma and B = dF/dx at the fixed point, dSigma = (I - A)^-1 B dx. The steps before the
fixed point do not matter. Samples x are (B, N, d), finite and minus their location, Sigma is (B, d, d)."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from ._robust import damped, estimator_weights, shrink, weighted_covariance


class _Linearized:
    """A, B and their transposes, as functions."""

    def __init__(self, x: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool) -> None:
        self.x, self.beta, self.pascal = x, beta, pascal
        self.solved = torch.cholesky_solve(x.mT, torch.linalg.cholesky(scatter)).mT  # Sigma^-1 x_n, (B, N, d)
        u = (x * self.solved).sum(-1)
        self.weight = estimator_weights(u, x.shape[-1], beta, pascal)
        _, self.vectors, root = shrink(weighted_covariance(x, self.weight), lam)
        # Divided differences of s(sigma), without a division by 0.
        self.loewner = 1 / (lam * (root.unsqueeze(-1) + root.unsqueeze(-2)))
        self.per_u = torch.where(u > 0, 1 / torch.where(u > 0, u, 1.0), 0.0)

    def _shrunk(self, v: Tensor) -> Tensor:
        """The derivative of eq. (6) in direction v, (B, d, d). It is self-adjoint."""
        return self.vectors @ (self.loewner * (self.vectors.mT @ v @ self.vectors)) @ self.vectors.mT

    def _reweighted(self, v: Tensor) -> Tensor:
        """The derivative of the weights in direction v of u, (B, N). It is self-adjoint."""
        return (self.beta - 1) * self.weight * self.per_u * v

    def _common(self, v: Tensor) -> Tensor:
        """What pascal subtracts from every weight, (B, N): all distances are in its denominator. It is self-adjoint."""
        num, dim = self.x.shape[-2:]
        return self.beta / (dim * num) * self.weight * (self.weight * v).sum(-1, keepdim=True)

    def of_distances(self, u: Tensor) -> Tensor:
        """F in the direction u (B, N) of the squared distances, (B, d, d)."""
        change = self._reweighted(u) - self._common(u) if self.pascal else self._reweighted(u)
        return self._shrunk(weighted_covariance(self.x, change))

    def of_samples(self, dx: Tensor) -> Tensor:
        """B: F in the direction dx (B, N, d), (B, d, d)."""
        half = (dx * (self.weight / dx.shape[-2]).unsqueeze(-1)).mT @ self.x
        return self.of_distances(2 * (dx * self.solved).sum(-1)) + self._shrunk(half + half.mT)

    def of_scatter(self, v: Tensor) -> Tensor:
        """A: F in the direction v (B, d, d) of Sigma, (B, d, d)."""
        return self.of_distances(-((self.solved @ v) * self.solved).sum(-1))

    def to_distances(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of sum(v * F) with respect to the weighted covariance (B, d, d) and to u (B, N)."""
        to_cov = self._shrunk(v)
        to_weight = ((self.x @ to_cov) * self.x).sum(-1) / self.x.shape[-2]
        to_u = self._reweighted(to_weight)
        return to_cov, to_u - self._common(to_weight) if self.pascal else to_u

    def to_scatter(self, v: Tensor) -> Tensor:
        """A^T v, (B, d, d)."""
        return -(self.solved * self.to_distances(v)[1].unsqueeze(-1)).mT @ self.solved

    def to_samples(self, v: Tensor) -> Tensor:
        """B^T v, (B, N, d)."""
        to_cov, to_u = self.to_distances(v)
        weight = (self.weight / self.x.shape[-2]).unsqueeze(-1)
        return 2 * ((self.x * weight) @ to_cov + self.solved * to_u.unsqueeze(-1))


def adjoint(
    grad: Tensor, x: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float
) -> Tensor:
    """(B, N, d): the gradient with respect to the samples, B^T v of v = grad + A^T v, for a gradient (B, d, d) of Sigma."""
    at = _Linearized(x, scatter, beta, lam, pascal)
    return at.to_samples(_fixed(0.5 * (grad + grad.mT), at.to_scatter, max_steps, tol, 'gradient'))


def tangent(
    dx: Tensor, x: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float
) -> Tensor:
    """(B, d, d): the derivative of Sigma in the direction dx (B, N, d) of the samples, v = B dx + A v."""
    at = _Linearized(x, scatter, beta, lam, pascal)
    return _fixed(at.of_samples(dx), at.of_scatter, max_steps, tol, 'tangent')


def _fixed(constant: Tensor, linear: Callable[[Tensor], Tensor], max_steps: int, tol: float, what: str) -> Tensor:
    """Solve v = constant + linear(v), (B, d, d), by damped steps as for the fixed point itself."""
    v, gap = constant, torch.zeros_like(constant)
    damping = torch.ones_like(constant[:, 0, 0])
    size = torch.linalg.matrix_norm(constant)
    for _ in range(max_steps + 1):
        last, gap = gap, constant + linear(v) - v
        if bool((torch.linalg.matrix_norm(gap) <= tol * size).all()):
            return v
        damping = damped(damping, gap, last)
        v = v + damping[:, None, None] * gap
    warnings.warn(f'the {what} of regularized_covariance did not converge in {max_steps} steps.', RuntimeWarning, stacklevel=2)
    return v
