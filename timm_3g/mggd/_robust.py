"""The steps of `regularized_covariance` and their fixed point, for samples (B, N, d) minus their location."""

import math
import warnings

import torch
from torch import Tensor

MAX_STEPS = 300
TOL = 1e-10


def estimator_weights(u: Tensor, dim: int, beta: float, pascal: bool) -> Tensor:
    """The weights of samples by their squared distances, from the formulas of `regularized_covariance`.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eq. (3) for pascal,
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        u: squared distances (..., N), >= 0.
        dim: d, the dimension of the samples.
        beta: shape, > 0.
        pascal: d N u^(beta - 1) / sum_j u_j^beta instead of beta u^(beta - 1).

    Returns:
        (..., N), in the dtype of u. 0 for a sample at the location, u = 0.

    >>> estimator_weights(torch.tensor([0.0, 1.0, 4.0]), dim=2, beta=0.5, pascal=False)
    tensor([0.0000, 0.5000, 0.2500])
    """
    inside = torch.where(u > 0, u, 1.0)
    power = torch.where(u > 0, inside.pow(beta - 1), 0.0)
    if pascal:
        total = torch.where(u > 0, inside.pow(beta), 0.0).sum(-1, keepdim=True)
        return dim * u.shape[-1] * power / torch.where(total > 0, total, 1.0)
    return beta * power


def squared_distances(samples: Tensor, scatter: Tensor) -> Tensor:
    """The squared Mahalanobis distances u = x^T Sigma^-1 x.

    Args:
        samples: (..., N, d), minus their location.
        scatter: Sigma, (..., d, d).

    Returns:
        (..., N). NaN where the scatter is not positive definite.

    >>> squared_distances(torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.diag(torch.tensor([9.0, 1.0])))
    tensor([1., 4.])
    """
    tril, info = torch.linalg.cholesky_ex(scatter)
    white = torch.linalg.solve_triangular(tril, samples.transpose(-2, -1), upper=False)
    return torch.where((info > 0).unsqueeze(-1), float('nan'), white.square().sum(-2))


def weighted_covariance(samples: Tensor, weight: Tensor) -> Tensor:
    """S (B, d, d): (1/N) sum_n w_n x_n x_n^T of samples (B, N, d) and weights (B, N)."""
    return torch.matmul((samples * (weight / samples.shape[-2]).unsqueeze(-1)).transpose(-2, -1), samples)


def shrink(cov: Tensor, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eq. (6) with 2 lam, applied to cov (..., d, d).

    Returns:
        The result, its eigenvectors, and sqrt(a^2 + sigma / lam) for each eigenvalue sigma.
    """
    a = (1 - lam) / (2 * lam)
    sigma, vectors = torch.linalg.eigh(cov)
    sigma = sigma.clamp(min=0.0)  # rounding of a large cov is larger than a^2
    root = (a * a + sigma / lam).sqrt()
    # root - a would cancel for small eigenvalues where a > 0: (root - a) (root + a) = sigma / lam.
    s = sigma / lam / (root + a) if a > 0 else root - a
    return torch.matmul(vectors * s.unsqueeze(-2), vectors.transpose(-2, -1)), vectors, root


def robust_step(samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool) -> Tensor:
    """F(Sigma): weigh the samples by eq. (3), then shrink the eigenvalues of their covariance by eq. (6).

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eqs. (3) and (6), with 2 lam for
    lam,
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        samples: (B, N, d), minus their location.
        scatter: Sigma, (B, d, d).
        beta, lam, pascal: see `robust_covariance`.

    Returns:
        (B, d, d), in the dtype of the samples.

    >>> samples = torch.eye(2).mul(2).expand(1, 2, 2)
    >>> robust_step(samples, torch.eye(2)[None], beta=1.0, lam=1.0, pascal=False)
    tensor([[[1.4142, 0.0000],
             [0.0000, 1.4142]]])
    """
    weight = estimator_weights(squared_distances(samples, scatter), samples.shape[-1], beta, pascal)
    return shrink(weighted_covariance(samples, weight), lam)[0]


def regularized_loss(samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool = False) -> Tensor:
    """J of eq. (5), which the steps of `regularized_covariance` decrease.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eq. (5),
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        samples: (..., N, d), minus their location.
        scatter: Sigma, (..., d, d).
        beta, lam: see `regularized_covariance`.
        pascal: use (d / beta) log of the mean of u^beta in place of that mean. Its derivative gives the weights of eq. (3).

    Returns:
        (...), in the dtype of the samples.

    >>> regularized_loss(torch.eye(2), torch.eye(2), beta=1.0, lam=1.0)
    tensor(1.)
    """
    dim = samples.shape[-1]
    power = squared_distances(samples, scatter).pow(beta).mean(-1)
    if pascal:
        power = dim / beta * power.clamp(min=torch.finfo(power.dtype).tiny).log()
    log_det = torch.linalg.slogdet(scatter).logabsdet
    return (1 - lam) * log_det + power + lam * (scatter.diagonal(dim1=-2, dim2=-1).sum(-1) - dim)


def unrolled_covariance(samples: Tensor, beta: float, lam: float, pascal: bool) -> Tensor:
    """`robust_covariance` by 100 steps and the autograd of eigh, for TorchScript and tracing.

    Args:
        samples: (B, N, d), minus their location, finite.
        beta: shape, 0.2 to 1. In this range 100 steps reach 1e-6.
        lam, pascal: see `robust_covariance`. With pascal, lam is at least 0.5.

    Returns:
        (B, d, d), in the dtype of the samples.

    Raises:
        ValueError: beta is outside 0.2 to 1, or lam below 0.5 with pascal. Those need steps that adapt to the data.

    >>> samples = torch.randn(1, 50, 2, dtype=torch.float64)
    >>> options = {'beta': 0.5, 'lam': 1.1, 'pascal': False}
    >>> torch.allclose(unrolled_covariance(samples, **options), robust_covariance(samples, **options))
    True
    """
    if beta < 0.2 or beta > 1:
        raise ValueError('TorchScript and tracing need beta from 0.2 to 1: other shapes need steps that adapt to the data.')
    if pascal and lam < 0.5:
        raise ValueError(
            'TorchScript and tracing need lam of at least 0.5 with pascal: less needs steps that adapt to the data.'
        )
    scatter = shrink(weighted_covariance(samples, torch.ones_like(samples[..., 0])), lam)[0]
    for _ in range(100):
        scatter = robust_step(samples, scatter, beta, lam, pascal)
    return scatter


def solve(samples: Tensor, cov: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float) -> Tensor:
    """The fixed point of `robust_step`, (B, d, d), for sets of finite samples (B, N, d). The first step starts at cov."""
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
        f'sets of samples; largest residual {float(residual.max()):.1e}. Increase max_steps, or give a beta closer to 1.',
        RuntimeWarning,
        stacklevel=2,
    )
    return before


def damped(damping: Tensor, gap: Tensor, last: Tensor) -> Tensor:
    """The next damping: smaller where a step undoes more than half of the previous one."""
    along = (gap * last).sum((-2, -1)) / last.square().sum((-2, -1))
    return torch.where(along < -0.5, damping / (1 - along), 1.05 * damping).clamp(max=1)
