"""The robust covariance as a differentiable operation on a batch: opaque operators, and their rules for torch.func.

The operators depend on the data, which a traced graph cannot. They are opaque to torch.compile and torch.export."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._implicit import adjoint, tangent
from ._robust import MAX_STEPS, TOL, solve, unrolled_covariance, weighted_covariance
from ._samples import full_rank, refuse_singular


def robust_covariance(
    samples: Tensor, beta: float, lam: float, pascal: bool, max_steps: int = MAX_STEPS, tol: float = TOL
) -> Tensor:
    """The fixed point of `robust_step` for samples minus their location.

    `regularized_covariance` checks its input and subtracts the location first, and has the formulas and their source.

    Args:
        samples: (..., N, d), float64 for full precision.
        beta, lam: see `regularized_covariance`.
        pascal: weights of maximum likelihood, 'pascal' in `regularized_covariance`, instead of 'mm'.
        max_steps: largest number of steps.
        tol: relative change that counts as converged.

    Returns:
        (..., d, d), in the dtype of the samples. NaN or infinite samples give NaN for their own set. First derivatives exist in
        reverse and in forward mode, also under vmap.

    Raises:
        ValueError: lam <= 1 and samples in a subspace.
        RuntimeError: a second derivative is requested.

    >>> samples = torch.randn(100, 2, dtype=torch.float64)
    >>> scatter = robust_covariance(samples, beta=0.5, lam=1.1, pascal=False)
    >>> step = robust_step(samples[None], scatter[None], 0.5, 1.1, pascal=False)[0]
    >>> torch.allclose(step, scatter)
    True
    """
    if torch.jit.is_scripting():  # a graph of torch.fx, scripted
        return unrolled_covariance(samples, beta, lam, pascal)
    if torch.compiler.is_compiling():  # dynamo traces no forward mode
        return _solve(samples, beta, lam, pascal, max_steps, tol)
    return _RobustCovariance.apply(samples, beta, lam, pascal, max_steps, tol)


@torch.library.custom_op('timm_3g::robust_covariance', mutates_args=())
def _solve(samples: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float) -> Tensor:
    out = samples.new_full((*samples.shape[:-2], samples.shape[-1], samples.shape[-1]), math.nan)
    finite = torch.isfinite(samples).flatten(-2).all(-1)
    if bool(finite.any()):
        cov = weighted_covariance(samples[finite], torch.ones_like(samples[finite][..., 0]))
        if lam <= 1:
            singular = torch.zeros_like(finite)
            singular[finite] = ~full_rank(cov)
            refuse_singular(singular)
        out[finite] = solve(samples[finite], cov, beta, lam, pascal, max_steps, _reachable(tol, samples.dtype))
    return out


@torch.library.custom_op('timm_3g::robust_covariance_backward', mutates_args=())
def _adjoint(
    grad: Tensor, samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float
) -> Tensor:
    return _of_finite_sets(adjoint, torch.empty_like(samples), grad, samples, scatter, beta, lam, pascal, max_steps, tol)


@torch.library.custom_op('timm_3g::robust_covariance_tangent', mutates_args=())
def _tangent(
    direction: Tensor, samples: Tensor, scatter: Tensor, beta: float, lam: float, pascal: bool, max_steps: int, tol: float
) -> Tensor:
    return _of_finite_sets(tangent, torch.empty_like(scatter), direction, samples, scatter, beta, lam, pascal, max_steps, tol)


def _of_finite_sets(
    derivative: Callable[..., Tensor], out: Tensor, direction: Tensor, samples: Tensor, scatter: Tensor, *options: Any
) -> Tensor:
    """`adjoint` or `tangent` of the sets without NaN or infinity, written into out; NaN for the others."""
    *rest, tol = options
    finite = torch.isfinite(scatter).flatten(-2).all(-1) & torch.isfinite(direction).flatten(-2).all(-1)
    out.fill_(math.nan)
    if bool(finite.any()):
        tol = _reachable(tol, samples.dtype)
        out[finite] = derivative(direction[finite], samples[finite], scatter[finite], *rest, tol)
    return out


def _reachable(tol: float, dtype: torch.dtype) -> float:
    return max(tol, 100 * torch.finfo(dtype).eps)  # float32 on mps cannot do better


@_solve.register_fake
def _(samples: Tensor, *options: Any) -> Tensor:
    return samples.new_empty(*samples.shape[:-2], samples.shape[-1], samples.shape[-1])


@_adjoint.register_fake
def _(grad: Tensor, samples: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(samples)


@_tangent.register_fake
def _(direction: Tensor, samples: Tensor, scatter: Tensor, *options: Any) -> Tensor:
    return torch.empty_like(scatter)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    samples, *ctx.options = inputs
    ctx.save_for_backward(samples, output)


def _compiled_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
    return _adjoint(grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None


_solve.register_autograd(_compiled_gradient, setup_context=_keep)


class _RobustCovariance(torch.autograd.Function):
    @staticmethod
    def forward(samples: Tensor, *options: Any) -> Tensor:
        return _solve(samples, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _keep(ctx, inputs, output)
        ctx.save_for_forward(inputs[0], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        return _Derivative.apply(_adjoint, grad, *ctx.saved_tensors, *ctx.options), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, direction: Tensor, *unused: None) -> Tensor:
        return _Derivative.apply(_tangent, direction, *ctx.saved_tensors, *ctx.options)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], samples: Tensor, *options: Any) -> tuple[Tensor, int]:
        assert in_dims[0] is not None  # the only tensor
        return _RobustCovariance.apply(samples.movedim(in_dims[0], 0), *options), 0


class _Derivative(torch.autograd.Function):
    """`_adjoint` or `_tangent`, with a clear error for a second derivative."""

    @staticmethod
    def forward(operator: Any, *inputs: Any) -> Tensor:
        return operator(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise RuntimeError(_NO_SECOND)

    @staticmethod
    def jvp(ctx: Any, *directions: Any) -> Any:
        raise RuntimeError(_NO_SECOND)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], operator: Any, *inputs: Any) -> tuple[Tensor, int]:
        tensors = [
            t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs[:3], in_dims[1:4], strict=True)
        ]
        return _Derivative.apply(operator, *tensors, *inputs[3:]), 0


_NO_SECOND = "regularized_covariance (global_pool='mggd') has no second derivative."
