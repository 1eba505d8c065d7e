"""Symmetric matrix to vector. The order of the entries is what the columns of a trained Linear mean: it is named and pinned."""

import torch
from torch import Tensor

TRIANGLES = ('lower', 'upper', 'full')


def triangle_index(dim: int, triangle: str, device: torch.device | str | None = None) -> Tensor:
    """Flat positions i * dim + j of the entries that `sym_to_vec` reads, in order.

    For dim = 3: 'lower' gives (0,0) (1,0) (1,1) (2,0) (2,1) (2,2), the order of the authors' 3G checkpoints; 'upper' gives
    (0,0) (0,1) (0,2) (1,1) (1,2) (2,2), that of fast-MPN-COV's; 'full' all nine, row by row. The two triangles have equal
    length and different order: swapping them costs all accuracy and no error.

    Args:
        dim: size of the matrix.
        triangle: 'lower', 'upper' or 'full', each row-major.
        device: where the index lives.

    Returns:
        int64, shape (dim (dim + 1) / 2,), or (dim^2,) for 'full'.

    Raises:
        ValueError: unknown triangle.
    """
    if triangle not in TRIANGLES:
        raise ValueError(f'triangle must be one of {", ".join(TRIANGLES)}; got {triangle!r}.')
    index = torch.arange(dim * dim, device=device).reshape(dim, dim)
    if triangle == 'full':
        return index.flatten()
    keep = torch.ones(dim, dim, dtype=torch.bool, device='cpu')
    rows, cols = (keep.tril() if triangle == 'lower' else keep.triu()).nonzero(as_tuple=True)
    return (rows * dim + cols).to(index.device)


def sym_to_vec(mat: Tensor, index: Tensor) -> Tensor:
    """Entries of each matrix in the order of `triangle_index`. Off-diagonal entries are not scaled by sqrt(2).

    Args:
        mat: (..., d, d).
        index: from `triangle_index(d, ...)`, on the device of mat.

    Returns:
        (..., len(index)), in the dtype of mat.
    """
    return mat.flatten(-2).index_select(-1, index)
