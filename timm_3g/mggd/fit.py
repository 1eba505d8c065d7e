"""Maximum likelihood of the multivariate generalized Gaussian, for many sets of samples at once."""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from ._fit_steps import State, advance, start
from ._samples import broadcast, centred_samples, full_rank, has_finite_squares, require_samples, sets_with
from .distribution import MultivariateGeneralizedGaussian


@dataclass(frozen=True)
class FitRecord:
    """How a fit ended, for each element of the batch.

    Attributes:
        steps: (...), int64, number of steps tried. A step that lowers the likelihood is taken back.
        residual: (...), float64, the larger of two numbers: |S - I|_F / sqrt(d), S being the update of the scatter relative to
            it, and Newton's step in log(shape) if the shape is estimated. It is 0 at a stationary point of the likelihood.
        converged: (...), bool, residual <= tol.

    >>> _, record = fit_mggd(torch.randn(500, 2))
    >>> record.steps.shape, bool(record.converged), bool(record.residual < 1e-8)
    (torch.Size([]), True, True)
    """

    steps: Tensor
    residual: Tensor
    converged: Tensor


@torch.no_grad()
def fit_mggd(
    x: Tensor,
    shape: Tensor | float | None = None,
    loc: Tensor | float | None = None,
    max_steps: int = 500,
    tol: float = 1e-8,
) -> tuple[MultivariateGeneralizedGaussian, FitRecord]:
    """Fit a `MultivariateGeneralizedGaussian` to every set of N samples by maximum likelihood of scatter, scale and shape.

        Sigma <- sum_n (d u_n^(b-1) / sum_j u_j^b) x_n x_n^T,   u_n = x_n^T Sigma^-1 x_n,   tr Sigma = d
        delta  = (b / (d N) sum_n u_n^b)^(1/b),                 b <- Newton-Raphson on its own equation

    Every step works on samples whitened by the current scatter, so the estimate is equivariant under linear maps. With shape 1
    it is the sample covariance. The plain fixed point overshoots for shapes above about 2. For shapes above 1 the step is
    therefore (1 - g) Sigma + g Sigma_new with g = (d + 2) / (d + 2b), which cancels the error to first order for many samples.
    The step is shorter where the likelihood falls or the steps oscillate.

    Source: Pascal, Bombrun, Tourneret, Berthoumieu, "Parameter Estimation for Multivariate Generalized Gaussian Distributions",
    IEEE Transactions on Signal Processing 61(23), 2013, https://arxiv.org/abs/1302.6498
    These are eqs. (3) and (4) of the 3G paper, with delta summed over all samples.

    Args:
        x: (..., N, d), float32 or float64. All sets are fitted together, in float64.
        shape: known shape, a number or (...). None to estimate it.
        loc: known location, a number or (..., d). None for the sample mean. The mean is consistent, but not the location of
            largest likelihood, which is drawn to single samples for shapes below 1. For shapes below about 0.2 the mean is too
            far off, and the estimated shape too large: 0.17 for 0.05 at d = 1, N = 2000. Give loc there.
        max_steps: largest number of steps.
        tol: largest residual of a converged fit.

    Returns:
        The distribution, in the dtype of x, its scatter with trace d, without gradient. And a `FitRecord`. A batch of
        distributions takes values with the batch last: `distribution.log_prob(x.movedim(-2, 0))`. The estimated shape is biased
        upwards where N is not much larger than d: 0.75 instead of 0.5 at d = 64, N = 196 (median of 256 sets). The maximum is
        the one reached from the shape that matches the kurtosis. For few samples, such as N = 24 in d = 2, a very large shape
        can have a higher likelihood: a uniform distribution on an ellipsoid.

    Raises:
        TypeError: x is neither float32 nor float64.
        ValueError: entries that are not finite. Too few samples: N < d, N <= d with unknown shape, one more for an estimated
            mean. Samples in a subspace, such as constant ones. A sample at loc with unknown shape, which makes the likelihood
            unbounded as shape -> 0. A scatter or scale that the dtype of x cannot hold. An argument out of range.

    Warns:
        RuntimeWarning: some fits did not converge. If their shape is 1/64 or 64, the likelihood has no maximum. That is common
            for few samples. Of 100 Gaussian sets each: 90 at d = 8, N = 24. 62 at N = 32. 10 at N = 48. None at N = 64. 99 at
            d = 64, N = 196. None at N = 392.

    >>> laplace = MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), shape=0.5)
    >>> fitted, record = fit_mggd(laplace.sample((5000,)))
    >>> round(float(fitted.shape), 1), bool(record.converged)
    (0.5, True)
    """
    if max_steps < 1 or not tol > 0:
        raise ValueError(f'max_steps must be at least 1 and tol positive; got {max_steps} and {tol}.')
    samples, centre = centred_samples(x, loc)
    batch_shape, (num, dim) = x.shape[:-2], x.shape[-2:]
    needed = dim + (shape is None) + (loc is None)
    if num < needed:
        reasons = ', one more for the unknown shape' * (shape is None) + ', one more for the estimated mean' * (loc is None)
        raise ValueError(
            f'x must have at least {needed} samples (d = {dim}{reasons}): with fewer the likelihood has no maximum; got '
            f'N = {num}. Use fewer dimensions, or regularized_covariance.'
        )
    tol = max(tol, 100 * torch.finfo(samples.dtype).eps)  # float32 on mps cannot do better
    samples = samples.reshape(-1, num, dim)
    known = None if shape is None else _known(shape, batch_shape, samples)
    state = start(samples, known, batch_shape)
    if shape is None:
        at_loc = torch.isneginf(state.log_u).any(-1)
        if bool(at_loc.any()):
            raise ValueError(
                f'x has a sample at loc{sets_with(at_loc.reshape(batch_shape))}. With an unknown shape the likelihood is then '
                f'unbounded as shape -> 0. Remove such samples, or give a shape.'
            )
    steps = torch.zeros(len(samples), dtype=torch.int64, device=x.device)
    final = state.copy()
    active = torch.arange(len(samples), device=x.device)
    for step in range(max_steps + 1):
        going = (state.residual > tol) & ~(state.at_bound & (shape is None))
        if step == max_steps or not bool(going.all()):
            final.put(active, state)
            steps[active] = step
            active, state = active[going], state.select(going)
        if step == max_steps or not len(active):
            break
        state = advance(state, shape is None)
    record = FitRecord(
        steps.reshape(batch_shape), final.residual.reshape(batch_shape), (final.residual <= tol).reshape(batch_shape)
    )
    if not bool(record.converged.all()):
        warnings.warn(_unconverged(record, final, shape is None), RuntimeWarning, stacklevel=3)  # 2 is the decorator
    return final.distribution(known, centre, x.dtype, batch_shape), record


@torch.no_grad()
def can_fit(x: Tensor) -> Tensor:
    """Whether the fit of `fit_mggd(x)` is defined for each set of samples, with unknown location and shape.

    Args:
        x: (B, N, d), float32 or float64.

    Returns:
        (B,), bool. The fit is in float64. `fit_mggd` may still refuse float32 samples whose scale or scatter float32 does not
        hold. NaN, infinite and too large entries are False for their own set.

    Raises:
        TypeError: x is of another type or dtype.
        ValueError: x has another number of dimensions, or an empty one.

    >>> x = torch.randn(2, 50, 3)
    >>> x[1, :, 0] = 7.0  # a constant channel
    >>> can_fit(x)
    tensor([ True, False])
    """
    require_samples(x)
    if x.ndim != 3:
        raise ValueError(f'x must be (B, N, d), sets of samples; got {tuple(x.shape)}.')
    finite = has_finite_squares(x)
    samples, _ = centred_samples(torch.where(finite[:, None, None], x, 0.0), None)
    enough = x.shape[1] >= x.shape[2] + 2
    at_loc = (samples == 0).all(-1).any(-1)
    return finite & ~at_loc & full_rank(samples.mT @ samples / x.shape[1]) & enough


def _known(shape: Tensor | float, batch_shape: torch.Size, samples: Tensor) -> Tensor:
    """(B,), float64. Raises ValueError unless positive and finite."""
    known = torch.as_tensor(shape, dtype=samples.dtype, device=samples.device)
    if not bool(((known > 0) & torch.isfinite(known)).all()):
        raise ValueError(f'shape must be positive and finite; got {shape}.')
    return broadcast('shape', known, batch_shape).reshape(-1)


def _unconverged(record: FitRecord, final: State, estimate: bool) -> str:
    failed, largest = int((~record.converged).sum()), float(final.residual.nan_to_num(math.inf).max())
    text = f'{failed} of {record.converged.numel()} fits of a generalized Gaussian did not converge'
    if estimate and bool(final.at_bound.any()):
        text += (
            f'; in {int(final.at_bound.sum())} of them the likelihood has no maximum (shape at 1/64 or 64): too few samples, '
            f'or another distribution'
        )
    return f'{text}. Largest residual {largest:.1e}; see the record.'
