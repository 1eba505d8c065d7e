"""Square roots of covariance matrices: the truncated iteration that weights are trained with, and the exact one."""

from typing import Any

import torch
from torch import Tensor


def sqrtm_newton_schulz(cov: Tensor, num_iters: int = 5) -> Tensor:
    """What exactly num_iters coupled Newton-Schulz steps make of a covariance. It is not the matrix square root.

        A = cov / tr(cov),  Y_0 = A,  Z_0 = I
        T = (3 I - Z Y) / 2,  Y <- Y T,  Z <- T Z        (num_iters times)
        returns sqrt(tr(cov)) * Y

    Source: Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square
    Root Normalization" (iSQRT-COV), CVPR 2018: trace pre-normalisation, coupled iteration, post-compensation by the trace.

    On an eigenvalue l of A the result is the scalar recursion f(l), in exact arithmetic. After five steps f(l) / sqrt(l) is
    0.997 at l = 0.1, 0.66 at 0.01, 0.24 at 0.001, and f(l) / l tends to (3/2)^5 = 7.59 for small l. On 196 white
    features of 256 channels the distance to the exact root is 42 %, on those of a freshly initialised resnet18_3g 14 %
    (Frobenius norm, measured). So weights trained with five steps need five steps: a more exact root breaks them.

    Args:
        cov: symmetric positive semi-definite (..., d, d), float32 or float64.
        num_iters: number of steps, >= 1.

    Returns:
        (..., d, d), in the dtype of cov. An all-zero matrix gives zeros with zero gradient to its features; NaN gives NaN.
    """
    # A trace below 1e-30 is a constant map (activations under 1e-15) and is not divided by. The bound is far above float32's
    # smallest normal number, so that the backward of the division stays finite too.
    trace = cov.diagonal(dim1=-2, dim2=-1).sum(-1).unsqueeze(-1).unsqueeze(-1).clamp(min=1e-30)
    a = cov / trace
    eye15 = 1.5 * torch.eye(cov.shape[-1], device=cov.device, dtype=cov.dtype)
    # Step 1 with Z_0 = I costs one product; the last step's Z is never used: 12 products for five steps, not 15.
    z = eye15 - 0.5 * a
    y = torch.matmul(a, z)
    for step in range(1, num_iters):
        t = eye15 - 0.5 * torch.matmul(z, y)
        y = torch.matmul(y, t)
        if step < num_iters - 1:
            z = torch.matmul(t, z)
    return y * trace.sqrt()


def slope_at_zero(num_iters: int) -> float:
    """f'(0) = (3/2)^num_iters, f(l) being what the steps make of an eigenvalue l.

    Every step multiplies f by (3 - l_k) / 2, where l_k is the product z y of the step. For an eigenvalue near 0 that factor is
    3/2. It is the largest growth of an eigenvalue, and so that of an error in it.
    """
    return 1.5**num_iters


def sqrtm_eigh(cov: Tensor) -> Tensor:
    """Matrix square root by eigendecomposition, with small eigenvalues floored.

        cov = U diag(l) U^T;   returns U diag(sqrt(max(l, f))) U^T,   f = eps * max(l), eps of the dtype

    The floor is of the order of the decomposition's own rounding, where eigenvalues are noise. Source: Li, Xie, Wang, Zuo,
    "Is Second-order Information Helpful for Large-scale Visual Recognition?" (MPN-COV), ICCV 2017, matrix power alpha = 1/2.
    The backward is written with the Loewner matrix, U (G o U^T sym(grad) U) U^T with G_ij = 1 / (sqrt(l_i) + sqrt(l_j)), and 0
    where both eigenvalues are floored. The autograd of `torch.linalg.eigh` gives NaN where eigenvalues coincide; this does not.

    Args:
        cov: (..., d, d), float32 or float64; only the symmetric part (cov + cov^T) / 2 is used.

    Returns:
        (..., d, d), in the dtype of cov. A matrix with a NaN or infinite entry gives all NaN and leaves the others of its
        batch alone. First derivatives only, in reverse and in forward mode, also under vmap: a second one raises a
        RuntimeError. Under TorchScript the autograd of eigh is used.

    What it is not: the function of five Newton-Schulz steps (see `sqrtm_newton_schulz`), nor exportable to ONNX.
    """
    if torch.jit.is_scripting():
        return _floored_root(cov)[0]
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
    """With forward mode, which dynamo does not trace. The derivative is self-adjoint: the gradient's formula serves it, too."""

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
