"""`timm-3g run SCRIPT ARGS...`: any of timm's own scripts, with the models of this package registered."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from timm_3g.data import install_augmentations
from timm_3g.training.arguments import check_arguments
from timm_3g.training.class_names import kept_class_names
from timm_3g.training.timm_scripts import ENV, SHA256, find_script, run_script

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
    """Find the script and check its arguments; what is left is to run it."""
    if any(argument.split('=')[0] == '--timm-scripts' for argument in args.args):
        raise ValueError('--timm-scripts stands before the name of the script: what follows the name is for the script.')
    name = args.script if args.script.endswith('.py') else f'{args.script}.py'
    return prepare(name, args.args, args.timm_scripts)


def prepare(name: str, args: Sequence[str], folder: str | None) -> Callable[[], None]:
    """Find the script; for train.py, check its arguments and install our augmentations. Returns what is left: to run it."""
    script = find_script(name, folder)
    if script.name == 'train.py':
        args = [*args, *check_arguments(script, args)]
        install_augmentations()
        return partial(_train, script, args)
    return partial(run_script, script, args)


def _train(script: Path, args: Sequence[str]) -> None:
    with kept_class_names():
        run_script(script, args)
