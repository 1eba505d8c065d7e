"""First and second order side by side: the average of one map, joined to the vector of a pooling."""

from typing import Any

import torch
from torch import Tensor, nn

from .precision import at_least_float32
from .second_order_pool import SecondOrderPool2d, to_nchw


class WithAverage2d(nn.Module):
    """The average of the last map and the vector of another pooling, one after the other.

        result = (mean of `last` over positions, pool(x))

    `last` may be another map than `x`: a later stage has the better average, an earlier one more positions for a covariance.
    A root normalizes the covariance. Without one ('cov', 'bcnn' without its BatchNorm) the second part outweighs the first.

    Args:
        pool: a pooling of `create_global_pool`.
        average_features: channels of `last`.

    Attributes:
        out_features: average_features + pool.out_features.
        pool_type, options: those of `pool`.

    >>> from timm_3g import create_global_pool
    >>> pool = WithAverage2d(create_global_pool('isqrt', 16, reduce_dim=8), average_features=32)
    >>> pool(torch.rand(2, 16, 14, 14), torch.rand(2, 32, 7, 7)).shape
    torch.Size([2, 68])
    """

    def __init__(self, pool: Any, average_features: int) -> None:
        super().__init__()
        self.pool = pool
        self.pool_type: str = pool.pool_type
        self.options: dict[str, Any] = pool.options
        self.input_fmt: str = getattr(pool, 'input_fmt', 'NCHW')
        self.out_features: int = average_features + pool.out_features

    def forward(self, x: Tensor, last: Tensor | None = None) -> Tensor:
        """Maps (B, C, H, W) and (B, average_features, h, w) to (B, out_features), in the dtype of the pooling's vector.

        Both are in the pooling's `input_fmt`. Without `last`, x is the last map, too.
        """
        vector = self.pool(x)
        average = at_least_float32(to_nchw(x if last is None else last, self.input_fmt)).mean((2, 3))
        return torch.cat([average.to(vector.dtype), vector], 1)


def second_order_pool_of(model: nn.Module) -> tuple[str, SecondOrderPool2d | None]:
    """The second-order pooling of a network and its path in it: `global_pool`, or what is beside an average in it.

    Returns:
        ('', None) where the network has no second-order pooling.

    >>> import timm, timm_3g
    >>> path, pool = second_order_pool_of(timm.create_model('gcp', first_order=True, global_pool='isqrt', device='meta'))
    >>> path, pool.pool_type
    ('global_pool.pool', 'isqrt')
    """
    pool = getattr(model, 'global_pool', None)
    path = 'global_pool'
    if isinstance(pool, WithAverage2d):
        pool, path = pool.pool, f'{path}.pool'
    return (path, pool) if isinstance(pool, SecondOrderPool2d) else ('', None)
