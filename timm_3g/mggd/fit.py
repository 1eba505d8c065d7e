"""Maximum likelihood of the multivariate generalized Gaussian, for many sets of samples at once."""

import math
import warnings
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ._samples import broadcast, centred_samples, full_rank, refuse_singular, which
from ._shape import SHAPE_MAX, SHAPE_MIN, profile, shape_by_kurtosis
from .distribution import MultivariateGeneralizedGaussian


@dataclass(frozen=True)
class FitRecord:
    """How a fit ended, element by element of the batch.

    Attributes:
        steps: (...), int64, steps tried; one that lowers the likelihood is taken back.
        residual: (...), float64: the larger of |S - I|_F / sqrt(d), S the update of the scatter relative to it, and of Newton's
            step in log(shape), if shape is estimated. 0 is a stationary point of the likelihood.
        converged: (...), bool: residual <= tol.
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

    Source: Pascal, Bombrun, Tourneret, Berthoumieu, "Parameter Estimation for Multivariate Generalized Gaussian Distributions",
    IEEE TSP 61(23), 2013; eqs. (3) and (4) of the 3G paper, its delta summed over all samples. Every step works on samples
    whitened by the scatter so far, so that the estimate is equivariant under linear maps of the samples; with shape 1 it is the
    sample covariance. The plain fixed point overshoots for shapes above about 2. So for shapes above 1 the step is
    (1 - g) Sigma + g Sigma_new with g = (d + 2) / (d + 2b), which cancels the error to first order for many samples; and it
    is shorter where the likelihood falls or the steps still go to and fro.

    Args:
        x: (..., N, d), float32 or float64; all sets are fitted together, in float64.
        shape: known shape, a number or (...); None: estimated.
        loc: known location, a number or (..., d), e.g. 0; None: the sample mean. (The mean is consistent, but not the
            location of largest likelihood, which for shapes below 1 is drawn to single samples. For shapes below about 0.2
            it is too far off: the shape comes out too large, 0.17 for 0.05 at d = 1, N = 2000. Give loc there.)
        max_steps: at most.
        tol: largest residual of a converged fit.

    Returns:
        The distribution, in the dtype of x, scatter with trace d, without gradient; and a `FitRecord`. (A batch of
        distributions takes values with the batch last: `law.log_prob(x.movedim(-2, 0))`.) The estimated shape is
        biased upwards where N is not much larger than d: 0.75 instead of 0.5 at d = 64, N = 196 (median of 256 sets). The
        maximum is the one reached from the shape that the kurtosis tells; of few samples, N = 24 in d = 2, the likelihood can
        have a higher one at a very large shape, which is a uniform law on an ellipsoid.

    Raises:
        TypeError: x is neither float32 nor float64.
        ValueError: entries that are not finite; too few samples (N < d, N <= d with unknown shape, one more for an estimated
            mean); samples in a subspace, e.g. constant; a sample at loc while the shape is unknown, which makes the likelihood
            unbounded for shape -> 0; a scatter or scale that the dtype of x cannot hold; an argument out of range.

    Warns:
        RuntimeWarning: some fits did not converge. If their shape stands at 1/64 or 64, the likelihood has no maximum, as often
            where samples are few: of 100 Gaussian sets each, 90 at d = 8, N = 24; 62 at N = 32; 10 at N = 48; none at N = 64;
            99 at d = 64, N = 196; none at N = 392.
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
            f'N = {num}. Take fewer dimensions, or regularized_covariance.'
        )
    tol = max(tol, 100 * torch.finfo(samples.dtype).eps)  # float32 on mps cannot do better
    samples = samples.reshape(-1, num, dim)
    known = None if shape is None else _known(shape, batch_shape, samples)
    state = _start(samples, known, batch_shape)
    if shape is None:
        at_loc = torch.isneginf(state.log_u).any(-1)
        if bool(at_loc.any()):
            raise ValueError(
                f'x must have no sample at loc while the shape is unknown: the likelihood is then unbounded as shape -> 0; '
                f'{which(at_loc.reshape(batch_shape))} some. Remove them, or give a shape.'
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
        state = _advance(state, shape is None)
    record = FitRecord(
        steps.reshape(batch_shape), final.residual.reshape(batch_shape), (final.residual <= tol).reshape(batch_shape)
    )
    if not bool(record.converged.all()):
        warnings.warn(_unconverged(record, final, shape is None), RuntimeWarning, stacklevel=2)
    return final.distribution(known, centre, x.dtype, batch_shape), record


@torch.no_grad()
def can_fit(x: Tensor) -> Tensor:
    """(B,), bool: for which sets of samples x (B, N, d) `fit_mggd(x)` is defined, location and shape unknown."""
    samples, _ = centred_samples(torch.where(torch.isfinite(x), x, 0.0), None)
    enough = x.shape[1] >= x.shape[2] + 2
    finite = torch.isfinite(x).flatten(1).all(1)
    at_loc = (samples == 0).all(-1).any(-1)
    return finite & ~at_loc & full_rank(samples.mT @ samples / x.shape[1]) & enough


def _known(shape: Tensor | float, batch_shape: torch.Size, samples: Tensor) -> Tensor:
    """(B,), float64. Raises ValueError unless positive and finite."""
    known = torch.as_tensor(shape, dtype=samples.dtype, device=samples.device)
    if not bool(((known > 0) & torch.isfinite(known)).all()):
        raise ValueError(f'shape must be positive and finite; got {shape}.')
    return broadcast('shape', known, batch_shape).reshape(-1)


@dataclass
class _State:
    """Fits on the way: A of them, each field (A, ...)."""

    white: Tensor  # (A, N, d), samples whitened by the scatter
    tril: Tensor  # (A, d, d), L L^T = scatter up to a factor
    log_det: Tensor  # (A,), of L
    log_shape: Tensor
    damping: Tensor
    log_u: Tensor  # (A, N)
    loss: Tensor  # what the steps decrease: - log-likelihood a sample
    gap: Tensor  # (A, d, d), update of the scatter relative to it, minus the identity: 0 at a stationary point
    newton: Tensor
    residual: Tensor

    @property
    def at_bound(self) -> Tensor:
        """(A,), where the estimate of the shape was stopped."""
        return (self.log_shape <= math.log(SHAPE_MIN)) | (self.log_shape >= math.log(SHAPE_MAX))

    def copy(self) -> '_State':
        return _State(*(getattr(self, f.name).clone() for f in fields(self)))

    def select(self, index: Tensor) -> '_State':
        return _State(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, index: Tensor, other: '_State') -> None:
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)

    def where(self, mask: Tensor, other: '_State') -> '_State':
        """Fits of self where mask (A,), those of other elsewhere."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return _State(*(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))

    def distribution(
        self, known: Tensor | None, centre: Tensor, dtype: torch.dtype, batch_shape: torch.Size
    ) -> MultivariateGeneralizedGaussian:
        """With trace d, in `dtype`; a known shape exactly as it was given."""
        num, dim = self.white.shape[-2:]
        scatter = self.tril @ self.tril.mT
        trace = scatter.diagonal(dim1=-2, dim2=-1).mean(-1)
        shape = self.log_shape.exp() if known is None else known
        log_s1 = (shape.unsqueeze(-1) * self.log_u).logsumexp(-1)
        log_scale = (torch.log(shape / (dim * num)) + log_s1) / shape + trace.log()
        scatter = (scatter / trace[:, None, None]).to(dtype)
        failed = torch.linalg.cholesky_ex(scatter).info > 0
        if bool(failed.any()):
            raise ValueError(
                f'x is too nearly in a subspace for a scatter in {dtype}; {which(failed.reshape(batch_shape))} such a scatter. '
                f'Give x in float64, or leave channels out.'
            )
        scale = log_scale.exp().to(dtype)
        failed = ~((scale >= torch.finfo(dtype).tiny) & torch.isfinite(scale))
        if bool(failed.any()):
            raise ValueError(
                f'the scale does not fit {dtype}: it is e^{float(log_scale[failed][0]):.0f}, for a shape of '
                f'{float(shape[failed][0]):.3g}; {which(failed.reshape(batch_shape))} such a scale. Give x in float64, or in '
                f'other units.'
            )
        return MultivariateGeneralizedGaussian(
            centre,
            scatter.reshape(*batch_shape, dim, dim),
            shape.to(dtype).reshape(batch_shape),
            scale.reshape(batch_shape),
        )


def _start(samples: Tensor, shape: Tensor | None, batch_shape: torch.Size) -> _State:
    """At the sample covariance, and the shape that its kurtosis tells."""
    count, num, dim = samples.shape
    cov = samples.mT @ samples / num
    refuse_singular(~full_rank(cov).reshape(batch_shape))
    tril = torch.linalg.cholesky(cov)
    white = torch.linalg.solve_triangular(tril, samples.mT, upper=False).mT
    estimate = shape is None
    if shape is None:
        shape = shape_by_kurtosis(white.square().sum(-1).square().mean(-1), dim)
    zeros = samples.new_zeros(count)
    return _evaluated(white, tril, zeros, shape.log(), zeros + 1, estimate)


def _evaluated(white: Tensor, tril: Tensor, log_det: Tensor, log_shape: Tensor, damping: Tensor, estimate: bool) -> _State:
    dim = white.shape[-1]
    log_u = 2 * torch.linalg.vector_norm(white, dim=-1).log()
    # A sample at loc has u = 0 and no weight in the scatter; its logarithm must not meet a zero share.
    at = profile(log_u.clamp(min=math.log(torch.finfo(white.dtype).tiny)), log_shape.exp(), dim)
    weight = torch.where(torch.isneginf(log_u), 0.0, dim * at.share * (-log_u).exp())
    gap = (white * weight.unsqueeze(-1)).mT @ white - torch.eye(dim, dtype=white.dtype, device=white.device)
    newton = at.step if estimate else torch.zeros_like(at.step)
    residual = torch.maximum(torch.linalg.matrix_norm(gap) / dim**0.5, newton.abs())
    return _State(white, tril, log_det, log_shape, damping, log_u, at.loss + log_det, gap, newton, residual)


def _advance(state: _State, estimate: bool) -> _State:
    """One step of every fit; a fit whose likelihood would fall stays, and halves its damping."""
    dim = state.white.shape[-1]
    length = state.damping * ((dim + 2) / (dim + 2 * state.log_shape.exp())).clamp(max=1)
    eye = torch.eye(dim, dtype=state.white.dtype, device=state.white.device)
    factor, _ = torch.linalg.cholesky_ex(eye + length[:, None, None] * state.gap)
    trial = _evaluated(
        torch.linalg.solve_triangular(factor, state.white.mT, upper=False).mT,
        state.tril @ factor,
        state.log_det + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1),
        (state.log_shape + state.damping * state.newton).clamp(math.log(SHAPE_MIN), math.log(SHAPE_MAX))
        if estimate
        else state.log_shape,
        state.damping,
        estimate,
    )
    accepted = trial.loss <= state.loss + 1e-11 * (1 + state.loss.abs())  # a NaN is not
    # The factor by which the gap shrinks along itself: near -1 the steps go to and fro, and 1 / (1 - factor) is the cure.
    size = state.gap.square().sum((-2, -1))
    along = torch.where(size > 1e-20, (trial.gap * state.gap).sum((-2, -1)) / size, 0.0)  # below is rounding
    calm = torch.where(along < -0.5, 1 / (1 - along), 1.05)
    state = trial if bool(accepted.all()) else trial.where(accepted, state)
    state.damping = torch.where(accepted, state.damping * calm, state.damping / 2).clamp(max=1)
    return state


def _unconverged(record: FitRecord, final: _State, estimate: bool) -> str:
    failed, largest = int((~record.converged).sum()), float(final.residual.nan_to_num(math.inf).max())
    text = f'{failed} of {record.converged.numel()} fits of a generalized Gaussian did not converge'
    if estimate and bool(final.at_bound.any()):
        text += (
            f'; in {int(final.at_bound.sum())} of them the likelihood has no maximum (shape at 1/64 or 64): too few samples, '
            f'or another law'
        )
    return f'{text}. Largest residual {largest:.1e}; see the record.'
