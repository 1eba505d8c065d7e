"""`timm-3g figure1`: the statistical claim of the 3G paper, measured on a model and images: pictures and CSVs."""

import argparse
from pathlib import Path

from timm_3g.figure1 import PARTS, Figure1Options, figure1

from ._arguments import command_line_names, options_from
from ._model_options import add_weight_options

EXAMPLE = """timm-3g figure1 resnet10_mini_3g.cifar10 cifar10/test
  timm-3g figure1 tf_efficientnet_lite0 --checkpoint efficientnet-lite0.pth photos/ --channels 0 17 300 --output lite0"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb: which model and images, and what is fitted."""
    parser.add_argument(
        'model', metavar='MODEL', help='NAME[.TAG], any model of timm; spectra and chain need a pooling of timm_3g'
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='files, folders or glob patterns')
    parser.add_argument('--output', type=Path, default=Path('figure1'), metavar='DIR', help='CSVs and pictures (%(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='(default: all)')
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='MODULE',
        help='whose activations are fitted (default: before and after the last ReLU before the pooling)',
    )
    parser.add_argument('--channels', type=int, nargs='+', metavar='N', help='to draw (default: eight, evenly spaced)')
    parser.add_argument('--dim', type=int, default=8, metavar='D', help='channels of a multivariate fit (8)')
    parser.add_argument('--groups', type=int, default=16, metavar='N', help='multivariate fits per image (16)')
    parser.add_argument('--beta', type=float, default=0.5, help='shape of the exact estimator (0.5)')
    parser.add_argument('--lam', type=float, default=1.1, help='lambda of the exact estimator (1.1)')
    parser.add_argument('--num-images', type=int, metavar='N', help='take N images, evenly spaced (default: all)')
    parser.add_argument('-b', '--batch-size', type=int, default=32, metavar='N', help='images per step (32)')
    add_weight_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, and print what each part found."""
    with command_line_names():
        found = figure1(options_from(args, Figure1Options))
    print(f'{found.model}: {len(found.files)} image{"s" * (len(found.files) > 1)}; layers: {", ".join(found.layers)}')
    for part in args.parts:
        if part in found.findings:
            print('\n'.join([f'\n{part}: {PARTS[part].title}', *found.findings[part].summary]))
        else:
            print(f'\n{part}: left out: the model has no second-order pooling.')
    print(f'\nCSVs and pictures: {args.output}')
