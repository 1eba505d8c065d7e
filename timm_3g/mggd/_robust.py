"""The steps of `regularized_covariance` and their fixed point, on samples (B, N, d) minus their location."""

import math
import warnings

import torch
from torch import Tensor

MAX_STEPS = 300
TOL = 1e-10


def estimator_weights(u: Tensor, dim: int, beta: float, pascal: bool) -> Tensor:
    """w (..., N) of squared distances u (..., N), by the formulae of `regularized_covariance`; 0 for a sample at loc."""
    inside = torch.where(u > 0, u, 1.0)
    power = torch.where(u > 0, inside.pow(beta - 1), 0.0)
    if pascal:
        total = torch.where(u > 0, inside.pow(beta), 0.0).sum(-1, keepdim=True)
        return dim * u.shape[-1] * power / torch.where(total > 0, total, 1.0)
    return beta * power


def squared_distances(samples: Tensor, scatter: Tensor) -> Tensor:
    """u (..., N): x^T Sigma^-1 x of samples (..., N, d) and scatter (..., d, d); NaN where that is not positive definite."""
    tril, info = torch.linalg.cholesky_ex(scatter)
    white = torch.linalg.solve_triangular(tril, samples.transpose(-2, -1), upper=False)
    return torch.where((info > 0).unsqueeze(-1), float('nan'), white.square().sum(-2))


def weighted_covariance(samples: Tensor, weight: Tensor) -> Tensor:
    """S (B, d, d): (1/N) sum_n w_n x_n x_n^T of samples (B, N, d) and weights (B, N)."""
    return torch.matmul((samples * (weight / samples.shape[-2]).unsqueeze(-1)).transpose(-2, -1), samples)


def shrink(cov: Tensor, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. (6) with 2 lam of cov (..., d, d): the result, its eigenvectors, and sqrt(a^2 + sigma / lam) of each eigenvalue."""
    a = (1 - lam) / (2 * lam)
    sigma, vectors = torch.linalg.eigh(cov)
    sigma = sigma.clamp(min=0.0)  # rounding of a large cov is larger than a^2
    root = (a * a + sigma / lam).sqrt()
    # root - a would cancel for small eigenvalues where a > 0: (root - a) (root + a) = sigma / lam.
    s = sigma / lam / (root + a) if a > 0 else root - a
    return torch.matmul(vectors * s.unsqueeze(-2), vectors.transpose(-2, -1)), vectors, root


def robust_step(samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool) -> Tensor:
    """F(Sigma), one step of eqs. (3) and (6): samples (B, N, d) and scatter (B, d, d) to (B, d, d)."""
    weight = estimator_weights(squared_distances(samples, scatter), samples.shape[-1], beta, pascal)
    return shrink(weighted_covariance(samples, weight), lam)[0]


def regularized_loss(samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool = False) -> Tensor:
    """J of eq. (5), (...), of samples (..., N, d) minus their location and scatter (..., d, d).

    With pascal, (d / beta) log of the mean of u^beta in place of that mean: what the weights of eq. (3) are the derivative of.
    """
    dim = samples.shape[-1]
    power = squared_distances(samples, scatter).pow(beta).mean(-1)
    if pascal:
        power = dim / beta * power.clamp(min=torch.finfo(power.dtype).tiny).log()
    log_det = torch.linalg.slogdet(scatter).logabsdet
    return (1 - lam) * log_det + power + lam * (scatter.diagonal(dim1=-2, dim2=-1).sum(-1) - dim)


def unrolled_covariance(samples: Tensor, beta: float, lam: float, pascal: bool) -> Tensor:
    """`_fixed_point.robust_covariance` by a fixed number of steps and the autograd of eigh, for TorchScript and tracing.

    To 1e-6 for beta from 0.2 to 1. Above, steps must adapt to the data, below they are too many: a ValueError says so.
    """
    if beta < 0.2 or beta > 1:
        raise ValueError('TorchScript and tracing need beta from 0.2 to 1: other shapes take steps that adapt to the data.')
    scatter = shrink(weighted_covariance(samples, torch.ones_like(samples[..., 0])), lam)[0]
    for _ in range(100):
        scatter = robust_step(samples, scatter, beta, lam, pascal)
    return scatter


def solve(samples: Tensor, cov: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float) -> Tensor:
    """The fixed point of `robust_step`, (B, d, d), by steps from the covariance on, for sets of finite samples (B, N, d)."""
    scatter = shrink(cov, lam)[0]
    damping = torch.ones_like(scatter[:, 0, 0])
    loss = torch.full_like(damping, math.inf)
    before, step, residual = scatter, torch.zeros_like(scatter), loss
    for _ in range(max_steps + 1):
        now = regularized_loss(samples, scatter, beta, lam, pascal)
        risen = ~(now <= loss + 1e-11 * (1 + loss.abs()))  # or NaN
        if bool(risen.any()):  # back, and half as far
            scatter = torch.where(risen[:, None, None], before, scatter)
            damping = torch.where(risen, damping / 2, damping)
            now = torch.where(risen, loss, now)
        loss, last = now, step
        step = robust_step(samples, scatter, beta, lam, pascal) - scatter
        residual = torch.linalg.matrix_norm(step) / torch.linalg.matrix_norm(scatter)
        if bool((residual <= tol).all()):
            return scatter
        damping = torch.where(risen, damping, damped(damping, step, last))
        before = scatter
        scatter = scatter + damping[:, None, None] * step
    warnings.warn(
        f'regularized_covariance did not converge in {max_steps} steps for {int((residual > tol).sum())} of {len(samples)} '
        f'sets of samples; largest residual {float(residual.max()):.1e}. Give max_steps, or a beta nearer to 1.',
        RuntimeWarning,
        stacklevel=2,
    )
    return before


def damped(damping: Tensor, gap: Tensor, last: Tensor) -> Tensor:
    """Shorter where a step undoes more than half of the one before."""
    along = (gap * last).sum((-2, -1)) / last.square().sum((-2, -1))
    return torch.where(along < -0.5, damping / (1 - along), 1.05 * damping).clamp(max=1)
