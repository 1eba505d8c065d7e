"""What every second-order pooling shares: checks, channel reduction, precision, and the contract of `create_global_pool`."""

from typing import Any

import torch
from torch import Tensor, nn

from .precision import (
    at_least_float32,
    autocast_dtype,
    call_in_float32,
    computes_in_half,
    narrowed,
    without_autocast,
)
from .reduce import Reduce2d

# torch.fx makes one node of a call of these: what they do depends on dtype, device or shape, which are known while it runs.
torch.fx.wrap('at_least_float32')
torch.fx.wrap('check_features')
torch.fx.wrap('narrowed')


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


def check_features(x: Tensor, channels: int, input_fmt: str, pooling: str) -> Tensor:
    """x, as it is. Raises ValueError unless it is (B, channels, H, W), or what input_fmt says."""
    if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
        return x
    refuse_other_features(x, channels, input_fmt, pooling)
    return x


def refuse_other_features(x: Tensor, channels: int, input_fmt: str, pooling: str) -> None:
    """Raise ValueError, beginning with `pooling`, unless x has the axes of input_fmt and this many channels."""
    axes = {'NCHW': 'B, {c}, H, W', 'NHWC': 'B, H, W, {c}', 'NCL': 'B, {c}, N', 'NLC': 'B, N, {c}'}
    shape = axes[input_fmt].format(c=channels)
    if x.ndim == shape.count(',') + 1 and x.shape[channel_axis(input_fmt)] == channels:
        return
    fits = [fmt for fmt in axes if x.ndim == len(fmt) and x.shape[channel_axis(fmt)] == channels]
    remedy = f'They look like {fits[0]}: build the pooling with input_fmt={fits[0]!r}.' if fits else ''
    remedy = remedy or 'Build the pooling with in_features equal to the channels of the backbone.'
    raise ValueError(f'{pooling} takes features ({shape}); got {tuple(x.shape)}. {remedy}')


def to_nchw(x: Tensor, input_fmt: str) -> Tensor:
    """Features in timm's format `input_fmt` as (B, C, H, W); sequences have a width of 1."""
    if input_fmt == 'NHWC':
        return x.permute(0, 3, 1, 2)
    if input_fmt == 'NLC':
        return x.transpose(1, 2).unsqueeze(3)
    return x.unsqueeze(3) if input_fmt == 'NCL' else x


def channel_axis(input_fmt: str) -> int:
    """Which dimension of a feature map in timm's format has the channels."""
    return input_fmt.index('C')


class SecondOrderPool2d(nn.Module):
    """(B, in_features, H, W) to (B, out_features): reduce channels, refine positions, then a statistic of second order.

    A subclass gives `statistic` (float32 or wider features in, vector out) and sets `out_features`; it may give `refine`
    (re-weighting, in the caller's precision). `layers/precision.py` says which precision each part runs in.

    Args:
        in_features: channels of the features, >= 1.
        reduce_dim: channels after the 1x1 reduction; 0 or None: no reduction.
    """

    pool_type: str = ''  # the name in the table; create_global_pool sets it, a layer built directly has none
    out_features: int
    options: dict[str, Any]
    onnx_obstacle: str = ''  # why there is no ONNX export, where there is none

    def __init__(self, in_features: int, reduce_dim: int | None = None, **dd: Any) -> None:
        super().__init__()
        self.input_fmt = 'NCHW'
        if in_features < 1:
            raise ValueError(f'in_features must be at least 1; got {in_features}.')
        reduce_dim = checked_reduce_dim(reduce_dim)
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
        """Features (B, in_features, H, W), any H and W, or as `input_fmt` says, to (B, out_features).

        Returns:
            In the dtype of x; float32 under fp16 autocast. Finite for finite features: those of float32 up to 1e10, all of
            float16, but for traced, scripted and fx graphs, which compute in it.

        Raises:
            ValueError: another shape, or another number of channels; export to ONNX of a pooling that has none.
        """
        if torch.jit.is_scripting():  # TorchScript knows neither autocast as a context nor the checks
            features = self.refine(self.reduce(to_nchw(x, self.input_fmt))).flatten(2)
            return narrowed(self.statistic(at_least_float32(features)), x.dtype)
        return self._forward(x)

    @torch.jit.unused
    def _forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_tracing():  # under jit.trace a comparison of shapes would be a warning, not a check
            x = check_features(x, self._channels(), self.input_fmt, self._name())
        if self.onnx_obstacle and _in_onnx_export():
            self._refuse_onnx()
        if computes_in_half(x, self):
            return narrowed(call_in_float32(self, x), x.dtype)
        x = to_nchw(x, self.input_fmt)
        if autocast_dtype(x) == torch.float16:
            x = at_least_float32(x)
            with without_autocast(x):
                return self.statistic(self.refine(self.reduce(x)).flatten(2)).to(x.dtype)
        features = self.refine(self.reduce(x)).flatten(2)
        with without_autocast(x):
            return narrowed(self.statistic(at_least_float32(features)), x.dtype)

    def _name(self) -> str:
        """What errors call this pooling: the option that chose it, or its class."""
        return f'global_pool={self.pool_type!r}' if self.pool_type else type(self).__name__

    def _channels(self) -> int:
        """Channels of the features: those of the reduction's convolution, which structured pruning may have changed."""
        return self.reduce.conv.in_channels if isinstance(self.reduce, Reduce2d) else self.in_features

    @torch.jit.unused
    def _refuse_onnx(self) -> None:
        raise ValueError(
            f'{self._name()} has no ONNX export: {self.onnx_obstacle}. Those with Newton-Schulz steps or no '
            f"root have one, and bcnn: 3g, isqrt, g2de with root='newton_schulz', cov, ..."
        )

    def extra_repr(self) -> str:
        """pool_type, in -> dim -> out."""
        name = f'{self.pool_type!r}, ' if self.pool_type else ''
        return f'{name}{self.in_features} -> {self.dim} -> {self.out_features}'
