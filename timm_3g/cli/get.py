"""`timm-3g get`: fetch weights from where their authors host them, for `pretrained=True`."""

import argparse
from pathlib import Path

from timm_3g.publishing import Fetched, GetOptions, get, known_weights
from timm_3g.publishing.get import place_of
from timm_3g.utils.table import aligned

from ._arguments import options_from

EXAMPLE = 'timm-3g get resnet50_isqrt.mpncov_2018_in1k'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb."""
    parser.add_argument('key', nargs='?', metavar='NAME.TAG', help='which weights')
    parser.add_argument('--list', action='store_true', help='list all known weights: where they are, and their licence')
    parser.add_argument('--from', dest='file', type=Path, metavar='FILE', help="the authors' file, if you have it already")


def run(args: argparse.Namespace) -> None:
    """Fetch, or list."""
    if args.list == bool(args.key) or (args.list and args.file):
        raise ValueError('Name one set of weights (timm-3g get NAME.TAG), or list all of them (timm-3g get --list).')
    if args.list:
        print(table())
        return
    print(_said(get(options_from(args, GetOptions))))
    print(f"import timm, timm_3g; timm.create_model('{args.key}', pretrained=True)")


def _said(fetched: Fetched) -> str:
    if fetched.state == 'shipped':
        return f'{fetched.key} is in the package; there is nothing to fetch.'
    if fetched.state == 'present':
        return f'{fetched.folder} has them already.'
    granted = f'licence: {fetched.license}' if fetched.license != 'unknown' else 'their authors have granted no licence'
    return f'{fetched.folder}: {fetched.key}, checked and converted ({granted}).'


def table() -> str:
    """One line per key: where its weights are now, their licence, where their authors have them."""
    rows = [('weights', 'where they are', 'licence', "their authors' file")]
    for key, cfg in known_weights().items():
        rows.append((key, place_of(key), cfg.license or 'unknown', cfg.origin_url or ''))
    return '\n'.join(aligned(rows, left=4))
