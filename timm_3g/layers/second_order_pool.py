"""What every second-order pooling shares: checks, channel reduction, precision, and the contract of `create_global_pool`."""

from typing import Any

import torch
from torch import Tensor, nn

from .precision import (
    at_least_float32,
    autocast_dtype,
    call_in_float32,
    computes_in_half,
    has_half_weights,
    narrowed,
    without_autocast,
)
from .reduce import Reduce2d

# torch.fx turns a call of these into one node: they depend on dtype, device or shape, which are known at run time.
torch.fx.wrap('at_least_float32')
torch.fx.wrap('check_features')
torch.fx.wrap('narrowed')


def checked_reduce_dim(reduce_dim: int | None) -> int:
    """reduce_dim, with 0 for None.

    Raises:
        TypeError: it is not an int.
        ValueError: it is negative.
    """
    if reduce_dim is None:
        return 0
    if type(reduce_dim) is not int:
        raise TypeError(f'reduce_dim must be an int, 0 for no reduction; got {reduce_dim!r}.')
    if reduce_dim < 0:
        raise ValueError(f'reduce_dim must be positive, or 0 for no reduction; got {reduce_dim}.')
    return reduce_dim


@torch.compiler.assume_constant_result  # dynamo takes is_in_onnx_export for False, even when the ONNX exporter runs dynamo
def _in_onnx_export() -> bool:
    return torch.onnx.is_in_onnx_export()


def check_features(x: Tensor, channels: int, input_fmt: str, pooling: str) -> Tensor:
    """Return x unchanged. Raises ValueError unless it has the axes of input_fmt, this many channels, and a position."""
    if torch.jit.is_scripting():  # on its own, so that TorchScript does not compile the rest
        return x
    refuse_other_features(x, channels, input_fmt, pooling)
    return x


def refuse_other_features(x: Tensor, channels: int, input_fmt: str, pooling: str) -> None:
    """Raise ValueError, beginning with `pooling`, unless x has the axes of input_fmt, this many channels, and a position.

    Raises:
        TypeError: numbers that are not of floating point.
    """
    if not x.is_floating_point():
        raise TypeError(f'{pooling} takes features of floating point; got {x.dtype}. Call x.float() first.')
    axes = {'NCHW': 'B, {c}, H, W', 'NHWC': 'B, H, W, {c}', 'NCL': 'B, {c}, N', 'NLC': 'B, N, {c}'}
    shape = axes[input_fmt].format(c=channels)
    if x.ndim == shape.count(',') + 1 and x.shape[channel_axis(input_fmt)] == channels:
        if 0 in x.shape[1:]:
            raise ValueError(f'{pooling} takes features with at least one position; got {tuple(x.shape)}. Give larger images.')
        return
    fits = [fmt for fmt in axes if x.ndim == len(fmt) and x.shape[channel_axis(fmt)] == channels]
    remedy = f'They look like {fits[0]}: build the pooling with input_fmt={fits[0]!r}.' if fits else ''
    remedy = remedy or 'Build the pooling with in_features equal to the channels of the backbone.'
    raise ValueError(f'{pooling} takes features ({shape}); got {tuple(x.shape)}. {remedy}')


def to_nchw(x: Tensor, input_fmt: str) -> Tensor:
    """Features in timm's format `input_fmt` as (B, C, H, W). Sequences get a width of 1."""
    if input_fmt == 'NHWC':
        return x.permute(0, 3, 1, 2)
    if input_fmt == 'NLC':
        return x.transpose(1, 2).unsqueeze(3)
    return x.unsqueeze(3) if input_fmt == 'NCL' else x


def channel_axis(input_fmt: str) -> int:
    """The dimension that holds the channels of a feature map in timm's format."""
    return input_fmt.index('C')


class SecondOrderPool2d(nn.Module):
    """Base class: reduce channels, refine positions, then take a statistic of second order.

    It maps features (B, in_features, H, W) to vectors (B, out_features). A subclass sets `out_features` and defines
    `statistic`, from features in float32 or wider to a vector. It may define `refine`, a re-weighting in the caller's
    precision, and `create_classifier`, if its classifier is no Linear. The table in `layers/precision.py` gives the precision
    of each part.

    Args:
        in_features: channels of the features, >= 1.
        reduce_dim: channels after the 1x1 reduction. None or 0 for no reduction.

    Attributes:
        out_features: length of the vector.
        pool_type: the name in the table of `create_global_pool`, which sets it. '' for a layer that is built directly.
        options: set by `create_global_pool`: plain data that, with pool_type and reduce_dim, builds the layer again.
        input_fmt: layout of the features, 'NCHW' by default.
        onnx_obstacle: why the layer has no ONNX export, '' if it has one.
        keeps_positions: whether it gives positions (B, d, N) to a classifier that takes them. A vector otherwise.

    Raises:
        TypeError: reduce_dim is not an int.
        ValueError: in_features or reduce_dim is out of range.

    >>> class MeanOfSquares(SecondOrderPool2d):
    ...     def __init__(self, in_features, reduce_dim=None, **dd):
    ...         super().__init__(in_features, reduce_dim, **dd)
    ...         self.out_features = self.dim
    ...     def statistic(self, x):
    ...         return x.square().mean(-1)
    >>> MeanOfSquares(512, reduce_dim=64)(torch.rand(2, 512, 7, 7)).shape
    torch.Size([2, 64])
    """

    pool_type: str = ''  # the name in the table, set by create_global_pool
    out_features: int
    options: dict[str, Any]
    onnx_obstacle: str = ''  # the reason, if there is no ONNX export

    def __init__(self, in_features: int, reduce_dim: int | None = None, **dd: Any) -> None:
        super().__init__()
        self.input_fmt = 'NCHW'
        self.keeps_positions = False
        if in_features < 1:
            raise ValueError(f'in_features must be at least 1; got {in_features}.')
        reduce_dim = checked_reduce_dim(reduce_dim)
        self.in_features = int(in_features)
        self.dim = reduce_dim or self.in_features
        self.reduce = Reduce2d(in_features, reduce_dim, **dd) if reduce_dim else nn.Identity()

    def refine(self, x: Tensor) -> Tensor:
        """(B, d, H, W) to (B, d, H, W). It returns x unless a subclass re-weights."""
        return x

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N), float32 or wider, to (B, out_features)."""
        raise NotImplementedError

    def create_classifier(self, num_classes: int, drop_rate: float = 0.0, **dd: Any) -> nn.Module:
        """The classifier behind this pooling: a Linear, or an Identity for num_classes=0. The model drops from the vector."""
        return nn.Linear(self.out_features, num_classes, **dd) if num_classes > 0 else nn.Identity()

    def vector(self, x: Tensor) -> Tensor:
        """What the layer returned, as a vector (B, out_features) in the dtype of x."""
        return x

    def forward(self, x: Tensor) -> Tensor:
        """Pool features (B, in_features, H, W) of any H and W, or in the layout of `input_fmt`, to (B, out_features).

        Returns:
            A vector, or positions where `keeps_positions`, in the dtype of x, or in float32 under fp16 autocast. It is finite
            for features in float32 up to 1e10 and for all finite features in float16.
            Traced, scripted and fx graphs compute in float16 and may overflow.

        Raises:
            TypeError: x is not of floating point.
            ValueError: x has another shape or another number of channels, or the layer is exported to ONNX and cannot be.
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
        if autocast_dtype(x) == torch.float16:
            x = at_least_float32(x)
            with without_autocast(x):
                return call_in_float32(self, x) if has_half_weights(self) else self._forward(x)
        x = to_nchw(x, self.input_fmt)
        features = self.refine(self.reduce(x)).flatten(2)
        with without_autocast(x):
            return narrowed(self.statistic(at_least_float32(features)), x.dtype)

    def _name(self) -> str:
        """What errors call this pooling: the option that chose it, or its class."""
        return f'global_pool={self.pool_type!r}' if self.pool_type else type(self).__name__

    def _channels(self) -> int:
        """Channels of the features. The reduction's convolution counts, because structured pruning may have changed it."""
        return self.reduce.conv.in_channels if isinstance(self.reduce, Reduce2d) else self.in_features

    @torch.jit.unused
    def _refuse_onnx(self) -> None:
        raise ValueError(
            f'{self._name()} has no ONNX export: {self.onnx_obstacle}. Poolings with Newton-Schulz steps or without a root '
            f"export: 3g, isqrt, g2de with root='newton_schulz', cov, bcnn and others."
        )

    def extra_repr(self) -> str:
        """pool_type, in -> dim -> out."""
        name = f'{self.pool_type!r}, ' if self.pool_type else ''
        return f'{name}{self.in_features} -> {self.dim} -> {self.out_features}'
