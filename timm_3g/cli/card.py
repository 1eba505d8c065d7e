"""`timm-3g card`: the model card of an exported folder, written anew from its source; text outside its marks is kept."""

import argparse
from pathlib import Path

from timm_3g.publishing.card import add_card_options, write_card
from timm_3g.publishing.folder import CARD

EXAMPLE = 'timm-3g card resnet50_3g.orig_in1k --card hub/resnet50_3g.orig_in1k.md'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('folder', type=Path, metavar='DIR', help='what `timm-3g export` or `timm-3g get` wrote')
    parser.add_argument('--repo', default='', metavar='ORG/NAME.TAG', help='for the snippets (default: ORG/NAME.TAG)')
    add_card_options(parser)


def run(args: argparse.Namespace) -> None:
    """Write it, and say where it is."""
    write_card(args.folder, args.card, args.license, repo=args.repo)
    print(f'{args.folder / CARD} written.')
