"""The regularized robust covariance that 3G-Net's head approximates, iterated to convergence instead of learned."""

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
    """The robust covariance estimator of the 3G paper, iterated to its fixed point and differentiable there.

        J(Sigma) = log|Sigma| + (1/N) sum_n u_n^beta + lam tr(Sigma - log Sigma - I),   u_n = x_n^T Sigma^-1 x_n        (5)
        Sigma <- U diag(s) U^T,   s = sqrt(a^2 + sigma / lam) - a,   a = (1 - lam) / (2 lam)                            (6)

    U diag(sigma) U^T is the eigendecomposition of S = (1/N) sum_n w_n x_n x_n^T. The last term of J is the von Neumann
    divergence between the identity and Sigma. Each step is the one minimizer of J with the weights held fixed. The paper prints
    lam for 2 lam in eq. (6), which is no minimizer unless lam = 1, where both are the square root of S.

    weights:

    - 'mm': w = beta u^(beta - 1), the derivative of u^beta. For beta <= 1 the power is concave, J with fixed weights lies above
      J, and every step decreases J (majorize-minimize). Above 1 steps are halved until J does not rise.
    - 'pascal': w = d N u^(beta - 1) / sum_j u_j^beta, eq. (3), the weights of maximum likelihood without regularization. The
      paper combines them with eq. (6). They are the derivative of (d / beta) log mean(u^beta): every step decreases J with that
      in place of mean(u^beta). The minimum of J itself is elsewhere. Since sum_n w_n u_n = d N, tr Sigma = d at every fixed
      point, whatever the scale of x, unless all samples are at loc.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eqs. (3), (5) and (6),
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf

    Args:
        x: (..., N, d), float32 or float64. Computed in float64.
        beta: shape, > 0.
        lam: weight of the divergence, > 0. Up to 1 the estimator needs samples of full rank: N >= d, and one more for an
            estimated mean. Above 1 any samples do, and every eigenvalue is at least (lam - 1) / lam. With 'mm' the scale of x
            matters, because Sigma is drawn to the identity.
        weights: 'mm' or 'pascal'.
        loc: known location, a number or (..., d). None for the sample mean.
        max_steps: largest number of steps.
        tol: the largest |F(Sigma) - Sigma|_F / |Sigma|_F that counts as converged, where F is the step.

    Returns:
        (..., d, d), symmetric positive definite, in the dtype of x. Its gradient with respect to x and loc is that of the fixed
        point by the implicit function theorem, in reverse and in forward mode and by torch.func. It does not work under vmap:
        x already takes any batch dimensions.

    Raises:
        TypeError: x is neither float32 nor float64.
        ValueError: an argument out of range, entries that are not finite, or lam <= 1 and samples in a subspace.
        RuntimeError: a second derivative is requested.

    Warns:
        RuntimeWarning: the steps, or those of the gradient, did not converge.

    >>> x = torch.randn(196, 3)
    >>> cov = regularized_covariance(x, beta=0.5, lam=1.1)
    >>> cov.shape, bool((torch.linalg.eigvalsh(cov) >= 0.1 / 1.1).all())
    (torch.Size([3, 3]), True)
    """
    check_options(beta, lam, weights)
    if max_steps < 1 or not tol > 0:
        raise ValueError(f'max_steps must be at least 1 and tol positive; got {max_steps} and {tol}.')
    samples, _ = centred_samples(x, loc)
    return robust_covariance(samples, beta, lam, weights == 'pascal', max_steps, tol).to(x.dtype)


def check_options(beta: float, lam: float, weights: str) -> None:
    """Check the options of `regularized_covariance`.

    Raises:
        ValueError: beta or lam is not positive and finite, or weights is neither 'mm' nor 'pascal'.

    >>> check_options(beta=0.0, lam=1.1, weights='mm')
    Traceback (most recent call last):
    ValueError: beta must be positive and finite; got 0.0.
    """
    if not (beta > 0 and math.isfinite(beta)):
        raise ValueError(f'beta must be positive and finite; got {beta}.')
    if not (lam > 0 and math.isfinite(lam)):
        raise ValueError(f'lam must be positive and finite; got {lam}.')
    if weights not in WEIGHTS:
        raise ValueError(f'weights must be one of {", ".join(WEIGHTS)}; got {weights!r}.')
