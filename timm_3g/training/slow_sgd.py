"""Whether SGD at a run's rate will move a second-order head soon. timm's train.py takes SGD where no optimizer is named."""

from typing import Any

from timm.models import split_model_name_tag

from timm_3g.checkpoints.function import defaults_of
from timm_3g.checkpoints.hub import config_of_base
from timm_3g.layers.create_pool import POOLS

SGD = ('sgd', 'momentum', 'nesterov', 'nesterovw', 'sgdc', 'sgdp', 'sgdw', 'fusedsgd')  # timm's names for it

# Each lies between a rate at which the loss stood still and one at which it moved. Measured by us on 2026-11-27 with
# resnet10_mini_3g on scikit-learn's digits, 46 steps of at most 64 images, seed 0. Open gates: 2.31 to 2.27 at 0.001, to
# 2.11 at 0.005, to 1.69 at 0.01, to 0.05 at 0.05. The authors' start: 2.30 to 2.30 at 0.01, to 2.12 at 0.05.
LEAST_RATE = {'open': 0.005, 'orig': 0.02}
# With head_norm, a loop of our own, momentum 0.9, mean of the last three losses, 2026-11-29. Where its weights start at 1:
# 2.48 to 1.54 at 0.0001, the lowest rate that was tried. At 0.1: 2.31 to 2.30 at 0.0001, to 2.20 at 0.001, to 1.84 at 0.005.
LEAST_RATE_BEHIND_NORM = 0.001


def slow_sgd(args: Any, processes: int) -> str:
    """One line where SGD meets a second-order head at a rate that will hardly move it, else ''.

    Args:
        args: the namespace of train.py.
        processes: how many train together. train.py multiplies --lr-base by the batch of all.

    >>> from argparse import Namespace
    >>> args = Namespace(model='resnet18_3g', gp=None, model_kwargs={}, opt='sgd', lr=0.001)
    >>> print(slow_sgd(args, processes=1))
    SGD at a rate of 0.001 hardly moves the head of 3g in a short run. Give it --lr 0.005 or more, or --opt adamw --lr 0.001.
    """
    options = {**_options_of(args.model), **args.model_kwargs}
    pool = args.gp or options.get('global_pool')
    if pool not in POOLS or args.opt.lower().rpartition('_')[2] not in SGD:
        return ''
    rate, least = _rate(args, processes), _least_rate(options)
    if rate >= least:
        return ''
    moved_by = f'--lr {least:g} or more, or --opt adamw --lr 0.001'
    return f'SGD at a rate of {rate:.3g} hardly moves the head of {pool} in a short run. Give it {moved_by}.'


def _least_rate(options: dict[str, Any]) -> float:
    """At which SGD moves such a head soon. 0 where any rate that was tried does."""
    norm = options.get('head_norm')
    if norm and type(norm) in (bool, float):
        return 0.0 if norm >= 1 else LEAST_RATE_BEHIND_NORM
    return LEAST_RATE.get(str(options.get('head_init', 'open')), 0.0)


def _options_of(model: str) -> dict[str, Any]:
    """The options of the head that a name stands for."""
    base = config_of_base(model)  # of `local-dir:` and `hf-hub:`
    arch = base.get('architecture') or split_model_name_tag(model)[0]
    return {**defaults_of(arch), **base.get('model_args', {})}


def _rate(args: Any, processes: int) -> float:
    """--lr, or what train.py makes of --lr-base. For SGD it follows the batch, unless --lr-base-scale says otherwise."""
    if args.lr is not None:
        return float(args.lr)
    ratio = args.batch_size * processes * args.grad_accum_steps / args.lr_base_size
    return float(args.lr_base * (ratio**0.5 if args.lr_base_scale == 'sqrt' else ratio))
