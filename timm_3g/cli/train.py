"""`timm-3g train ARGS...`: timm's own, unmodified train.py, with the plugin registered and its YAML checked first."""

import argparse
from collections.abc import Callable

from timm_3g.training.prepare import ScriptOptions, prepare_script

from ._arguments import options_from
from .run import add_scripts_option

EXAMPLE = """timm-3g train --config train_configs/resnet50_3g.paper_in1k.yaml --data-dir imagenet
  torchrun --nproc_per_node=4 -m timm_3g train --config train_configs/resnet50_3g.paper_in1k.yaml --data-dir imagenet

ARGS are those of timm's train.py; the script's own help: timm-3g run train.py --help"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option of ours; every other argument goes to train.py as it is."""
    parser.usage = '%(prog)s [-h] [--timm-scripts DIR] ARGS...'
    add_scripts_option(parser)
    parser.set_defaults(forward=True)


def run(args: argparse.Namespace) -> Callable[[], None]:
    """Find train.py and check its arguments. Returns what is left: to run it."""
    return prepare_script(options_from(args, ScriptOptions, script='train.py', arguments=args.rest))
