"""Options of the verbs that load a model. Their fields are those of `ModelOptions`."""

import argparse
from pathlib import Path

import torch

from ._arguments import KeyValues


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, which weights, and where it computes. Names as in timm's scripts."""
    parser.add_argument('--model', '-m', required=True, metavar='NAME[.TAG]', help='any model of timm or timm_3g')
    add_weight_options(parser)


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """The same without the model."""
    parser.add_argument(
        '--checkpoint', type=Path, metavar='FILE', help='weights file: of train.py, of the authors, or safetensors'
    )
    parser.add_argument('--use-ema', action='store_true', help='load the EMA weights of the checkpoint')
    parser.add_argument('--num-classes', type=int, metavar='N', help='(default: those of the weights)')
    parser.add_argument('--gp', metavar='POOL', help='global pooling, where neither weights nor model determine it')
    parser.add_argument(
        '--model-kwargs', nargs='*', default={}, action=KeyValues, metavar='KEY=VALUE', help='options of the model'
    )
    parser.add_argument('--img-size', type=int, metavar='N', help="square input (default: the model's)")
    parser.add_argument('--input-size', type=int, nargs=3, metavar='N', help='channels, height, width')
    parser.add_argument('--crop-pct', type=float, metavar='N', help='size of the crop divided by that of the resized image')
    parser.add_argument('--crop-mode', choices=['center', 'squash', 'border'], help="(default: the model's)")
    parser.add_argument('--interpolation', default='', metavar='NAME', help="of resizing (default: the model's)")
    parser.add_argument('--mean', type=float, nargs='+', metavar='MEAN', help="of pixels (default: the model's)")
    parser.add_argument('--std', type=float, nargs='+', metavar='STD', help="of pixels (default: the model's)")
    parser.add_argument(
        '-j',
        '--workers',
        type=int,
        default=4,
        metavar='N',
        help='processes that read images, at most the number of cores (4)',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--amp-dtype', default='float16', choices=['float16', 'bfloat16'], help='dtype of --amp (float16)')
    parser.add_argument('--channels-last', action='store_true', help='channels_last memory layout')
