"""`timm-3g card`: write the model card of an exported folder again from its source. Text outside its marks is kept."""

import argparse
from pathlib import Path

from timm_3g.publishing import write_card

from ._arguments import command_line_names

EXAMPLE = 'timm-3g card resnet50_3g.orig_in1k --card hub/resnet50_3g.orig_in1k.md'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument('folder', type=Path, metavar='DIR', help='a folder that `timm-3g export` or `timm-3g get` wrote')
    parser.add_argument('--repo', default='', metavar='ORG/NAME.TAG', help='for the snippets (default: ORG/NAME.TAG)')
    add_card_options(parser)


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the facts of a card come from. `export` and `publish` have them, too."""
    parser.add_argument('--card', type=Path, metavar='FILE', help='source of the card (default: hub/NAME.TAG.md if it exists)')
    parser.add_argument('--license', metavar='ID', help='licence of the weights if no source states it, e.g. apache-2.0')


def run(args: argparse.Namespace) -> None:
    """Write the card and print its path."""
    with command_line_names():
        print(f'{write_card(args.folder, args.card, args.license, args.repo)} written.')
