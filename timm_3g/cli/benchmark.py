"""`timm-3g benchmark`: what second-order pooling costs on this machine, against its textbook forms. Tables, a CSV, pictures."""

import argparse
from pathlib import Path

import torch

from timm_3g.benchmarks import SECTIONS, BenchmarkOptions, Report, benchmark
from timm_3g.benchmarks.options import AMP_DTYPES, SWITCH

from ._arguments import command_line_names, options_from

EXAMPLE = """timm-3g benchmark
  timm-3g benchmark --sections head memory --batch-size 8 32 --threads 1 --busy --output benchmark"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb. Without any, everything that this machine can measure, in sizes that suit it."""
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=list(SECTIONS), help='(default: all, in this order)')
    parser.add_argument('--output', type=Path, default=Path('benchmark'), metavar='DIR', help='CSV and pictures (%(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, metavar='N', help="of torch on the CPU (default: torch's own choice)")
    parser.add_argument('--runs', type=int, default=15, metavar='N', help='rounds of each comparison at most (15)')
    parser.add_argument('--seconds', type=float, default=60.0, metavar='S', help='of each comparison, if three rounds fit (60)')
    parser.add_argument(
        '--tf32', choices=SWITCH, default='on', help="TF32 in float32 products on a GPU, as in timm's scripts (on)"
    )

    head = parser.add_argument_group('head, memory, reweight, precision')
    head.add_argument('--pool', default='3g', metavar='NAME', help='of the covariance, root and triangle (3g)')
    head.add_argument('--dim', type=int, default=256, metavar='N', help='channels (256)')
    head.add_argument('--size', type=int, default=14, metavar='N', help='side of the feature map: N = size^2 positions (14)')
    head.add_argument('--num-iters', type=int, metavar='N', help="steps of the root (default: the pooling's, 5)")
    head.add_argument(
        '--batch-size',
        type=int,
        nargs='+',
        default=[8, 32, 128],
        metavar='N',
        help='images; memory and reweight take the middle one (8 32 128)',
    )
    head.add_argument('--busy', action='store_true', help='head: once more while another process keeps one core busy')

    growth = parser.add_argument_group('growth')
    growth.add_argument('--growth-dims', type=int, nargs='+', default=[64, 128, 256, 512, 1024, 2048], metavar='N', help='d')
    growth.add_argument('--growth-sizes', type=int, nargs='+', default=[7, 14, 28, 56], metavar='N', help='N = size^2')
    growth.add_argument('--growth-batch-size', type=int, metavar='N', help='(default: 4, on a GPU 32)')

    fit = parser.add_argument_group('fit')
    fit.add_argument('--fit-images', type=int, metavar='N', help='sets of size^2 samples (256, on a GPU 32)')
    fit.add_argument('--fit-dim', type=int, default=64, metavar='N', help='dimensions (64)')

    model = parser.add_argument_group('model, poolings, compile')
    model.add_argument('--model', default='resnet50_3g', metavar='NAME', help='(default: %(default)s)')
    model.add_argument('--img-size', type=int, metavar='N', help="square input (default: the model's, 224)")
    model.add_argument('--batch-size-model', type=int, metavar='N', help='(default: 8, on a GPU 256)')
    model.add_argument(
        '--amp-dtype',
        choices=AMP_DTYPES,
        help='of autocast; bfloat16 also for reweight (default: none, on a GPU bfloat16)',
    )
    model.add_argument('--channels-last', action=argparse.BooleanOptionalAction, help='(default: on a GPU only)')
    model.add_argument('--compile-model', metavar='NAME', help='(default: resnet18_3g, on a GPU --model)')
    model.add_argument('--compile-img-size', type=int, metavar='N', help='(default: 64, on a GPU --img-size)')
    model.add_argument('--compile-backend', default='inductor', metavar='NAME', help='of torch.compile (inductor)')


def run(args: argparse.Namespace) -> None:
    """Measure section after section, and print each table when it is done."""
    with command_line_names():
        benchmark(options_from(args, BenchmarkOptions, on_progress=_print))
    print(f'\nFigures: {args.output / "benchmark.csv"}; pictures beside it.')


def _print(report: Report) -> None:
    """The machine before the first section, then the section that is done."""
    if report.notes:
        print(f'\n{report.text([*report.notes][-1])}', flush=True)
        return
    print('\n'.join(report.machine.lines()))
    print('Random features, images and weights, seed 0. Forms in turn; ratios: median over rounds of the quotient in a round.')
