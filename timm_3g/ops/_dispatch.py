"""What an operation asks about its input before it chooses how to compute."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from timm_3g.compat import transforms_active


def is_symbolic(x: Tensor) -> bool:
    """Whether torch.fx is tracing: x has no value, dtype or device yet."""
    return isinstance(x, torch.fx.Proxy)


def in_transform() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp, ...) is at work. torch has no public name for this question."""
    return transforms_active()


def is_ordinary(x: Tensor) -> bool:
    """Whether x has values to look at and a backward to give it to: no meta or fake tensor, no transform of torch.func."""
    if type(x) not in (Tensor, torch.nn.Parameter) or x.is_meta or in_transform():
        return False
    return torch.autograd.forward_ad.unpack_dual(x).tangent is None


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast uses on the device of x. None where it is off: always on the meta device and under torch.fx."""
    if is_symbolic(x) or x.device.type == 'meta' or not torch.is_autocast_enabled(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of x run without autocast."""
    # Nothing is entered where nothing is to be switched off: meta, fx and export graphs stay free of autocast nodes.
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)
