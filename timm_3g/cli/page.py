"""`timm-3g page`: a page to look at models in a browser. `--export`: the same as a Space of the Hugging Face Hub."""

import argparse
import shlex
from pathlib import Path

from timm_3g.page import PageOptions, export_space, page

from ._arguments import command_line_names, options_from

EXAMPLE = """timm-3g page
  timm-3g page --models resnet10_mini_3g.open_cifar10 resnet50_3g=FILE.pth local-dir:DIR
  timm-3g page --export SPACE --weights ORG/resnet50_3g.birds"""


OF_SERVING = ('models', 'device', 'host', 'port', 'share')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument(
        '--models',
        nargs='+',
        default=PageOptions.models,
        metavar='MODEL',
        help='what visitors can choose: names with weights, local-dir:DIR, hf-hub:ORG/NAME.TAG, ARCH=FILE (those that ship)',
    )
    parser.add_argument('--device', metavar='DEVICE', help='(default: a GPU, else the CPU)')
    parser.add_argument('--host', default=PageOptions.host, metavar='ADDRESS', help='(127.0.0.1: this machine alone)')
    parser.add_argument('--port', type=int, metavar='N', help='(default: the first free one from 7860)')
    parser.add_argument('--share', action='store_true', help='ask Gradio for a public address')
    parser.add_argument('--export', type=Path, metavar='DIR', help='write a Space to this folder, and serve nothing')
    parser.add_argument('--weights', default='', metavar='ORG/NAME.TAG', help='of the Space (default: those that ship)')


def run(args: argparse.Namespace) -> None:
    """Serve, or export."""
    if args.export:
        given = [name for name in OF_SERVING if getattr(args, name) != getattr(PageOptions, name)]
        if given:
            raise ValueError(f'--{given[0]} is of a page that is served. With --export, name the model by --weights.')
        with command_line_names():
            folder = export_space(args.export, args.weights)
        push = f'timm-3g publish {shlex.quote(str(folder))} --repo ORG/NAME --space'
        print(f'{folder}: try it by `python app.py` there, push it by `{push}`.')
        return
    if args.weights:
        raise ValueError('--weights belongs to --export. Name models of the page by --models.')
    options = options_from(args, PageOptions)
    with command_line_names():
        page(options)
