"""`timm-3g run SCRIPT ARGS...`: any of timm's own scripts, with the models of this package registered."""

import argparse
from collections.abc import Callable

from timm_3g.training.prepare import ScriptOptions, prepare_script
from timm_3g.training.timm_scripts import ENV, SHA256

from ._arguments import options_from

EXAMPLE = 'timm-3g run validate.py --model resnet50_3g --checkpoint model_best.pth.tar --data-dir imagenet'


def add_scripts_option(parser: argparse.ArgumentParser) -> None:
    """`--timm-scripts`, for the verbs that run timm's scripts."""
    parser.add_argument(
        '--timm-scripts',
        metavar='DIR',
        help=f'a checkout of timm (default: ${ENV}, then the cache, then a download of the pinned commit)',
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb; what follows SCRIPT is the script's."""
    add_scripts_option(parser)
    parser.add_argument('script', metavar='SCRIPT', help=f'{", ".join(SHA256)}, or another of the checkout')
    parser.add_argument('args', nargs=argparse.REMAINDER, metavar='ARGS', help="the script's own, e.g. --help")


def run(args: argparse.Namespace) -> Callable[[], None]:
    """Find the script and check its arguments. Returns what is left: to run it."""
    if any(argument.split('=')[0] == '--timm-scripts' for argument in args.args):
        raise ValueError('--timm-scripts stands before the name of the script: what follows the name is for the script.')
    return prepare_script(options_from(args, ScriptOptions, arguments=args.args))
