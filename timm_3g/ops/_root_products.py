"""Newton-Schulz steps as matrix products: ten for five steps, and sixteen for their derivative.

In exact arithmetic every iterate is a polynomial in the first M = Z Y, so all are symmetric and commute. Two steps at a time,
with T = (3 I - M) / 2 and T' the next one's, do

    W = T T' = 9/4 I - 39/16 M + 27/16 M^2 - 9/16 M^3 + 1/16 M^4        two products
    Z <- Z W,   M <- M W^2                                              three products, instead of the usual three per step

and Y is not formed. The derivative of a polynomial in a symmetric direction m is its own adjoint, so the backward runs forward
through the steps. With sums of a product and its transpose it takes few products:

    d(M^2) = P + P^T, P = M m;      d(M^3) = Q + Q^T, Q = M (P + P^T / 2);      d(M^4) = J + J^T, J = M M (P + P^T)
    d(M W^2) = (L + L^T) / 2, L = W (W m + U + U^T), U = M w

M is kept, not I - M or T: their unit diagonal would cost two digits of the small eigenvalues.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._gram import gram


def forward(x_hat: Tensor, shift: Tensor, thin: bool, num_iters: int) -> tuple[Tensor, list[Tensor]]:
    """f(X_hat X_hat^T + shift I), (B, d, d), and what `backward` needs. If thin, by N x N, without shift f'(0) I."""
    first = gram(x_hat, shift, thin)
    z, kept = inverse_root(first, num_iters)
    return torch.bmm(torch.bmm(x_hat, z), x_hat.mT) if thin else torch.bmm(first, z), kept


def backward(
    grad: Tensor, x_hat: Tensor, shift: Tensor, thin: bool, num_iters: int, kept: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """For a symmetric grad (B, d, d): half the gradient with respect to x_hat (B, d, N), and two numbers per image (B, 1, 1):
    the inner product of grad with the result of `forward`, and the derivative with respect to shift."""
    first = gram(x_hat, shift, thin)
    if thin:
        grad_x = torch.bmm(grad, x_hat)
        direction = torch.bmm(x_hat.mT, grad_x)
        z, dz = derivative(first, kept, direction, num_iters)
        inner = (direction * z).sum((1, 2), keepdim=True)
        return torch.bmm(grad_x, z).baddbmm_(x_hat, dz), inner, _trace(dz)
    z, dz = derivative(first, kept, grad, num_iters)
    grad_z = torch.bmm(grad, z)
    inner = (grad_z * first).sum((1, 2), keepdim=True)
    grad_first = grad_z.baddbmm_(first, dz)
    return torch.bmm(grad_first, x_hat), inner, _trace(grad_first)


def _trace(mat: Tensor) -> Tensor:
    return mat.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)


def inverse_root(m: Tensor, num_iters: int) -> tuple[Tensor, list[Tensor]]:
    """Z after num_iters steps from M = m, and the later M of every second step, which `derivative` needs.

    Args:
        m: (B, n, n), symmetric, eigenvalues in [0, 1].
        num_iters: number of steps, >= 1.
    """
    kept = []
    z = None
    for remaining in range(num_iters, 0, -2):
        w = _factor(m, remaining)
        z = w if z is None else torch.bmm(z, w)
        if remaining > 2:
            m = torch.bmm(torch.bmm(m, w), w)
            kept.append(m)
    assert z is not None
    return z, kept


def derivative(m: Tensor, kept: Sequence[Tensor], direction: Tensor, num_iters: int) -> tuple[Tensor, Tensor]:
    """Z, computed again, and its derivative with respect to m in a symmetric direction (B, n, n), both (B, n, n)."""
    z, dz, dm = None, None, direction
    following = iter(kept)
    for remaining in range(num_iters, 0, -2):
        w, dw = _factor(m, remaining), _factor_derivative(m, dm, remaining)
        if z is None or dz is None:
            z, dz = w, dw
        else:
            z, dz = torch.bmm(z, w), torch.bmm(dz, w).baddbmm_(z, dw)
        if remaining > 2:
            u = torch.bmm(m, dw)
            inner = torch.baddbmm(u.mT, w, dm).add_(u)
            half = torch.bmm(w, inner)
            m, dm = next(following), torch.add(half, half.mT).mul_(0.5)
    assert z is not None and dz is not None
    return z, dz


def _factor(m: Tensor, steps: int) -> Tensor:
    """W of two steps, or T of one that is left over."""
    if steps == 1:
        w = m * -0.5
        w.diagonal(dim1=1, dim2=2).add_(1.5)
        return w
    square = torch.bmm(m, m)
    inner = torch.sub(square, m, alpha=3.0)
    # (M^2 - 3 M)(M^2 - 6 M) / 16 has the two highest powers, and 9/8 M^2
    w = (m * -0.75).add_(inner, alpha=0.5625).baddbmm_(inner, square.sub_(m, alpha=6.0), alpha=0.0625)
    w.diagonal(dim1=1, dim2=2).add_(2.25)
    return w


def _factor_derivative(m: Tensor, dm: Tensor, steps: int) -> Tensor:
    if steps == 1:
        return -0.5 * dm
    p = torch.bmm(m, dm)
    inner = torch.add(p, p.mT, alpha=0.5).mul_(-0.5625)  # of the third power
    inner.baddbmm_(m, p + p.mT, alpha=0.0625)  # of the fourth
    half = torch.add(dm * -1.21875, p, alpha=1.6875).baddbmm_(m, inner)
    return half + half.mT
