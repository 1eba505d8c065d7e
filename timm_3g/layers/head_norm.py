"""The BatchNorm on the vector: what the option `head_norm` may be, and in which precision it computes."""

import math

import torch
from torch import Tensor, nn

from timm_3g.ops import autocast_dtype, without_autocast

from .precision import at_least_float32, call_in_float32, has_half_weights


def checked_head_norm(head_norm: bool | float) -> bool | float:
    """Return head_norm. Raises TypeError unless it is a bool or a float, and ValueError for a float that is not above 0."""
    if type(head_norm) not in (bool, float):
        raise TypeError(f'head_norm must be True, False or a float, where its weights start; got {head_norm!r:.80}.')
    if head_norm is not False and not 0 < head_norm < math.inf:
        raise ValueError(f'head_norm must be above 0 and finite, True or False; got {head_norm!r:.80}.')
    return head_norm


def normalize(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a BatchNorm2d to a pooled vector x (B, D). The result has the dtype of x. Under fp16 autocast it is float32.

    >>> normalize(torch.nn.BatchNorm2d(36), torch.rand(2, 36)).shape
    torch.Size([2, 36])
    """
    x = x[:, :, None, None]
    if autocast_dtype(x) != torch.float16:
        return norm(x).flatten(1)
    with without_autocast(x):
        x = at_least_float32(x)
        return (call_in_float32(norm, x) if has_half_weights(norm) else norm(x)).flatten(1)
