"""Symmetric matrix to vector. The columns of a trained Linear depend on the order of the entries, so the order has a name."""

import torch
from torch import Tensor

TRIANGLES = ('lower', 'upper', 'full')


def triangle_index(dim: int, triangle: str, device: torch.device | str | None = None) -> Tensor:
    """Flat positions i * dim + j of the entries that `triangle_entries` reads, in order.

    For dim = 3, 'lower' gives (0,0) (1,0) (1,1) (2,0) (2,1) (2,2), the order of the authors' 3G checkpoints. 'upper' gives
    (0,0) (0,1) (0,2) (1,1) (1,2) (2,2), the order of fast-MPN-COV's present code. 'full' gives all nine, row by row. Both
    triangles have the same length: a wrong order raises no error and costs all accuracy.

    Args:
        dim: size of the matrix.
        triangle: 'lower', 'upper' or 'full', each row-major.
        device: device of the index.

    Returns:
        int64, shape (dim (dim + 1) / 2,), or (dim^2,) for 'full'.

    Raises:
        ValueError: unknown triangle.

    >>> triangle_index(3, 'lower'), triangle_index(3, 'upper')
    (tensor([0, 3, 4, 6, 7, 8]), tensor([0, 1, 2, 4, 5, 8]))
    """
    check_triangle(triangle)
    return triangle_entries(torch.arange(dim * dim, device=device).reshape(dim, dim), triangle)


def check_triangle(triangle: str) -> None:
    """Check the name of a triangle.

    Raises:
        ValueError: it is none of TRIANGLES.

    >>> check_triangle('left')
    Traceback (most recent call last):
    ValueError: triangle must be one of lower, upper, full; got 'left'.
    """
    if triangle not in TRIANGLES:
        raise ValueError(f'triangle must be one of {", ".join(TRIANGLES)}; got {triangle!r}.')


def triangle_entries(mat: Tensor, triangle: str) -> Tensor:
    """Entries of each matrix in the order of `triangle_index`. Off-diagonal entries are not scaled by sqrt(2).

    Args:
        mat: (..., d, d).
        triangle: 'lower', 'upper' or 'full'.

    Returns:
        (..., d (d + 1) / 2), in the dtype of mat. For 'full' (..., d^2), a view if mat is contiguous.

    >>> mat = torch.tensor([[1, 2], [3, 4]])
    >>> triangle_entries(mat, 'lower'), triangle_entries(mat, 'upper'), triangle_entries(mat, 'full')
    (tensor([1, 3, 4]), tensor([1, 2, 4]), tensor([1, 2, 3, 4]))
    """
    if triangle == 'full':
        return mat.flatten(-2)
    d = mat.shape[-1]
    # Built at every call, in 25 us at d = 256. An index stored in a module would stay behind on the meta device.
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

    >>> sym_to_vec(torch.tensor([[1, 2], [2, 3]]), triangle_index(2, 'lower'))
    tensor([1, 2, 3])
    """
    return mat.flatten(-2).index_select(-1, index)
