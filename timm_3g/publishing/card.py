"""The model card: facts and prose of one source, `hub/<arch>.<tag>.md`, rendered to the README.md of a published folder.

Between two marks a README is ours and is written anew; text outside them is other people's and is kept, as are fields of the
front matter that we do not write. The facts stand in the front matter, too, and the prose between marks of its own, so that a
README is its own source where there is no other.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from timm_3g.checkpoints import SHA256, WEIGHTS, is_tag
from timm_3g.utils.files import write_text

from .card_facts import FACTS, REQUIRED, check_facts, control_character
from .card_text import BEGIN, END, PROSE, render
from .folder import CARD, key_of, read_json, require_exported
from .run_facts import facts_of_run

SOURCES = Path('hub')  # in a checkout of timm_3g, one file a key
PLACEHOLDER = 'ORG'  # for the owner, until a folder is published

_BLOCK = re.compile(r'<!-- timm_3g: begin\b.*?-->(.*?)<!-- timm_3g: end -->', re.DOTALL)
_MARK = re.compile(r'<!-- timm_3g: (?:begin\b.*?|end )-->', re.DOTALL)

# Fields of the front matter that are ours; all others in a README are other people's, and are kept.
OWNED = {'license', 'datasets', 'library_name', 'pipeline_tag', 'model_name', 'model-index', 'timm_3g', 'tags'}


def add_card_options(parser: argparse.ArgumentParser) -> None:
    """Where the facts of a card come from."""
    parser.add_argument(
        '--card', type=Path, metavar='FILE', help='source of the card (default: hub/NAME.TAG.md if it is there)'
    )
    parser.add_argument('--license', metavar='ID', help='licence of the weights, where no source states it, e.g. apache-2.0')


class _Loader(yaml.SafeLoader):
    """YAML in which `no` is Norwegian: only true and false are booleans."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:bool']
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver('tag:yaml.org,2002:bool', re.compile(r'^(?:true|false)$'), list('tf'))


def read_text(file: Path) -> str:
    """A Markdown file as text, without byte order mark and carriage returns.

    Raises:
        ValueError: it is not UTF-8.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f'{file} must be a regular file.')
    try:
        return file.read_text(encoding='utf-8-sig').replace('\r\n', '\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} must be UTF-8: {error}') from error


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """(fields, body) of a Markdown file. ({}, text) where it does not open with front matter.

    Raises:
        ValueError: front matter that is no YAML mapping.
    """
    match = re.match(r'---[ \t]*\n(.*?)^---[ \t]*(?:\n(.*)|\Z)', text, re.DOTALL | re.MULTILINE)
    if not match:
        return {}, text
    try:
        fields = yaml.load(match[1], _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f'The front matter is no YAML: {error}') from error
    if not isinstance(fields, dict | None):
        raise ValueError(f'The front matter must map names to values; got {type(fields).__name__}.')
    return fields or {}, match[2] or ''


def read_source(file: Path) -> tuple[dict[str, Any], str]:
    """(facts, prose) of a source.

    Raises:
        ValueError: a fact that is unknown, missing or of another type, or a metric without who measured it; a mark of ours.
    """
    try:
        facts, prose = split_front_matter(read_text(file))
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    check_facts(facts, prose, str(file))
    return facts, prose.strip()


def write_card(folder: Path, *args: Any, **kwargs: Any) -> None:
    """Write README.md of an exported folder, whole or not at all: `make_card` with the same arguments."""
    write_text(folder / CARD, make_card(folder, *args, **kwargs))


def make_card(
    folder: Path,
    source: Path | None = None,
    license: str | None = None,
    training: Mapping[str, Any] | None = None,
    repo: str = '',
    base_model: str = '',
) -> str:
    """README.md of an exported folder: the part between the marks anew, the rest as it is in the README that is there.

    Args:
        source: facts and prose; None for hub/<key>.md in the current folder, else for those in the README that is there, else
            for what config.json and the training run tell.
        license: of the weights: identifier on the Hub. A source may state none ('unknown'), or the same.
        training: what train.py recorded (see `read_training`).
        repo: ORG/NAME for the snippets; '' for ORG/<key>.
        base_model: what the weights are a fine-tune of, where the source does not state it. Then the card in hub/ of a key in
            timm's registry is not theirs.

    Returns:
        The text.

    Raises:
        FileNotFoundError: no such source.
        ValueError: the source contradicts the folder (sha256) or the licence that is asked for; or see `read_source`.
    """
    require_exported(folder)
    key = key_of(folder)
    readme = folder / CARD
    existing = _existing(readme)
    if license and not re.fullmatch(r'[a-z0-9][a-z0-9.+-]*', license):
        raise ValueError(f'--license must be an identifier of the Hub, e.g. apache-2.0; got {license!r}.')
    if not (base_model and is_tag(key)):
        source = source or next((f for f in [SOURCES / f'{key}.md'] if f.is_file()), None)
    said = source or (
        f'{readme} itself' if 'timm_3g' in split_front_matter(existing)[0] else 'config.json and the training run'
    )
    print(f'timm-3g: facts of the card from {said}', file=sys.stderr)
    if source:
        facts, prose = read_source(source)
    else:
        facts, prose = _facts_inside(existing) or (facts_of_run(folder, training or {}), '')
    if license and source and facts['license'] not in ('unknown', license):
        raise ValueError(f'{source} says license: {facts["license"]}; --license says {license}. Settle it there.')
    facts['license'] = license or facts['license']
    if base_model:
        facts.setdefault('base_model', base_model)
    check_facts(facts, prose, str(said))
    sha256 = read_json(folder)[SHA256]
    if facts['sha256'] not in (None, 'unknown', sha256):
        raise ValueError(
            f'The card is of other weights: it says sha256 {facts["sha256"]}, and {WEIGHTS} in {folder} has {sha256}. '
            f'Name the right --card, or correct it.'
        )
    facts = {name: facts[name] for name in FACTS if name in facts} | {'sha256': sha256}
    return merge(existing, render(folder, key, facts, prose, repo or f'{PLACEHOLDER}/{key}'))


def _existing(readme: Path) -> str:
    """The text of a README that is there, or ''. A link out of the folder is followed to a card of ours alone.

    Raises:
        ValueError: a link to something else, which is neither shown nor written over.
    """
    text = read_text(readme) if readme.exists() else ''
    inside = Path(os.path.realpath(readme.parent)) in Path(os.path.realpath(readme)).parents
    if not inside and 'timm_3g' not in split_front_matter(text)[0]:
        raise ValueError(
            f'{readme} is a link to {os.path.realpath(readme)}, which is no card of timm_3g. Put a copy in its place.'
        )
    return text


def require_current(folder: Path, card: str) -> None:
    """Raise ValueError unless a card that was made earlier is of the weights in the folder, and sound."""
    facts, prose = _facts_inside(card) or ({}, '')
    check_facts(facts, prose, str(folder / CARD))
    sha256 = read_json(folder)[SHA256]
    if facts['sha256'] != sha256:
        raise ValueError(
            f'{folder / CARD} is of other weights: it says sha256 {facts["sha256"]}, and {WEIGHTS} beside it has {sha256}. '
            f'Write it anew: `timm-3g card {folder} --card FILE`, or delete it.'
        )


def _facts_inside(readme: str) -> tuple[dict[str, Any], str] | None:
    """Facts and prose of a card that `render` made."""
    fields, body = split_front_matter(readme)
    if 'timm_3g' not in fields:
        return None
    if not isinstance(fields['timm_3g'], dict):
        raise ValueError(f"timm_3g in the card's front matter must map names to values; got {fields['timm_3g']!r}.")
    block = _BLOCK.search(body)
    prose = block[1].partition(PROSE[0])[2].partition(PROSE[1])[0] if block else ''
    known = {'license': fields.get('license', 'unknown'), 'datasets': fields.get('datasets')}
    if isinstance(fields.get('base_model'), str):  # a list is other people's, and is kept as it is
        known['base_model'] = fields['base_model']
    stated = {name: fact for name, fact in fields['timm_3g'].items() if name in FACTS}
    return {**dict.fromkeys(REQUIRED), **known, **stated}, prose.strip()


def merge(existing: str, rendered: str, text: str | None = None) -> str:
    """The rendered card with what other people have written in the existing one: unknown fields, tags, text outside the marks.

    Args:
        text: instead of the existing card's text outside the marks.

    Raises:
        ValueError: marks that do not pair (see `hand_written`).
    """
    theirs, _ = split_front_matter(existing)
    ours, body = split_front_matter(rendered)
    their_tags = theirs.get('tags') or []
    if not isinstance(their_tags, str | list):
        raise ValueError(f'tags in the front matter of a card must be a list; got {their_tags!r}.')
    tags = list(dict.fromkeys([*ours['tags'], *([their_tags] if isinstance(their_tags, str) else their_tags)]))
    fields = {**{name: value for name, value in theirs.items() if name not in OWNED}, **ours, 'tags': tags}
    front = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    block = _BLOCK.search(body)
    assert block, 'what render or export wrote has its marks'
    kept = hand_written(existing) if text is None else text
    return f'---\n{front}---\n{block[0]}\n' + (f'\n{kept}\n' if kept else '')


def hand_written(readme: str, whose: str = 'the card') -> str:
    """What stands outside the marks; everything after the front matter where there are none.

    Raises:
        ValueError: marks that do not make one pair, so that nobody can tell whose text is whose; or control characters.
    """
    _, body = split_front_matter(readme)
    control = control_character(body)
    if control:
        raise ValueError(
            f'{whose} has the control character {control!r}, which no card may have. Delete it there, or give up the text on '
            f'the Hub: --replace-text.'
        )
    marks = len(_MARK.findall(body))
    block = _BLOCK.search(body)
    if marks not in (0, 2) or (marks and not block):
        raise ValueError(
            f'The marks of {whose} ({BEGIN} and {END}) must stand there once each, in this order, or not at all; '
            f'found {marks}. Mend them by hand, or give up the text on the Hub: --replace-text.'
        )
    parts = (body[: block.start()], body[block.end() :]) if block else (body,)
    return '\n\n'.join(filter(None, (part.strip() for part in parts)))


def readdress(readme: str, repo: str) -> str:
    """The card with its snippets naming another repository; prose and other people's text stay as they are."""

    def rename(text: str) -> str:
        return re.sub(r"'hf-hub:[^'@]+'", f"'hf-hub:{repo}'", text)

    block = _BLOCK.search(readme)
    if not block:
        return readme
    snippets, mark, rest = block[0].partition(PROSE[0])
    return readme[: block.start()] + rename(snippets) + mark + rest + readme[block.end() :]
