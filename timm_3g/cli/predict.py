"""`timm-3g predict`: top-k classes of images, and pictures of the re-weighting maps."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm_3g.inference import Prediction, PredictOptions, predict
from timm_3g.utils.terminal import printable

from ._arguments import command_line_names, options_from
from ._model_options import add_model_options

EXAMPLE = 'timm-3g predict photo.jpg holidays/ --model resnet10_mini_3g.open_cifar10 --topk 3 --explain pictures'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb, named as in timm's inference.py."""
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGE',
        help='files, folders (searched recursively for .png, .jpg, .jpeg) or glob patterns',
    )
    add_model_options(parser)
    parser.add_argument(
        '--class-map',
        default='',
        metavar='FILE',
        help="class names by index (default: the weights', or class_names.txt beside them)",
    )
    parser.add_argument('--topk', type=int, default=5, metavar='K', help='classes per image (5)')
    parser.add_argument('-b', '--batch-size', type=int, default=32, metavar='N', help='images per step (32)')
    parser.add_argument('--json', action='store_true', help='print only JSON: a list with one object per image')
    parser.add_argument(
        '--explain', type=Path, metavar='DIR', help='write one PNG per image: input, re-weighting maps, their product'
    )


def run(args: argparse.Namespace) -> None:
    """Print the predictions.

    Raises:
        ValueError: after printing, if images failed.
    """
    with command_line_names():
        predictions = predict(options_from(args, PredictOptions))
    if args.json:
        print(json.dumps([_json(prediction) for prediction in predictions], indent=1, allow_nan=False))
    else:
        _print_lines(predictions)
    failed = [prediction for prediction in predictions if prediction.failed]
    if failed:
        what = ' or '.join(dict.fromkeys(prediction.failed for prediction in failed))
        raise ValueError(f'{len(failed)} of {len(predictions)} images could not be {what}, the first {failed[0].file}.')


def _json(prediction: Prediction) -> dict[str, Any]:
    top = [{'class': c.name, 'index': c.index, 'probability': c.probability} for c in prediction.classes]
    return {'file': str(prediction.file), 'top': top, **({'error': prediction.error} if prediction.error else {})}


def _print_lines(predictions: Sequence[Prediction]) -> None:
    files = [str(prediction.file) for prediction in predictions]
    width = max(len(printable(file)) for file in files)
    for file, prediction in zip(files, predictions, strict=True):
        parts = [f'{printable(c.name)} {100 * c.probability:.1f} %' for c in prediction.classes]
        parts += [f'cannot be {prediction.failed}: {prediction.error}'] if prediction.failed else []
        print(f'{printable(file):{width}}  {"   ".join(parts)}')
    escaped = sum(printable(file) != file for file in files)
    if escaped:
        print(f'{escaped} of {len(files)} file names have characters that are printed as escapes.', file=sys.stderr)
