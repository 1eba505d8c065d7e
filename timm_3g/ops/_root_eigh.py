"""Newton-Schulz steps as a function of eigenvalues: the same function of the same matrix, by one eigendecomposition.

The derivative of U h(l) U^T in direction E is U (D * U^T E U) U^T with the divided differences D_ij = (h(l_i) - h(l_j)) /
(l_i - l_j) (Daleckii, Krein). They are carried through the steps by the product rule, (u v)[i, j] = u_i v[i, j] + u[i, j] v_j,
so that no difference of close eigenvalues is ever divided by.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ._gram import gram


def forward(x_hat: Tensor, shift: Tensor, thin: bool, num_iters: int) -> tuple[Tensor, list[Tensor]]:
    """As `_root_products.forward`: the same result, and the same contract with `backward`."""
    eigenvalues, vectors = decompose(gram(x_hat, shift, thin))
    z = inverse_root(eigenvalues, num_iters)
    left = torch.bmm(x_hat, vectors) if thin else vectors
    h = z if thin else z * eigenvalues
    root = torch.bmm(left * h.unsqueeze(1), left.mT)
    return root, [eigenvalues, vectors, left] if thin else [eigenvalues, vectors]


def backward(
    grad: Tensor, x_hat: Tensor, shift: Tensor, thin: bool, num_iters: int, kept: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_root_products.backward`."""
    eigenvalues, vectors, left = kept if thin else (*kept, kept[1])
    z = inverse_root(eigenvalues, num_iters)
    differences = divided_differences(eigenvalues, num_iters)
    grad_left = torch.bmm(grad, left)
    direction = torch.bmm(left.mT, grad_left)
    diagonal = direction.diagonal(dim1=1, dim2=2)
    if not thin:  # f = l z: l_i z[i, j] + z_j
        differences = differences.mul_(eigenvalues.unsqueeze(2)).add_(z.unsqueeze(1))
    inner = (diagonal * (z if thin else z * eigenvalues)).sum(1).view(-1, 1, 1)
    shift_grad = (diagonal * differences.diagonal(dim1=1, dim2=2)).sum(1).view(-1, 1, 1)
    direction = differences.mul_(direction)
    if thin:
        half = torch.baddbmm(grad_left * z.unsqueeze(1), left, direction)
        return torch.bmm(half, vectors.mT), inner, shift_grad
    return torch.bmm(torch.bmm(torch.bmm(left, direction), vectors.mT), x_hat), inner, shift_grad


def decompose(first: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (B, n), not below 0, and eigenvectors (B, n, n) of symmetric matrices (B, n, n) without negative eigenvalues.

    A matrix with a NaN or infinite entry gets NaN eigenvalues and leaves the others alone (`eigh` by itself would raise).
    """
    finite = torch.isfinite(first).flatten(1).all(1)
    eye = torch.eye(first.shape[-1], device=first.device, dtype=first.dtype)
    with _one_thread(first):
        eigenvalues, vectors = torch.linalg.eigh(torch.where(finite.view(-1, 1, 1), first, eye))
    return torch.where(finite.unsqueeze(1), eigenvalues.clamp(min=0.0), float('nan')), vectors


# Matrices up to this size gain little from threads inside eigh. Where another process uses a core they lose much: the threads
# wait for each other at every step of every matrix.
_ONE_THREAD_SIZE = 512


@contextmanager
def _one_thread(mat: Tensor) -> Iterator[None]:
    """Run eigh with one thread if the matrices are small and on a CPU.

    The setting belongs in part to the process: another Python thread that first uses torch meanwhile would keep it. So only the
    main thread changes it, as in a training script. The workers of a server leave it alone.
    """
    threads = torch.get_num_threads()
    main = threading.current_thread() is threading.main_thread()
    if mat.device.type != 'cpu' or mat.shape[-1] > _ONE_THREAD_SIZE or threads == 1 or not main:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def inverse_root(eigenvalues: Tensor, num_iters: int) -> Tensor:
    """z (B, n): what num_iters steps make of each eigenvalue, M <- M T^2, z <- z T, T = (3 - M) / 2."""
    m, z = eigenvalues, torch.ones_like(eigenvalues)
    for _ in range(num_iters):
        t = 1.5 - 0.5 * m
        m, z = m * t * t, z * t
    return z


def divided_differences(eigenvalues: Tensor, num_iters: int) -> Tensor:
    """(z(l_i) - z(l_j)) / (l_i - l_j), (B, n, n), and the derivative of z on the diagonal."""
    m, z = eigenvalues, torch.ones_like(eigenvalues)
    dm, dz = torch.ones_like(m.unsqueeze(2) * m.unsqueeze(1)), torch.zeros_like(m).unsqueeze(2)
    for step in range(num_iters):
        t = 1.5 - 0.5 * m
        dz = torch.addcmul(dm * (-0.5 * z).unsqueeze(2), dz, t.unsqueeze(1))  # z_i t[i, j] + z[i, j] t_j
        if step < num_iters - 1:
            # m t^2 is a cubic: its differences are 9/4 - 3/2 (m_i + m_j) + 1/4 (m_i^2 + m_i m_j + m_j^2), times m[i, j]
            part = 1.125 - 1.5 * m + 0.25 * m * m
            dm.mul_(torch.addcmul(part.unsqueeze(2) + part.unsqueeze(1), m.unsqueeze(2), m.unsqueeze(1), value=0.25))
        z, m = z * t, m * t * t
    return dz
