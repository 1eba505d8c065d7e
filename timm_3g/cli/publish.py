"""`timm-3g publish`: push an exported folder, or a weights file that is exported first, to the Hugging Face Hub."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from timm_3g.publishing import Published, PublishOptions, PublishSpaceOptions, publish, publish_space
from timm_3g.utils.terminal import printable

from ._arguments import command_line_names, options_from
from .export import add_weights_file_options

EXAMPLE = 'timm-3g publish output/train/RUN/model_best.pth.tar --repo ORG/resnet50_3g.birds --license apache-2.0 --dry-run'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the verb. Credentials are huggingface_hub's: `hf auth login`, or HF_TOKEN."""
    parser.add_argument('source', type=Path, metavar='DIR|FILE', help='a folder of `timm-3g export`, or a file to export first')
    parser.add_argument(
        '--repo', required=True, metavar='ORG/NAME.TAG', help='created if necessary (credentials: `hf auth login`, HF_TOKEN)'
    )
    parser.add_argument('--space', action='store_true', help='push DIR of `timm-3g page --export` as a Space, to ORG/NAME')
    parser.add_argument('--private', action='store_true', help='require a private repository, or create one')
    parser.add_argument(
        '--revision', '--branch', metavar='BRANCH', help='branch to push to, created if necessary (default: main)'
    )
    parser.add_argument('--create-pr', action='store_true', help='open a pull request instead of pushing')
    parser.add_argument('--tag', metavar='TAG', help='name of the pushed commit, e.g. v1')
    parser.add_argument('--message', metavar='TEXT', help='message of the commit')
    parser.add_argument(
        '--replace-text', action='store_true', help="replace the hand-written text of the card on the Hub by the folder's"
    )
    parser.add_argument('--dry-run', action='store_true', help='check everything and print what would be pushed; no network')
    add_weights_file_options(parser)


def run(args: argparse.Namespace) -> None:
    """Publish, and print the result."""
    if args.space:
        _publish_space(args)
        return
    options = options_from(args, PublishOptions)
    with command_line_names():
        published = publish(options)
    for line in _would_push(published, options) if options.dry_run else _pushed(published):
        print(line)


def _publish_space(args: argparse.Namespace) -> None:
    given = [*options_from(args, PublishOptions).of_weights(), *(['replace_text'] if args.replace_text else [])]
    if given:
        named = {'use_ema': 'no_ema'}.get(given[0], given[0]).replace('_', '-')
        raise ValueError(f'--{named} is of weights, and a Space has none. Leave it out.')
    options = options_from(args, PublishSpaceOptions)
    with command_line_names():
        pushed = publish_space(options)
    said = 'nothing was pushed; its three files can be.' if options.dry_run else pushed.url or 'nothing had changed.'
    print(f'Space {options.repo}: {said}')


def _would_push(published: Published, options: PublishOptions) -> Iterator[str]:
    target = 'a pull request' if options.create_pr else options.revision or 'main'
    private = ', private' if options.private else ''
    yield f'Nothing was pushed. {published.repo}, {target}{private}, would get from {options.source}:'
    for name, size in published.files.items():
        yield f'  {name:20} {size:12,} bytes'
    yield f'sha256 of model.safetensors: {published.sha256}'
    yield from _cautions(published)


def _pushed(published: Published) -> Iterator[str]:
    yield f'{published.repo}: {published.url or "nothing had changed."}'
    yield from _cautions(published)
    at = f'@{published.revision}' if published.revision else ''
    yield f"import timm, timm_3g; timm.create_model('hf-hub:{published.repo}{at}', pretrained=True)"


def _cautions(published: Published) -> Iterator[str]:
    for name in published.not_pushed:
        yield f'Not pushed: {printable(name)}'
    if published.license == 'unknown':
        yield 'The card states no licence. Make sure that you may publish these weights.'
