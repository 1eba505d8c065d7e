"""Questions that an operation asks about its input before it chooses how to compute."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from timm_3g.compat import is_legacy_batched, transforms_active


def is_symbolic(x: Tensor) -> bool:
    """Whether torch.fx is tracing: x has no value, dtype or device yet.

    >>> is_symbolic(torch.ones(2))
    False
    """
    return isinstance(x, torch.fx.Proxy)


def in_transform() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp and others) is active.

    >>> in_transform()
    False
    >>> torch.func.vmap(lambda row: row * in_transform())(torch.ones(2, 1)).tolist()
    [[1.0], [1.0]]
    """
    return transforms_active()


def is_ordinary(x: Tensor) -> bool:
    """Whether x has values to read and supports a custom backward: no meta or fake tensor, no transform of torch.func.

    >>> is_ordinary(torch.ones(2)), is_ordinary(torch.ones(2, device='meta'))
    (True, False)
    """
    return type(x) in (Tensor, torch.nn.Parameter) and not (x.is_meta or in_transform() or has_tangent(x))


def has_tangent(x: Tensor) -> bool:
    """Whether x carries a derivative in forward mode. False while torch.compile traces, which does not trace this question.

    >>> with torch.autograd.forward_ad.dual_level():
    ...     has_tangent(torch.autograd.forward_ad.make_dual(torch.ones(2), torch.ones(2)))
    True
    """
    return not torch.compiler.is_compiling() and torch.autograd.forward_ad.unpack_dual(x).tangent is not None


def is_batched(x: Tensor) -> bool:
    """Whether x stands for a batch of tensors, in vmap or in the vectorized forms of torch.autograd.

    >>> x = torch.ones(2, requires_grad=True)
    >>> is_batched(x)
    False
    """
    return in_transform() or is_legacy_batched(x)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast uses on the device of x, or None without autocast. None on the meta device and under torch.fx.

    >>> with torch.autocast('cpu', torch.bfloat16):
    ...     autocast_dtype(torch.ones(2))
    torch.bfloat16
    """
    if is_symbolic(x) or x.device.type == 'meta' or not torch.is_autocast_enabled(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of x run without autocast.

    >>> x = torch.ones(2, 2)
    >>> with torch.autocast('cpu', torch.bfloat16), without_autocast(x):
    ...     (x @ x).dtype
    torch.float32
    """
    # Without autocast there is nothing to enter: meta, fx and export graphs stay free of autocast nodes.
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)
