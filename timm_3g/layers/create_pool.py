"""One table of global poolings, one name each. Adding a pooling is a module beside this one and its line in POOLS."""

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from timm.layers import SelectAdaptivePool2d
from torch import nn

from .bilinear_pool import BilinearPool2d
from .compact_bilinear_pool import CompactBilinearPool2d
from .cov_pool import CovPool2d
from .dropcov_pool import DropCovPool2d
from .gaussian_pool import GaussianPool2d
from .mggd_pool import MGGDPool2d
from .second_order_pool import SecondOrderPool2d, checked_reduce_dim

PlainData = str | int | float | bool


@dataclass(frozen=True)
class PoolEntry:
    """A line of the table: the class, the options a user may give with their defaults, and what the name itself settles."""

    cls: type[SecondOrderPool2d]
    options: dict[str, PlainData]
    fixed: dict[str, PlainData] = field(default_factory=dict)


_STEPS: dict[str, PlainData] = {'num_iters': 5, 'centered': True}
_COV_3G: dict[str, PlainData] = {'eps': 1e-7, 'triangle': 'lower'}
_COV: dict[str, PlainData] = {'eps': 0.0, 'triangle': 'upper'}
_T3: dict[str, PlainData] = {'num_reweights': 3, 'reweight_beta': 0.0}

POOLS: dict[str, PoolEntry] = {
    '3g': PoolEntry(CovPool2d, {**_COV_3G, **_STEPS, **_T3}, {'reweight': '3g'}),
    '3g_nosqrt': PoolEntry(CovPool2d, {**_COV_3G, 'centered': True, **_T3}, {'reweight': '3g', 'root': 'none'}),
    'urm_v1': PoolEntry(CovPool2d, {**_COV_3G, **_STEPS}, {'reweight': 'urm_v1', 'num_reweights': 1}),
    'urm_v2': PoolEntry(CovPool2d, {**_COV_3G, **_STEPS}, {'reweight': 'urm_v2', 'num_reweights': 1}),
    'isqrt': PoolEntry(CovPool2d, {**_COV, **_STEPS}),
    'mpn': PoolEntry(CovPool2d, {**_COV, 'centered': True}, {'root': 'eigh'}),
    'g2de': PoolEntry(GaussianPool2d, {'root': 'newton_schulz', 'num_iters': 5, 'triangle': 'upper'}),
    'bcnn': PoolEntry(BilinearPool2d, {'eps': 1e-5, 'triangle': 'full'}),
    'cov': PoolEntry(CovPool2d, {**_COV, 'centered': True}, {'root': 'none'}),
    'cbp': PoolEntry(CompactBilinearPool2d, {'sketch_dim': 8192, 'eps': 1e-5, 'sketch_seed': 0}),
    'dropcov': PoolEntry(DropCovPool2d, {'triangle': 'upper'}),
    'mggd': PoolEntry(MGGDPool2d, {'beta': 0.5, 'lam': 1.1, 'weights': 'mm', 'centered': True, 'triangle': 'upper'}),
}

# timm's own, with timm's meaning: no reduction. '' is timm's "no pooling, 4-D features" and stays out of the list.
TIMM_POOLS = ('avg', 'max', 'avgmax', 'catavgmax', 'fast', 'fastavg', 'fastmax', 'fastavgmax', 'fastcatavgmax')

POOL_OPTIONS: frozenset[str] = frozenset(name for entry in POOLS.values() for name in entry.options)


FORMATS = ('NCHW', 'NHWC', 'NLC', 'NCL')


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean ...?' with the nearest of the known names, or '' where none is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f' Did you mean {close[0]}?' if close else ''


def list_pools() -> list[str]:
    """Names that `create_global_pool` and the models' `global_pool` take: second-order ones first, then timm's own."""
    return [*POOLS, *TIMM_POOLS]


def checked_option(name: str, value: PlainData, default: PlainData) -> PlainData:
    """An option as config.json shall record it: of the type of its default.

    Raises:
        TypeError: another type, or not finite.
    """
    if type(default) is float and type(value) is int:
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f'{name} must be a finite {type(default).__name__}, as its default {default!r}; got {value!r}.')
    return value


def create_global_pool(
    pool_type: str,
    in_features: int,
    reduce_dim: int | None = 256,
    *,
    input_fmt: str = 'NCHW',
    device: Any = None,
    dtype: Any = None,
    **options: PlainData,
) -> nn.Module:
    """Build the global pooling called `pool_type`: a module (B, in_features, H, W) -> (B, out_features).

    Args:
        pool_type: one of `list_pools()`, or '' for timm's pass-through (4-D in, 4-D out).
        in_features: channels of the features.
        reduce_dim: channels after the 1x1 reduction of the second-order poolings; 0 or None: no reduction. timm's own
            poolings never reduce and ignore it.
        input_fmt: timm's name for the layout of the features: 'NCHW', 'NHWC', or for sequences of tokens 'NLC', 'NCL' (without
            prefix tokens: leave those out before). timm's own poolings take the first two.
        device, dtype: of the parameters.
        options: of this pooling, e.g. num_iters, triangle, eps. An option left out has the default of the table.

    Returns:
        A module with `.pool_type`, `.out_features` and `.options`, the plain data that, with pool_type and reduce_dim, builds
        it again.

    Raises:
        ValueError: unknown name or input_fmt, or a value out of range.
        TypeError: an option that this pooling does not have, or of another type than its default.
    """
    if pool_type not in POOLS and pool_type not in ('', *TIMM_POOLS):
        raise ValueError(
            f'Unknown global pooling {pool_type!r}. Options are: {", ".join(list_pools())}.{nearest(pool_type, list_pools())}'
        )
    known = POOLS[pool_type].options if pool_type in POOLS else {}
    unknown = sorted(set(options) - set(known))
    if unknown:
        takes = f'{", ".join(known) or "none"}.{nearest(unknown[0], known)}'
        raise TypeError(f'global_pool={pool_type!r} has no option {", ".join(unknown)}. Its options are: {takes}')
    reduce_dim = checked_reduce_dim(reduce_dim)
    formats = FORMATS if pool_type in POOLS else FORMATS[:2]
    if input_fmt not in formats:
        raise ValueError(f'input_fmt of global_pool={pool_type!r} must be one of {", ".join(formats)}; got {input_fmt!r}.')
    if pool_type in POOLS:
        entry = POOLS[pool_type]
        options = {**entry.options, **{name: checked_option(name, value, known[name]) for name, value in options.items()}}
        pool: Any = entry.cls(in_features, reduce_dim, **entry.fixed, **options, device=device, dtype=dtype)
        pool.pool_type = pool_type
        pool.input_fmt = str(input_fmt)
    else:
        pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type), input_fmt=input_fmt)
        pool.out_features = in_features * pool.feat_mult()
    pool.options = options
    return pool
