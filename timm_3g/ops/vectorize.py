"""Symmetric matrix to vector. The order of the entries is what the columns of a trained Linear mean: it is named and pinned."""

import torch
from torch import Tensor

TRIANGLES = ('lower', 'upper', 'full')


def triangle_index(dim: int, triangle: str, device: torch.device | str | None = None) -> Tensor:
    """Flat positions i * dim + j of the entries that `triangle_entries` reads, in order.

    For dim = 3: 'lower' gives (0,0) (1,0) (1,1) (2,0) (2,1) (2,2), the order of the authors' 3G checkpoints; 'upper' gives
    (0,0) (0,1) (0,2) (1,1) (1,2) (2,2), that of fast-MPN-COV's present code; 'full' all nine, row by row. The two triangles
    have equal length and different order: swapping them costs all accuracy and no error.

    Args:
        dim: size of the matrix.
        triangle: 'lower', 'upper' or 'full', each row-major.
        device: where the index lives.

    Returns:
        int64, shape (dim (dim + 1) / 2,), or (dim^2,) for 'full'.

    Raises:
        ValueError: unknown triangle.
    """
    check_triangle(triangle)
    return triangle_entries(torch.arange(dim * dim, device=device).reshape(dim, dim), triangle)


def check_triangle(triangle: str) -> None:
    """Raise ValueError unless triangle is one of TRIANGLES."""
    if triangle not in TRIANGLES:
        raise ValueError(f'triangle must be one of {", ".join(TRIANGLES)}; got {triangle!r}.')


def triangle_entries(mat: Tensor, triangle: str) -> Tensor:
    """Entries of each matrix in the order of `triangle_index`. Off-diagonal entries are not scaled by sqrt(2).

    Args:
        mat: (..., d, d).
        triangle: 'lower', 'upper' or 'full'.

    Returns:
        (..., d (d + 1) / 2) in the dtype of mat; (..., d^2) for 'full', a view where mat is contiguous.
    """
    if triangle == 'full':
        return mat.flatten(-2)
    d = mat.shape[-1]
    # Made where it is used, in 25 us at d = 256. An index that a module kept would stay behind on the meta device.
    if triangle == 'lower':
        rows, cols = torch.tril_indices(d, d, device=mat.device).unbind(0)
    else:
        rows, cols = torch.triu_indices(d, d, device=mat.device).unbind(0)
    return sym_to_vec(mat, rows * d + cols)


def sym_to_vec(mat: Tensor, index: Tensor) -> Tensor:
    """Entries of each matrix at the flat positions of an index.

    Args:
        mat: (..., d, d).
        index: from `triangle_index(d, ...)`, on the device of mat.

    Returns:
        (..., len(index)), in the dtype of mat.
    """
    return mat.flatten(-2).index_select(-1, index)
