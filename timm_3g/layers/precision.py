"""What precision the head computes in.

no autocast, or bf16 autocast   reduction and re-weighting as the caller computes; covariance, root and vector in float32
                                (float64 for float64 input, and wherever the root is exact: see `layers/matrix_root.py`);
                                result in the dtype of the caller's features
fp16 autocast                   the whole head, classifier included, computes and returns float32: the re-weighting is of
                                fourth degree in the activations and a covariance of second, and float16 ends at 65504
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from timm.layers import register_notrace_module
from torch import Tensor, nn
from torch.nn import functional as F


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast uses on the device of x, or None where it is off (always on the meta device)."""
    if x.device.type == 'meta' or not torch.is_autocast_enabled(x.device.type):
        return None
    return torch.get_autocast_dtype(x.device.type)


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of x run without autocast."""
    # Nothing is entered where nothing is to be switched off: meta, fx and export graphs stay free of autocast nodes.
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in its own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_float64(x: Tensor) -> Tensor:
    """x in float64, or as it is on Apple's mps devices, which have none."""
    return x if x.device.type == 'mps' else x.to(torch.float64)


@register_notrace_module
class HeadLinear(nn.Linear):
    """`nn.Linear` that computes and returns float32 under fp16 autocast; everywhere else exactly `nn.Linear`.

    A covariance vector from finite features can exceed float16; cast to it, an infinity and a NaN logit follow.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features) to (B, out_features)."""
        if torch.jit.is_scripting():  # alone in its `if`, so that TorchScript does not compile the rest
            return F.linear(x, self.weight, self.bias)
        if autocast_dtype(x) == torch.float16:
            with without_autocast(x):
                return F.linear(x.to(self.weight.dtype), self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)
