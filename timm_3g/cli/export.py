"""`timm-3g export`: convert a weights file to a folder that timm's `local-dir:` and the Hub read."""

import argparse
import shlex
from pathlib import Path

from timm_3g.publishing import ExportOptions, export

from ._arguments import KeyValues, command_line_names, options_from
from .card import add_card_options

EXAMPLE = 'timm-3g export ResNet50-3G-ImageNet.pth.tar --model resnet50_3g.orig_in1k --output resnet50_3g.orig_in1k'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument('checkpoint', type=Path, metavar='FILE', help='.pth, .pth.tar or .safetensors')
    add_weights_file_options(parser)
    parser.add_argument('--output', type=Path, metavar='DIR', help='new folder (default: NAME[.TAG] in the current folder)')


def add_weights_file_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that describe a weights file. `publish` has them, too."""
    parser.add_argument('--model', metavar='NAME[.TAG]', help='architecture (default: as recorded in the file)')
    parser.add_argument('--num-classes', type=int, metavar='N', help='checked against the file (default: its rows of fc)')
    parser.add_argument(
        '--model-kwargs',
        nargs='*',
        default={},
        action=KeyValues,
        metavar='KEY=VALUE',
        help='options of the model that neither the file nor its config.json records, e.g. num_reweights=1',
    )
    parser.add_argument(
        '--no-ema', dest='use_ema', action='store_false', help='the plain weights of a checkpoint that has EMA weights, too'
    )
    parser.add_argument(
        '--img-size', type=int, metavar='N', help='side of the images (default: as recorded; the next four, too)'
    )
    parser.add_argument('--mean', type=float, nargs='+', metavar='N', help='mean of their pixels')
    parser.add_argument('--std', type=float, nargs='+', metavar='N', help='standard deviation of their pixels')
    parser.add_argument('--interpolation', metavar='NAME', help='how images are resized, e.g. bicubic')
    parser.add_argument('--crop-pct', type=float, metavar='N', help='size of the crop divided by that of the resized image')
    parser.add_argument('--with-run', action='store_true', help='keep args.yaml and summary.csv, which train.py left beside it')
    parser.add_argument('--class-map', default='', metavar='FILE', help='class names in the order of their index, to keep')
    add_card_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export, and print where the result is and how to load it."""
    options = options_from(args, ExportOptions)
    with command_line_names():
        folder = export(options)
    path = folder.path
    print(f'{path}/ written: {", ".join(sorted(file.name for file in path.iterdir()))}; read back, logits equal.')
    print(f'import timm, timm_3g; timm.create_model({f"local-dir:{path}"!r}, pretrained=True)')
    print(f'timm-3g publish {shlex.quote(str(path))} --repo ORG/{folder.name}')
