"""`timm-3g curves RUN...`: loss and accuracy of runs of train.py against epochs, as a PNG."""

import argparse
from pathlib import Path

from timm_3g.training.curves import CurvesOptions, draw_run_curves

from ._arguments import options_from

EXAMPLE = 'timm-3g curves output/train/3g output/train/avg --output curves.png'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN', help='folders that train.py wrote, named after them')
    parser.add_argument(
        '--output', type=Path, default=Path('curves.png'), metavar='PNG', help='the picture (default: %(default)s)'
    )
    parser.add_argument('--title', default='', help='above the picture')


def run(args: argparse.Namespace) -> None:
    """Draw, and print the last and the best epoch of each run."""
    for name, run in draw_run_curves(options_from(args, CurvesOptions)).items():
        top1, best = run.column('eval_top1'), run.best_epoch
        said = f'{len(top1)} epoch{"s" * (len(top1) > 1)}'
        if best is None:
            print(f'{name}: {said}, no accuracy is a number')
        else:
            print(f'{name}: {said}, last {top1[-1]:.2f} %, best {run.rows[best]["eval_top1"]:.2f} % after epoch {best + 1}')
    print(f'Curves: {args.output}')
