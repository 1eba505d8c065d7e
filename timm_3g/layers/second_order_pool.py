"""What every second-order pooling shares: checks, channel reduction, precision, and the contract of `create_global_pool`."""

from typing import Any

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn

from .precision import at_least_float32, autocast_dtype, without_autocast
from .reduce import Reduce2d


def checked_reduce_dim(reduce_dim: int | None) -> int:
    """reduce_dim with None as 0. Raises TypeError unless it is an int, ValueError if it is negative."""
    if reduce_dim is None:
        return 0
    if type(reduce_dim) is not int:
        raise TypeError(f'reduce_dim must be an int, 0 for no reduction; got {reduce_dim!r}.')
    if reduce_dim < 0:
        raise ValueError(f'reduce_dim must be positive, or 0 for no reduction; got {reduce_dim}.')
    return reduce_dim


@torch.compiler.assume_constant_result  # dynamo takes is_in_onnx_export for False, also when the ONNX exporter runs dynamo
def _in_onnx_export() -> bool:
    return torch.onnx.is_in_onnx_export()


@register_notrace_module  # fx sees one node; what precision to use is decided while it runs
class SecondOrderPool2d(nn.Module):
    """(B, in_features, H, W) to (B, out_features): reduce channels, refine positions, then a statistic of second order.

    A subclass gives `statistic` (float32 or wider features in, vector out) and sets `out_features`; it may give `refine`
    (re-weighting, in the caller's precision). `layers/precision.py` says which precision each part runs in.

    Args:
        pool_type: the name in `create_global_pool`'s table.
        in_features: channels of the features, >= 1.
        reduce_dim: channels after the 1x1 reduction; 0 or None: no reduction.
    """

    out_features: int
    options: dict[str, Any]
    onnx_obstacle: str = ''  # why there is no ONNX export, where there is none

    def __init__(self, pool_type: str, in_features: int, reduce_dim: int | None, **dd: Any) -> None:
        super().__init__()
        if in_features < 1:
            raise ValueError(f'in_features must be at least 1; got {in_features}.')
        reduce_dim = checked_reduce_dim(reduce_dim)
        self.pool_type = pool_type
        self.in_features = int(in_features)
        self.dim = reduce_dim or self.in_features
        self.reduce = Reduce2d(in_features, reduce_dim, **dd) if reduce_dim else nn.Identity()

    def refine(self, x: Tensor) -> Tensor:
        """(B, d, H, W) to (B, d, H, W): nothing, unless a subclass re-weights."""
        return x

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N), float32 or wider, to (B, out_features)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features, H, W), any H and W, to (B, out_features) in the dtype of x (float32 under fp16 autocast).

        Raises:
            ValueError: not four dimensions, or another number of channels; export to ONNX of a pooling that has none.
        """
        if torch.jit.is_scripting():  # TorchScript knows neither autocast as a context nor the checks
            return self.statistic(at_least_float32(self.refine(self.reduce(x)).flatten(2))).to(x.dtype)
        if not torch.jit.is_tracing():  # under jit.trace a comparison of shapes would be a warning, not a check
            self._check(x)
        if self.onnx_obstacle and _in_onnx_export():
            self._refuse_onnx()
        if autocast_dtype(x) == torch.float16:
            x = at_least_float32(x)
            with without_autocast(x):
                return self.statistic(self.refine(self.reduce(x)).flatten(2)).to(x.dtype)
        features = self.refine(self.reduce(x)).flatten(2)
        with without_autocast(x):
            return self.statistic(at_least_float32(features)).to(x.dtype)

    @torch.jit.unused
    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.in_features:
            raise ValueError(
                f'global_pool={self.pool_type!r} takes features (B, {self.in_features}, H, W); got {tuple(x.shape)}. '
                f'Build it with in_features equal to the channels of the backbone.'
            )

    @torch.jit.unused
    def _refuse_onnx(self) -> None:
        raise ValueError(
            f'global_pool={self.pool_type!r} has no ONNX export: {self.onnx_obstacle}. Those with Newton-Schulz steps or no '
            f"root have one, and bcnn: 3g, isqrt, g2de with root='newton_schulz', cov, ..."
        )

    def extra_repr(self) -> str:
        """pool_type, in -> dim -> out."""
        return f'{self.pool_type!r}, {self.in_features} -> {self.dim} -> {self.out_features}'
