"""The table of global poolings by name. A new pooling is a module beside this one, and a line in POOLS."""

import difflib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from timm.layers import SelectAdaptivePool2d
from torch import nn

from .bilinear_pool import B_CNN, BilinearPool2d
from .compact_bilinear_pool import CBP, CompactBilinearPool2d
from .cov_pool import ISQRT_COV, MPN_COV, PLAIN_COV, THREE_G_WITHOUT_ROOT, URM_V1, URM_V2, CovPool2d
from .dropcov_pool import DROPCOV, DropCovPool2d
from .factorized_bilinear import FBN, FactorizedBilinearPool2d
from .gaussian_pool import G2DENET, GaussianPool2d
from .mggd_pool import THREE_G_ESTIMATOR, MGGDPool2d
from .paper import Paper
from .reweight import THREE_G, checked_head_init, open_gates
from .second_order_pool import SecondOrderPool2d, checked_reduce_dim

PlainData = str | int | float | bool


@dataclass(frozen=True)
class PoolEntry:
    """A line of the table.

    Attributes:
        cls: the class of the layer.
        paper: where the pooling comes from. The model cards cite it.
        options: what a user may set, each with its default. Plain data: all of it goes into config.json.
        fixed: arguments of the class that the name settles.
    """

    cls: type[SecondOrderPool2d]
    paper: Paper
    options: dict[str, PlainData]
    fixed: dict[str, PlainData] = field(default_factory=dict)


_STEPS: dict[str, PlainData] = {'num_iters': 5, 'centered': True}
_COV_3G: dict[str, PlainData] = {'eps': 1e-7, 'triangle': 'lower'}
_COV: dict[str, PlainData] = {'eps': 0.0, 'triangle': 'upper'}
_T3: dict[str, PlainData] = {'num_reweights': 3, 'reweight_beta': 0.0}

POOLS: dict[str, PoolEntry] = {
    '3g': PoolEntry(CovPool2d, THREE_G, {**_COV_3G, **_STEPS, **_T3}, {'reweight': '3g'}),
    '3g_nosqrt': PoolEntry(
        CovPool2d, THREE_G_WITHOUT_ROOT, {**_COV_3G, 'centered': True, **_T3}, {'reweight': '3g', 'root': 'none'}
    ),
    'urm_v1': PoolEntry(CovPool2d, URM_V1, {**_COV_3G, **_STEPS}, {'reweight': 'urm_v1', 'num_reweights': 1}),
    'urm_v2': PoolEntry(CovPool2d, URM_V2, {**_COV_3G, **_STEPS}, {'reweight': 'urm_v2', 'num_reweights': 1}),
    'isqrt': PoolEntry(CovPool2d, ISQRT_COV, {**_COV, **_STEPS}),
    'mpn': PoolEntry(CovPool2d, MPN_COV, {**_COV, 'centered': True}, {'root': 'eigh'}),
    'g2de': PoolEntry(GaussianPool2d, G2DENET, {'root': 'newton_schulz', 'num_iters': 5, 'triangle': 'upper'}),
    'bcnn': PoolEntry(BilinearPool2d, B_CNN, {'eps': 1e-5, 'triangle': 'full'}),
    'cov': PoolEntry(CovPool2d, PLAIN_COV, {**_COV, 'centered': True}, {'root': 'none'}),
    'cbp': PoolEntry(CompactBilinearPool2d, CBP, {'sketch_dim': 8192, 'eps': 1e-5, 'sketch_seed': 0}),
    'dropcov': PoolEntry(DropCovPool2d, DROPCOV, {'triangle': 'upper'}),
    'fbn': PoolEntry(FactorizedBilinearPool2d, FBN, {'num_factors': 20}),
    'mggd': PoolEntry(
        MGGDPool2d, THREE_G_ESTIMATOR, {'beta': 0.5, 'lam': 1.1, 'weights': 'mm', 'centered': True, 'triangle': 'upper'}
    ),
}

# timm's own, with timm's meaning: no reduction. '' is timm's "no pooling, 4-D features" and stays out of the list.
TIMM_POOLS = ('avg', 'max', 'avgmax', 'catavgmax', 'fast', 'fastavg', 'fastmax', 'fastavgmax', 'fastcatavgmax')

FORMATS = ('NCHW', 'NHWC', 'NLC', 'NCL')


def nearest(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' with the known name that is closest, or '' if none is close."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f' Did you mean {close[0]}?' if close else ''


def list_pools() -> list[str]:
    """The names that `create_global_pool` and the models' `global_pool` take: second-order poolings first, then timm's own.

    >>> list_pools()[:3]
    ['3g', '3g_nosqrt', 'urm_v1']
    """
    return [*POOLS, *TIMM_POOLS]


def pool_options() -> set[str]:
    """The names of the options of all second-order poolings together.

    >>> 'num_iters' in pool_options(), 'in_features' in pool_options()
    (True, False)
    """
    return {name for entry in POOLS.values() for name in entry.options}


def pool_paper(name: str) -> Paper:
    """The paper of a second-order pooling, and where in the paper it is defined.

    Raises:
        ValueError: the name is not that of a second-order pooling. timm's own have no paper here.

    >>> paper = pool_paper('isqrt')
    >>> print(paper.year, paper.url)
    2018 https://arxiv.org/abs/1712.01034
    """
    if name not in POOLS:
        raise ValueError(f'{name!r} is not a second-order pooling with a paper. Those are: {", ".join(POOLS)}.')
    return POOLS[name].paper


def checked_option(name: str, value: PlainData, default: PlainData) -> PlainData:
    """An option in the type of its default, as config.json records it. An int becomes a float where the default is one.

    Raises:
        TypeError: the option has another type or is not finite.
    """
    if type(default) is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    if type(value) is not type(default) or (isinstance(value, float) and not math.isfinite(value)):
        raise TypeError(f'{name} must be a finite {type(default).__name__}, as its default {default!r}; got {value!r:.80}.')
    return value


def create_global_pool(
    pool_type: str,
    in_features: int,
    reduce_dim: int | None = 256,
    *,
    head_init: str = 'open',
    input_fmt: str = 'NCHW',
    device: Any = None,
    dtype: Any = None,
    **options: PlainData,
) -> nn.Module:
    """Build the global pooling called `pool_type`, a module that maps (B, in_features, H, W) to (B, out_features).

    Args:
        pool_type: one of `list_pools()`, or '' for timm's pass-through, which returns 4-D features as they are.
        in_features: channels of the features.
        reduce_dim: channels after the 1x1 reduction of second-order poolings. 0 or None for no reduction. timm's own poolings
            never reduce and ignore it.
        head_init: where re-weightings start. 'open': every map is constant, as `open_gates` says. 'orig': the authors' start,
            which saturates most maps at random. The function is the same. Other poolings have one start.
        input_fmt: layout of the features in timm's terms: 'NCHW', 'NHWC', or 'NLC' and 'NCL' for sequences of tokens. Remove
            prefix tokens first. timm's own poolings take the first two.
        device, dtype: of the parameters.
        options: options of this pooling, such as num_iters, triangle or eps. Those left out have the defaults of the table.

    Returns:
        A module with `.pool_type`, `.out_features` and `.options`. The latter is plain data that, with pool_type and
        reduce_dim, builds the module again.

    Raises:
        ValueError: an unknown name, head_init or input_fmt, or a value out of range.
        TypeError: an option that this pooling does not have, or that differs in type from its default.

    >>> pool = create_global_pool('3g', in_features=512, reduce_dim=16, num_reweights=1)
    >>> pool(torch.rand(2, 512, 7, 7)).shape
    torch.Size([2, 136])
    >>> pool.options
    {'eps': 1e-07, 'triangle': 'lower', 'num_iters': 5, 'centered': True, 'num_reweights': 1, 'reweight_beta': 0.0}
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
    checked_head_init(head_init)
    formats = FORMATS if pool_type in POOLS else FORMATS[:2]
    if input_fmt not in formats:
        raise ValueError(f'input_fmt of global_pool={pool_type!r} must be one of {", ".join(formats)}; got {input_fmt!r}.')
    if pool_type in POOLS:
        entry = POOLS[pool_type]
        options = {**entry.options, **{name: checked_option(name, value, known[name]) for name, value in options.items()}}
        pool: Any = entry.cls(in_features, reduce_dim, **entry.fixed, **options, device=device, dtype=dtype)
        pool.pool_type = pool_type
        pool.input_fmt = str(input_fmt)
        if head_init == 'open':
            open_gates(pool)
    else:
        pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type), input_fmt=input_fmt)
        pool.out_features = in_features * pool.feat_mult()
    pool.options = options
    return pool
