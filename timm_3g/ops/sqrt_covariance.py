"""From features to the root of their covariance in one operation, which takes most of the time and memory of the head.

The same function as `sqrtm_newton_schulz(covariance(x))`, at the cost of min(d, N)^3 + d N min(d, N) instead of d^3. With
X_hat the centred features divided by sqrt(N t), t = tr(Sigma) + d eps and e = eps / t:

    d <= N   sqrt(t) * A z(A),                               A = X_hat X_hat^T + e I        (d x d)
    d >  N   sqrt(t) * (X_hat z(G) X_hat^T + e f'(0) I),     G = X_hat^T X_hat + e I        (N x N)

where z and f(l) = l z(l) are what the steps make of an eigenvalue. The second line is exact for eps = 0. With eps its error is
below 8 f'(0) e, f'(0) = (3/2)^num_iters. For five steps 2 f'(0) e was measured, and up to 47 e without the last term. Where the
bound exceeds 1e-5, for features close to zero, the first line is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _root_eigh, _root_products
from ._dispatch import is_batched, is_ordinary, without_autocast
from ._gram import SMALLEST_SCALE, normalize
from .covariance import covariance
from .matrix_sqrt import slope_at_zero, sqrtm_newton_schulz

# With up to this many threads eigh is the faster form on a CPU where a gradient is needed: it takes one matrix after the other
# and gains little from threads, while products of a batch use all of them. docs/speed.md has the measurements.
_EIGH_MAX_THREADS = 2

# A CPU works on matrices with about this many entries at a time, 1.2 MB in float32. A step then finds the previous result in
# the cache. The whole batch at once takes up to twice as long.
_ENTRIES_AT_A_TIME = 300_000

# A step multiplies a rounding error in a small eigenvalue by up to 9/4. Ten steps are harmless in float32. With 15 steps
# products lose their gradient, with 30 they diverge. Above ten steps eigh is used on every device.
_MAX_PRODUCT_ITERS = 10

# With TF32's 10 bits the error of the gradient is 7e-4 after five steps and 1e-2 after ten, where d and N are nearly equal.
_MAX_TF32_ITERS = 7


def sqrt_covariance(x: Tensor, num_iters: int = 5, centered: bool = True, eps: float = 0.0) -> Tensor:
    """sqrtm_newton_schulz(covariance(x, centered, eps), num_iters), several times faster, with a tenth of the memory.

    The result differs by rounding: 1e-6 in float32 up to ten steps. Beyond, the rounding of a zero eigenvalue approaches its
    root, 1e-3 of the result. Float32 takes no more than 30 steps, float64 no more than 45: later ones change eigenvalues below
    1e-10 (1e-16) of the trace alone, and would lose the gradient. Where d > N, eps adds a relative error of at most 1e-5: see
    the top of this file. The backward keeps x and, where d > N, at most two matrices of the size of X_hat: 0.53 MiB per image
    at d = 256, N = 196, float32. Products run in the dtype of x, with or without autocast. More than 7 steps run without TF32.

    Source: Li, Xie, Wang, Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix Square Root
    Normalization" (iSQRT-COV), CVPR 2018, https://arxiv.org/abs/1712.01034, for the function. `_root_products.py` and
    `_root_eigh.py` explain how it is computed.

    Args:
        x: features (..., d, N), float32 or float64, N >= 1.
        num_iters: number of steps, >= 1.
        centered: subtract the mean over N first.
        eps: added to the diagonal of the covariance before the root, >= 0.

    Returns:
        (..., d, d), symmetric to rounding, in the dtype of x. Constant features give zeros, or f(eps I) with eps, with zero
        gradient. NaN or infinite features give NaN for their own image.

    Raises:
        TypeError: x is in half precision. Its covariance would have negative eigenvalues.
        ValueError: num_iters is below 1, or eps below 0, or x has less than two dimensions or no position.

    Second derivatives, scripting, tracing, export, `torch.func`, meta and other special tensors use the two plain functions, in
    float64 for more than ten steps. A second derivative under `torch.compile` raises a RuntimeError. Images are processed in
    groups. An image with features close to zero switches its whole group to the d x d form, up to 1e-5 away. On CUDA this
    choice waits for the GPU once. The d x d form is also used while a CUDA graph is recorded, and for float64 with eps.

    >>> x = torch.randn(2, 4, 9)
    >>> torch.allclose(sqrt_covariance(x), sqrtm_newton_schulz(covariance(x)), atol=1e-5)
    True
    """
    if torch.jit.is_scripting():
        return root_by_products(x, useful_steps(num_iters, x.dtype), centered, eps)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f'sqrt_covariance takes float32 or float64 features; got {x.dtype}. Call x.float() first.')
    if num_iters < 1 or not eps >= 0:
        raise ValueError(f'num_iters must be at least 1, and eps not negative; got {num_iters} and {eps}.')
    num_iters = useful_steps(num_iters, x.dtype)
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return root_by_products(x, num_iters, centered, eps)
    if x.ndim < 2 or x.shape[-1] == 0:
        raise ValueError(f'x must be features (..., d, N) at one position or more; got {tuple(x.shape)}.')
    if x.numel() == 0:
        return root_by_products(x, num_iters, centered, eps)
    flat = x.reshape(-1, *x.shape[-2:])
    if torch.compiler.is_compiling():
        root = _compiled(flat, num_iters, centered, eps)
    elif not is_ordinary(x):
        return root_by_products(x, num_iters, centered, eps)
    elif torch.is_grad_enabled() and x.requires_grad:
        root = _SqrtCovariance.apply(flat, num_iters, centered, eps)
    else:
        root = _forward(flat, num_iters, centered, eps, False)[0]
    return root.view(*x.shape[:-1], x.shape[-2])


# TorchScript compiles these two. It knows no constants of a module.


def useful_steps(num_iters: int, dtype: torch.dtype) -> int:
    """The steps beyond which an eigenvalue still changes if it is below (2/3)^(2 steps) of the trace alone: 3e-11, 1e-16."""
    return min(num_iters, 30 if dtype == torch.float32 else 45)


def root_by_products(x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    """The two plain functions in turn, in float64 for more than ten steps (see _MAX_PRODUCT_ITERS)."""
    if num_iters <= 10 or x.device.type == 'mps':  # Apple's mps devices have no float64
        return sqrtm_newton_schulz(covariance(x, centered, eps), num_iters)
    return sqrtm_newton_schulz(covariance(x.double(), centered, eps), num_iters).to(x.dtype)


class _Kept(NamedTuple):
    """What one chunk of the batch keeps for the backward, beside x."""

    images: slice
    form: ModuleType  # _root_products or _root_eigh
    thin: bool  # N x N, not d x d
    matrices: list[Tensor]  # the form's own


def _form(x: Tensor, num_iters: int, differentiable: bool) -> ModuleType:
    few_threads = x.device.type == 'cpu' and torch.get_num_threads() <= _EIGH_MAX_THREADS
    by_eigh = num_iters > _MAX_PRODUCT_ITERS or (differentiable and few_threads)
    return _root_eigh if by_eigh else _root_products


def _forward(x: Tensor, num_iters: int, centered: bool, eps: float, differentiable: bool) -> tuple[Tensor, list[_Kept]]:
    """The root (B, d, d), and what `_backward` needs, a tuple for each chunk (nothing unless differentiable)."""
    batch, d, n = x.shape
    form = _form(x, num_iters, differentiable)
    root = x.new_empty(batch, d, d)
    kept = []
    with _own_precision(x, num_iters):
        for start in range(0, batch, size := _chunk_size(x)):
            images = slice(start, start + size)
            x_hat, scale = normalize(x[images], centered, eps)
            shift = eps / scale.square()
            thin = n < d and (eps == 0.0 or _negligible(shift, num_iters))
            inner, matrices = form.forward(x_hat, shift, thin, num_iters)
            if thin and eps > 0.0:
                inner.diagonal(dim1=1, dim2=2).add_(slope_at_zero(num_iters) * shift.squeeze(2))
            torch.mul(inner, scale, out=root[images])
            if differentiable:
                kept.append(_Kept(images, form, thin, matrices))
    return root, kept


def _backward(grad: Tensor, x: Tensor, num_iters: int, centered: bool, eps: float, kept: list[_Kept]) -> Tensor:
    """The gradient with respect to x, (B, d, N), in the layout of x."""
    grad_x = torch.empty_like(x)
    with _own_precision(grad, num_iters):
        for images, form, thin, matrices in kept:
            x_hat, scale = normalize(x[images], centered, eps)
            g = torch.add(grad[images], grad[images].mT).mul_(0.5)
            shift = eps / scale.square()
            half, inner, shift_grad = form.backward(g, x_hat, shift, thin, num_iters, matrices)
            if thin and eps > 0.0:
                trace = g.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
                inner += slope_at_zero(num_iters) * shift * trace
                shift_grad += slope_at_zero(num_iters) * trace
            # The root is sqrt(t) f. t enters as sqrt(t), through X_hat ~ 1 / sqrt(t) and through shift = eps / t.
            scale_grad = inner - 2.0 * (half * x_hat).sum((1, 2), keepdim=True) - 2.0 * shift * shift_grad
            scale_grad.masked_fill_(scale <= SMALLEST_SCALE, 0.0)
            # If the features were centred, its rows have mean 0 by themselves, since those of X_hat have.
            torch.mul(half.mul_(2.0).addcmul_(x_hat, scale_grad), x_hat.shape[2] ** -0.5, out=grad_x[images])
    return grad_x


def _negligible(shift: Tensor, num_iters: int) -> bool:
    """Whether the N x N form has a relative error below 1e-5 from eps. Never in float64, which is for exactness."""
    if shift.dtype != torch.float32 or _recording_a_graph(shift):  # a CUDA graph cannot depend on data
        return False
    return bool(8.0 * slope_at_zero(num_iters) * shift.max() <= 1e-5)  # False for NaN


def _recording_a_graph(x: Tensor) -> bool:
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _chunk_size(x: Tensor) -> int:
    batch, d, n = x.shape
    if x.device.type != 'cpu':
        return max(batch, 1)
    return max(_ENTRIES_AT_A_TIME // min(d, n) ** 2, torch.get_num_threads())


@contextmanager
def _own_precision(x: Tensor, num_iters: int) -> Iterator[None]:
    """Run products in the dtype of x: no autocast, and no TF32 for many steps."""
    matmul = torch.backends.cuda.matmul
    with without_autocast(x):
        if x.device.type != 'cuda' or num_iters <= _MAX_TF32_ITERS:
            yield
            return
        before = matmul.fp32_precision
        matmul.fp32_precision = 'ieee'
        try:
            yield
        finally:
            matmul.fp32_precision = before


class _SqrtCovariance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
        root, kept = _forward(x, num_iters, centered, eps, True)
        ctx.args = (num_iters, centered, eps)
        ctx.plans = [(k.images, k.form, k.thin, len(k.matrices)) for k in kept]
        ctx.save_for_backward(x, *(matrix for k in kept for matrix in k.matrices))
        return root

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        x, *tensors = ctx.saved_tensors
        num_iters, centered, eps = ctx.args
        again = torch.is_grad_enabled()  # create_graph=True: the gradient will be differentiated too
        if again or is_batched(grad):
            with torch.enable_grad():
                root = root_by_products(x, num_iters, centered, eps)
            return torch.autograd.grad(root, x, grad, create_graph=again)[0], None, None, None
        rest = iter(tensors)
        kept = [_Kept(images, form, thin, [next(rest) for _ in range(count)]) for images, form, thin, count in ctx.plans]
        return _backward(grad, x, num_iters, centered, eps, kept), None, None, None


# For torch.compile the same code is one opaque operator: it depends on the data, the threads and the batch, and a traced graph
# cannot. It keeps x alone and runs the forward again in its backward.


@torch.library.custom_op('timm_3g::sqrt_covariance', mutates_args=())
def _compiled(x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    return _forward(x, num_iters, centered, eps, False)[0]


@torch.library.custom_op('timm_3g::sqrt_covariance_backward', mutates_args=())
def _compiled_backward(grad: Tensor, x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    return _backward(grad, x, num_iters, centered, eps, _forward(x, num_iters, centered, eps, True)[1])


@_compiled.register_fake
def _(x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], x.shape[1])


@_compiled_backward.register_fake
def _(grad: Tensor, x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    return torch.empty_like(x)


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, *ctx.args = inputs
    ctx.save_for_backward(x)


def _compiled_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    (x,) = ctx.saved_tensors
    return _compiled_backward(grad, x, *ctx.args), None, None, None


_compiled.register_autograd(_compiled_gradient, setup_context=_keep_input)
