"""The regularized robust covariance that 3G-Net's head stands for, solved to the end instead of learned."""

import math

from torch import Tensor

from ._fixed_point import robust_covariance
from ._robust import MAX_STEPS, TOL
from ._samples import centred_samples

WEIGHTS = ('mm', 'pascal')


def regularized_covariance(
    x: Tensor,
    beta: float,
    lam: float,
    weights: str = 'mm',
    loc: Tensor | float | None = None,
    max_steps: int = MAX_STEPS,
    tol: float = TOL,
) -> Tensor:
    """The robust covariance estimator of the 3G paper, eqs. (5) and (6), iterated to its fixed point, and differentiable there.

        J(Sigma) = log|Sigma| + (1/N) sum_n u_n^beta + lam tr(Sigma - log Sigma - I),   u_n = x_n^T Sigma^-1 x_n        (5)
        Sigma <- U diag(s) U^T,   s = sqrt(a^2 + sigma / lam) - a,   a = (1 - lam) / (2 lam)                            (6)

    U diag(sigma) U^T being the eigendecomposition of S = (1/N) sum_n w_n x_n x_n^T. The last term of J is the von Neumann
    divergence of the identity and Sigma, and each step is the one minimiser of J with the weights held. The paper
    prints lam for 2 lam in eq. (6); that is no minimiser unless lam = 1, where both are the square root of S.

    weights:

    - 'mm': w = beta u^(beta - 1), the derivative of u^beta. For beta <= 1 the power is concave, J with the weights held lies
      above J, and every step decreases J (majorise-minimise). Above 1 that is lost: steps are halved until J does not rise.
    - 'pascal': w = d N u^(beta - 1) / sum_j u_j^beta, eq. (3), the weights of maximum likelihood without regularization. The
      paper combines them with eq. (6). They are the derivative of (d / beta) log mean(u^beta): every step decreases J with that
      in place of mean(u^beta), and not J, whose minimum is elsewhere. sum_n w_n u_n = d N makes tr Sigma = d at every fixed
      point, whatever the scale of x.

    Args:
        x: (..., N, d), float32 or float64. Computed in float64.
        beta: shape, > 0.
        lam: weight of the divergence, > 0. Up to 1 the estimator needs samples of full rank (N >= d, one more for an
            estimated mean); above, every eigenvalue is at least (lam - 1) / lam, and any samples do. With 'mm' the
            scale of x matters: Sigma is drawn to the identity.
        weights: 'mm' or 'pascal'.
        loc: known location, a number or (..., d), e.g. 0; None: the sample mean.
        max_steps: at most.
        tol: the largest |F(Sigma) - Sigma|_F / |Sigma|_F that counts as converged, F being the step.

    Returns:
        (..., d, d), symmetric positive definite, in the dtype of x. Its gradient with respect to x (and loc) is that of the
        fixed point, by the implicit function theorem, whatever the steps were. There is no second one (RuntimeError). In
        forward mode, too, and by torch.func, but not under vmap: x already has any batch dimensions.

    Raises:
        TypeError: x is neither float32 nor float64.
        ValueError: an argument out of range; entries that are not finite; lam <= 1 and samples in a subspace.

    Warns:
        RuntimeWarning: the steps, or those of the gradient, did not converge.
    """
    check_options(beta, lam, weights)
    if max_steps < 1 or not tol > 0:
        raise ValueError(f'max_steps must be at least 1 and tol positive; got {max_steps} and {tol}.')
    samples, _ = centred_samples(x, loc)
    return robust_covariance(samples, beta, lam, weights == 'pascal', max_steps, tol).to(x.dtype)


def check_options(beta: float, lam: float, weights: str) -> None:
    """Raise ValueError unless beta and lam are positive and finite, and weights is the name of some."""
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f'beta must be positive and finite; got {beta}.')
    if not (lam > 0 and math.isfinite(lam)):
        raise ValueError(f'lam must be positive and finite; got {lam}.')
    if weights not in WEIGHTS:
        raise ValueError(f'weights must be one of {", ".join(WEIGHTS)}; got {weights!r}.')
