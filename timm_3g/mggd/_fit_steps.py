"""The steps of `fit_mggd`: many fits on their way to the maximum of their likelihoods, as one batch."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ._samples import full_rank, refuse_singular, sets_with
from ._shape import SHAPE_MAX, SHAPE_MIN, profile, shape_by_kurtosis
from .distribution import MultivariateGeneralizedGaussian


@dataclass
class State:
    """A fits on their way, each field (A, ...)."""

    white: Tensor  # (A, N, d), samples whitened by the scatter
    tril: Tensor  # (A, d, d), L L^T = scatter up to a factor
    log_det: Tensor  # (A,), of L
    log_shape: Tensor
    damping: Tensor
    log_u: Tensor  # (A, N)
    loss: Tensor  # what the steps decrease: minus log-likelihood per sample
    gap: Tensor  # (A, d, d), update of the scatter relative to it, minus the identity: 0 at a stationary point
    newton: Tensor
    residual: Tensor

    @property
    def at_bound(self) -> Tensor:
        """(A,), bool: whether the estimate of the shape has reached its bounds."""
        return (self.log_shape <= math.log(SHAPE_MIN)) | (self.log_shape >= math.log(SHAPE_MAX))

    def copy(self) -> 'State':
        return State(*(getattr(self, f.name).clone() for f in fields(self)))

    def select(self, index: Tensor) -> 'State':
        return State(*(getattr(self, f.name)[index] for f in fields(self)))

    def put(self, index: Tensor, other: 'State') -> None:
        for f in fields(self):
            getattr(self, f.name)[index] = getattr(other, f.name)

    def where(self, mask: Tensor, other: 'State') -> 'State':
        """Fits of self where mask (A,), those of other elsewhere."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return State(*(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs))

    def distribution(
        self, known: Tensor | None, centre: Tensor, dtype: torch.dtype, batch_shape: torch.Size
    ) -> MultivariateGeneralizedGaussian:
        """The fitted distribution, its scatter with trace d, in `dtype`. A known shape is returned as given."""
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
                f'x lies too close to a subspace for a scatter in {dtype}{sets_with(failed.reshape(batch_shape))}. '
                f'Give x in float64, or remove channels.'
            )
        scale = log_scale.exp().to(dtype)
        failed = ~((scale >= torch.finfo(dtype).tiny) & torch.isfinite(scale))
        if bool(failed.any()):
            raise ValueError(
                f'the scale does not fit {dtype}{sets_with(failed.reshape(batch_shape))}: it is '
                f'e^{float(log_scale[failed][0]):.0f}, for a shape of {float(shape[failed][0]):.3g}. Give x in float64, or in '
                f'other units.'
            )
        return MultivariateGeneralizedGaussian(
            centre,
            scatter.reshape(*batch_shape, dim, dim),
            shape.to(dtype).reshape(batch_shape),
            scale.reshape(batch_shape),
        )


def start(samples: Tensor, shape: Tensor | None, batch_shape: torch.Size) -> State:
    """The first state: the sample covariance, and the shape that matches the sample kurtosis."""
    count, num, dim = samples.shape
    cov = samples.mT @ samples / num
    refuse_singular(~full_rank(cov).reshape(batch_shape))
    tril = torch.linalg.cholesky(cov)
    white = torch.linalg.solve_triangular(tril, samples.mT, upper=False).mT
    estimate = shape is None
    if shape is None:
        shape = shape_by_kurtosis(white.square().sum(-1).square().mean(-1), dim)
    zeros = samples.new_zeros(count)
    return evaluated(white, tril, zeros, shape.log(), zeros + 1, estimate)


def evaluated(white: Tensor, tril: Tensor, log_det: Tensor, log_shape: Tensor, damping: Tensor, estimate: bool) -> State:
    """The state of fits at these whitened samples and shapes: loss, gap, Newton step and residual."""
    dim = white.shape[-1]
    log_u = 2 * torch.linalg.vector_norm(white, dim=-1).log()
    # A sample at loc has u = 0 and no weight in the scatter. Its logarithm must not meet a zero share.
    at = profile(log_u.clamp(min=math.log(torch.finfo(white.dtype).tiny)), log_shape.exp(), dim)
    weight = torch.where(torch.isneginf(log_u), 0.0, dim * at.share * (-log_u).exp())
    gap = (white * weight.unsqueeze(-1)).mT @ white - torch.eye(dim, dtype=white.dtype, device=white.device)
    newton = at.step if estimate else torch.zeros_like(at.step)
    residual = torch.maximum(torch.linalg.matrix_norm(gap) / dim**0.5, newton.abs())
    return State(white, tril, log_det, log_shape, damping, log_u, at.loss + log_det, gap, newton, residual)


def advance(state: State, estimate: bool) -> State:
    """One step of every fit. A fit whose likelihood would fall stays where it is and halves its damping."""
    dim = state.white.shape[-1]
    length = state.damping * ((dim + 2) / (dim + 2 * state.log_shape.exp())).clamp(max=1)
    eye = torch.eye(dim, dtype=state.white.dtype, device=state.white.device)
    factor, _ = torch.linalg.cholesky_ex(eye + length[:, None, None] * state.gap)
    trial = evaluated(
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
    # The factor by which the gap shrinks along itself. Near -1 the steps oscillate, and 1 / (1 - factor) damps that.
    size = state.gap.square().sum((-2, -1))
    along = torch.where(size > 1e-20, (trial.gap * state.gap).sum((-2, -1)) / size, 0.0)  # below is rounding
    damped = torch.where(along < -0.5, 1 / (1 - along), 1.05)
    state = trial if bool(accepted.all()) else trial.where(accepted, state)
    state.damping = torch.where(accepted, state.damping * damped, state.damping / 2).clamp(max=1)
    return state
