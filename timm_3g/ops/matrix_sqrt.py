"""Square roots of covariance matrices: the truncated iteration that networks are trained with, and the exact root."""

from typing import Any

import torch
from torch import Tensor

from ._dispatch import without_autocast


def sqrtm_newton_schulz(cov: Tensor, num_iters: int = 5) -> Tensor:
    """The result of exactly num_iters coupled Newton-Schulz steps on a covariance. It is not the matrix square root.

        A = cov / tr(cov),  Y_0 = A,  Z_0 = I
        T = (3 I - Z Y) / 2,  Y <- Y T,  Z <- T Z        (num_iters times)
        returns sqrt(tr(cov)) * Y

    An eigenvalue l of A becomes f(l), by the same recursion on numbers. After five steps f(l) / sqrt(l) is 0.997 at l = 0.1,
    0.66 at 0.01 and 0.24 at 0.001. For small l, f(l) / l tends to f'(0) = (3/2)^5 = 7.59. The distance to the exact root,
    measured in the Frobenius norm, is 42 % on 196 white features of 256 channels, and 14 % on features of a freshly initialized
    resnet18_3g. Weights trained with five steps therefore need five steps: a more exact root breaks them.

    Source: Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
    Normalization" (iSQRT-COV), CVPR 2018, https://arxiv.org/abs/1712.01034: normalization by the trace, coupled iteration,
    compensation by the trace.

    Args:
        cov: symmetric positive semi-definite (..., d, d), float32 or float64.
        num_iters: number of steps, >= 1.

    Returns:
        (..., d, d), in the dtype of cov, with or without autocast. A zero matrix gives zeros, and its features get a zero
        gradient. NaN gives NaN.

    Raises:
        TypeError: cov is in half precision, or no floating point.
        ValueError: num_iters is below 1.

    In float32 rounding grows with the steps: on 256 channels and 49 positions 4e-5 of the result after 15, 1e-2 to 1e-1 after
    25, and NaN after 30.

    >>> cov = torch.diag(torch.tensor([0.9, 0.1]))
    >>> sqrtm_newton_schulz(cov).diagonal()
    tensor([0.9487, 0.3154])
    >>> cov.diagonal().sqrt()
    tensor([0.9487, 0.3162])
    """
    if num_iters < 1:
        raise ValueError(f'num_iters must be at least 1; got {num_iters}.')
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return _steps(cov, num_iters)
    _require_wide(cov, 'sqrtm_newton_schulz')
    with without_autocast(cov):
        return _steps(cov, num_iters)


def _steps(cov: Tensor, num_iters: int) -> Tensor:
    # A trace below 1e-30 belongs to a constant map (activations under 1e-15) and is not divided by. The derivative of a
    # division squares the divisor: the square of 1e-30 is 0 in float32, and that of 1e20 infinite. So the root divides, twice.
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1).unsqueeze(-1).unsqueeze(-1).clamp(min=1e-30)
    scale = trace.sqrt()
    a = cov / scale / scale
    eye15 = 1.5 * torch.eye(cov.shape[-1], device=cov.device, dtype=cov.dtype)
    # The first step with Z_0 = I costs one product, and the last step needs no Z: 12 products for five steps, not 15.
    z = eye15 - 0.5 * a
    y = torch.matmul(a, z)
    for step in range(1, num_iters):
        t = eye15 - 0.5 * torch.matmul(z, y)
        y = torch.matmul(y, t)
        if step < num_iters - 1:
            z = torch.matmul(t, z)
    return y * scale


def _require_wide(cov: Tensor, name: str) -> None:
    if cov.dtype not in (torch.float32, torch.float64):
        raise TypeError(f'{name} takes float32 or float64 matrices; got {cov.dtype}. Call cov.float() first.')


def slope_at_zero(num_iters: int) -> float:
    """f'(0) = (3/2)^num_iters, where f maps an eigenvalue of A to the result of num_iters Newton-Schulz steps.

    Each step multiplies the value by T = (3 - z y) / 2, which is 3/2 for an eigenvalue close to 0. No eigenvalue grows more.
    """
    return 1.5**num_iters


def sqrtm_eigh(cov: Tensor) -> Tensor:
    """Matrix square root by eigendecomposition, with a floor under small eigenvalues.

        cov = U diag(l) U^T;   returns U diag(sqrt(max(l, f))) U^T,   f = max(eps * max(l), tiny)

    eps is that of the dtype, tiny 1e-30, or 1e-290 in float64. Below the floor eigenvalues are rounding noise of the
    decomposition. The backward uses the Loewner matrix, U (G o U^T sym(grad) U) U^T with G_ij = 1 / (sqrt(l_i) + sqrt(l_j)),
    and 0 where both eigenvalues are floored. The autograd of `torch.linalg.eigh` gives NaN where eigenvalues coincide, this
    gradient does not. The result differs from that of five Newton-Schulz steps (`sqrtm_newton_schulz`) and has no ONNX export.

    Source: Li, Xie, Wang, Zuo, "Is Second-order Information Helpful for Large-scale Visual Recognition?" (MPN-COV), ICCV 2017,
    https://arxiv.org/abs/1703.08050: matrix power alpha = 1/2.

    Args:
        cov: (..., d, d), float32 or float64. Only the symmetric part (cov + cov^T) / 2 counts.

    Returns:
        (..., d, d), in the dtype of cov, with or without autocast. A matrix with a NaN or infinite entry gives all NaN,
        the others of its batch do not.
        First derivatives exist in reverse and in forward mode, also under vmap. TorchScript uses the autograd of eigh.

    Raises:
        TypeError: cov is in half precision, or no floating point.
        RuntimeError: a second derivative is requested.

    >>> root = sqrtm_eigh(torch.tensor([[5.0, 4.0], [4.0, 5.0]]))
    >>> root.mul(1000).round() / 1000
    tensor([[2., 1.], [1., 2.]])
    """
    if torch.jit.is_scripting():
        return _floored_root(cov)[0]
    _require_wide(cov, 'sqrtm_eigh')
    with without_autocast(cov):
        return (_SqrtmEigh if torch.compiler.is_compiling() else _SqrtmEighWithJvp).apply(cov)[0]


def _floored_root(cov: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Root (..., d, d), eigenvectors, square roots of the floored eigenvalues (..., d), and which were floored."""
    rel, tiny = (2.2e-16, 1e-290) if cov.dtype == torch.float64 else (1.2e-7, 1e-30)  # finfo is unknown to TorchScript
    finite = torch.isfinite(cov).flatten(-2).all(-1).unsqueeze(-1)
    eye = torch.eye(cov.shape[-1], device=cov.device, dtype=cov.dtype)
    # eigh raises on NaN: decompose the identity instead and put the NaN back.
    sym = torch.where(finite.unsqueeze(-1), 0.5 * (cov + cov.transpose(-2, -1)), eye)
    eigenvalues, vectors = torch.linalg.eigh(sym)
    floor = (rel * eigenvalues[..., -1:]).clamp(min=tiny)
    floored = eigenvalues <= floor
    roots = torch.where(finite, torch.maximum(eigenvalues, floor).sqrt(), float('nan'))
    root = torch.matmul(vectors * roots.unsqueeze(-2), vectors.transpose(-2, -1))
    return root, vectors, roots, floored


class _SqrtmEigh(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(cov: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return _floored_root(cov)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *unused: Tensor) -> Tensor:
        return _derivative(grad, *ctx.saved_tensors)


class _SqrtmEighWithJvp(_SqrtmEigh):
    """With forward mode, which dynamo does not trace. The derivative is self-adjoint, so the gradient's formula serves both."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
        _SqrtmEigh.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs, *output[1:])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, None, None, None]:
        return _derivative(tangent, *ctx.saved_tensors), None, None, None


def _derivative(direction: Tensor, cov: Tensor, vectors: Tensor, roots: Tensor, floored: Tensor) -> Tensor:
    """Of the root in a direction (..., d, d). It takes cov so that a second derivative arrives at what refuses it."""
    function = _Derivative if torch.compiler.is_compiling() else _DerivativeWithJvp
    return function.apply(direction, cov, vectors, roots, floored)


class _Derivative(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(direction: Tensor, cov: Tensor, vectors: Tensor, roots: Tensor, floored: Tensor) -> Tensor:
        inner = torch.matmul(vectors.mT, torch.matmul(0.5 * (direction + direction.mT), vectors))
        inner = inner / (roots.unsqueeze(-1) + roots.unsqueeze(-2))
        inner = inner.masked_fill(floored.unsqueeze(-1) & floored.unsqueeze(-2), 0.0)
        return torch.matmul(vectors, torch.matmul(inner, vectors.mT))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        if ctx.needs_input_grad[1]:
            raise RuntimeError(_NO_SECOND)
        return _derivative(grad, *ctx.saved_tensors), None, None, None, None


class _DerivativeWithJvp(_Derivative):
    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _Derivative.setup_context(ctx, inputs, output)
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, of_cov: Tensor | None, *unused: None) -> Tensor:
        if of_cov is not None:
            raise RuntimeError(_NO_SECOND)
        return _derivative(tangent, *ctx.saved_tensors)


_NO_SECOND = 'sqrtm_eigh (the exact root) has no second derivative. sqrtm_newton_schulz (the root of isqrt and 3g) has one.'
