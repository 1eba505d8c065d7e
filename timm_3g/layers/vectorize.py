"""`ops.triangle_entries` as a module without tensors."""

import warnings

import torch
from torch import Tensor, nn

from timm_3g.ops import check_triangle, sym_to_vec, triangle_entries, triangle_index

torch.fx.wrap('triangle_entries')


class SymToVec(nn.Module):
    """(B, d, d) to (B, out_features): the entries in the order that `triangle` names. See `ops.triangle_index`.

    Args:
        dim: d. It determines out_features alone: the forward pass takes matrices of any size, because pruning may shrink them.
        triangle: 'lower', 'upper' or 'full'.

    Raises:
        ValueError: unknown triangle.

    >>> SymToVec(3, 'lower')(torch.arange(9).reshape(1, 3, 3))
    tensor([[0, 3, 4, 6, 7, 8]])
    """

    def __init__(self, dim: int, triangle: str) -> None:
        super().__init__()
        check_triangle(triangle)
        self.dim = dim
        self.triangle = triangle
        self.out_features = dim * dim if triangle == 'full' else dim * (dim + 1) // 2

    def forward(self, mat: Tensor) -> Tensor:
        """(B, d, d) to (B, out_features), same dtype."""
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return triangle_entries(mat, self.triangle)
        return self._traced(mat) if torch.jit.is_tracing() else triangle_entries(mat, self.triangle)

    @torch.jit.unused
    def _traced(self, mat: Tensor) -> Tensor:
        """The index becomes a constant of the trace: torch's first ONNX exporter does not know tril_indices."""
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', torch.jit.TracerWarning)  # the size is meant to be fixed
            index = torch.from_numpy(triangle_index(int(mat.shape[-1]), self.triangle, 'cpu').numpy())
        return sym_to_vec(mat, index.to(mat.device))

    def extra_repr(self) -> str:
        """dim -> out_features, triangle=..."""
        return f'{self.dim}x{self.dim} -> {self.out_features}, triangle={self.triangle!r}'
