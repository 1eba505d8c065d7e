"""`ops.sym_to_vec` as a module that holds its index."""

from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.ops import sym_to_vec, triangle_index


class SymToVec(nn.Module):
    """(B, d, d) to (B, out_features), entries in the order named by `triangle` (see `ops.triangle_index`)."""

    def __init__(self, dim: int, triangle: str, device: Any = None) -> None:
        super().__init__()
        self.dim = dim
        self.triangle = triangle
        index = triangle_index(dim, triangle, device)
        self.out_features = index.numel()
        # Not in the state dict: it follows from dim and triangle. timm recomputes it after to_empty() by the method below.
        self.register_buffer('index', index, persistent=False)
        self.index: Tensor

    @torch.jit.ignore
    def init_non_persistent_buffers(self) -> None:
        """Fill the index again, on its own device (timm's convention for models that were built on the meta device)."""
        self.index = triangle_index(self.dim, self.triangle, self.index.device)

    def forward(self, mat: Tensor) -> Tensor:
        """(B, d, d) to (B, out_features), same dtype."""
        return sym_to_vec(mat, self.index)

    def extra_repr(self) -> str:
        """dim -> out_features, triangle=..."""
        return f'{self.dim}x{self.dim} -> {self.out_features}, triangle={self.triangle!r}'
