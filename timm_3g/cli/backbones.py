"""`timm-3g backbones`: which networks of timm take a second-order head, tried on one network of each family."""

import argparse
from pathlib import Path

from timm_3g.models.survey import backbone_page, survey_backbones
from timm_3g.utils.files import require_writable, write_text

EXAMPLE = """timm-3g backbones
  timm-3g backbones --families convnext vision_transformer --output backbones.md"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb: which families, and where the table goes."""
    parser.add_argument('--families', nargs='+', metavar='NAME', help="timm's names of modules (default: all; 12 minutes)")
    parser.add_argument('--output', type=Path, metavar='FILE', help='write the table there, as Markdown')


def run(args: argparse.Namespace) -> None:
    """Try each family. Print the table, or write it.

    Raises:
        RuntimeError: a family that is not refused does not work.
    """
    if args.output:
        require_writable(args.output)
    found = list(survey_backbones(args.families))
    page = backbone_page(found)
    if args.output:
        write_text(args.output, page)
    else:
        print(page)
    broken = [one for one in found if one.problem and not one.is_refused]
    if broken:
        raise RuntimeError('; '.join(f'{one.member}: {one.problem}' for one in broken))
