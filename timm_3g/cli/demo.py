"""`timm-3g demo`: the main job in a minute or two on a CPU, on real images that scikit-learn ships (1,797 written digits)."""

import argparse
import platform
from pathlib import Path

import timm
import torch

import timm_3g
from timm_3g.training.digits_demo import MODEL, DemoOptions, demo
from timm_3g.utils.table import aligned

from ._arguments import options_from

EXAMPLE = 'timm-3g demo --pools 3g isqrt avg --epochs 6'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('--pools', nargs='+', default=['3g', 'avg'], metavar='NAME', help='poolings to compare (3g avg)')
    parser.add_argument('--epochs', type=int, default=6, metavar='N', help='epochs for each (6)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of split, weights and order (0)')
    parser.add_argument('--output', type=Path, default=Path('timm_3g_demo.png'), metavar='PNG', help='the picture')


def run(args: argparse.Namespace) -> None:
    """Train once per pooling with the same recipe, draw the curves, print a table."""
    report = demo(options_from(args, DemoOptions))
    print(
        f'{report.train_images} images to train on, {report.test_images} held out, 10 classes: scikit-learn digits, 8 x 8 '
        f'enlarged to 32 x 32'
    )
    print(
        f'{MODEL}, AdamW 0.003 cosine, batch 64, {args.epochs} epochs, seed {args.seed}, torch {torch.__version__}, timm '
        f'{timm.__version__}, timm_3g {timm_3g.__version__}, {platform.machine()}, {torch.get_num_threads()} threads'
    )
    rows = [['pooling', 'parameters', 'seconds', 'held-out accuracy']]
    for result in report.results:
        top1 = result.accuracy[-1]
        right = round(top1 * report.test_images / 100)
        accuracy = f'{top1:.1f} % ({right} of {report.test_images})'
        rows.append([result.pool, f'{result.parameters:,}', f'{result.seconds:.1f}', accuracy])
    print('\n'.join(aligned(rows)))
    print(f'One seed on {report.test_images} images ranks nothing. It shows that the pieces work. Curves: {args.output}')
