"""timm's register_model for the networks of this package: an entry point, and the options that settle its function."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from timm.models import register_model
from torch import nn

from timm_3g.checkpoints.function import DEFAULTS, defaults_of

Model = TypeVar('Model', bound=nn.Module)


def register_second_order(
    global_pool: str = '3g', reduce_dim: int | None = 256, bn_eps: float | None = 1e-5, **options: Any
) -> Callable[[Callable[..., Model]], Callable[..., Model]]:
    """A decorator for an entry point of timm: registers it, and passes it these options where the caller names no others.

    They are recorded, too: what weights say of themselves is compared with them, and `is_ours` knows the architecture by them.

    Args:
        global_pool: a name of `timm_3g.list_pools()`.
        reduce_dim: channels after the 1x1 reduction. None where the class settles it.
        bn_eps: of every BatchNorm. None where the class settles it.
        options: others of `recorded_options`, such as the backbone.

    >>> import timm, timm_3g
    >>> timm.create_model('resnet18_isqrt', device='meta').global_pool.pool_type
    'isqrt'
    """
    given = {'global_pool': global_pool, 'reduce_dim': reduce_dim, 'bn_eps': bn_eps, **options}

    def decorate(entry: Callable[..., Model]) -> Callable[..., Model]:
        DEFAULTS[entry.__name__] = {name: value for name, value in given.items() if value is not None}

        @wraps(entry)
        def create(pretrained: bool = False, **kwargs: Any) -> Model:
            return entry(pretrained, **{**defaults_of(entry.__name__, kwargs.get('global_pool')), **kwargs})

        return register_model(create)

    return decorate
