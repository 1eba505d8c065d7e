"""Marks in a README. The text between them is ours and is rewritten. Text outside them belongs to other people and is kept.

A mark is recognized by how it begins, so that cards of other releases, whose marks have other words, are read as well.
"""

import re
from collections.abc import Mapping
from typing import Any

from .card_facts import control_character
from .front_matter import join_front_matter, lines_of_fields, split_front_matter

BEGIN = '<!-- timm_3g: begin. `timm-3g card` rewrites the text between these marks. Text outside them is kept. -->'
END = '<!-- timm_3g: end -->'
PROSE = ('<!-- timm_3g: prose -->', '<!-- timm_3g: end of prose -->')

_BLOCK = re.compile(r'<!-- timm_3g: begin\b.*?-->(.*?)<!-- timm_3g: end -->', re.DOTALL)
_MARK = re.compile(r'<!-- timm_3g: (?:begin\b.*?|end )-->', re.DOTALL)

# Fields of the front matter that are ours. All others belong to other people and are kept.
OWNED = {'license', 'datasets', 'library_name', 'pipeline_tag', 'model_name', 'model-index', 'timm_3g', 'tags'}


def prose_of(body: str) -> str:
    """The prose of a card, between its own marks. '' if there is none."""
    block = _BLOCK.search(body)
    return block[1].partition(PROSE[0])[2].partition(PROSE[1])[0].strip() if block else ''


def merge(existing: str, rendered: str, text: str | None = None) -> str:
    """The rendered card with what other people wrote into the existing one: unknown fields, tags, text outside the marks.

    Args:
        existing: the card that is there, or ''.
        rendered: our new card.
        text: replaces the existing card's text outside the marks.

    Raises:
        ValueError: marks that do not pair (see `hand_written`), or tags that are not a list.
    """
    theirs, _ = split_front_matter(existing)
    ours, body = split_front_matter(rendered)
    tags = list(dict.fromkeys([*ours['tags'], *tags_of(theirs)]))
    of_others = {name: value for name, value in theirs.items() if name not in OWNED and name not in ours}
    fields = {**of_others, **ours, 'tags': tags}
    block = _BLOCK.search(body)
    assert block, 'rendered cards have marks'
    kept = hand_written(existing) if text is None else text
    written = {name: lines for name, lines in lines_of_fields(existing).items() if name in of_others}
    return join_front_matter(fields, f'{block[0]}\n' + (f'\n{kept}\n' if kept else ''), written)


def tags_of(fields: Mapping[str, Any]) -> list[str]:
    """The tags in the front matter of a card.

    Raises:
        ValueError: they are not a list of text.

    >>> tags_of({'tags': 'birds'}), tags_of({})
    (['birds'], [])
    """
    tags = fields.get('tags') or []
    tags = [tags] if isinstance(tags, str) else tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError(f'tags in the front matter of a card must be a list of text; got {tags!r:.80}.')
    return tags


def license_in_text(readme: str) -> str:
    """The licence that the text of a card states between the marks, without its note. '' where it states none.

    >>> license_in_text(f'{BEGIN}\\n- **Licence:** mit, of the code\\n{END}')
    'mit'
    """
    block = _BLOCK.search(readme)
    line = re.search(r'^- \*\*Licence:\*\* ([^\s,]*[^\s,.])', block[1], re.MULTILINE) if block else None
    return line[1] if line else ''


def hand_written(readme: str, name: str = 'the card', remedy: str = 'Repair it by hand.') -> str:
    """The text outside the marks. Without marks, everything after the front matter.

    Args:
        readme: the text of the card.
        name: what error messages call the card.
        remedy: what error messages recommend.

    Raises:
        ValueError: the marks do not form one pair, so that nobody can tell whose text is whose. Or control characters.

    >>> hand_written(f'{BEGIN}\\nours\\n{END}\\n\\nTheirs.\\n')
    'Theirs.'
    """
    _, body = split_front_matter(readme)
    control = control_character(body)
    if control:
        raise ValueError(f'{name} contains the control character {control!r}. Cards must not contain any. {remedy}')
    marks = len(_MARK.findall(body))
    block = _BLOCK.search(body)
    if marks not in (0, 2) or (marks and not block):
        raise ValueError(
            f'The marks of {name} ({BEGIN} and {END}) must appear once each, in this order, or not at all; found {marks}. '
            f'{remedy}'
        )
    parts = (body[: block.start()], body[block.end() :]) if block else (body,)
    return '\n\n'.join(filter(None, (part.strip() for part in parts)))


def readdress(readme: str, repo: str) -> str:
    """The card with another repository in its snippets. Prose and other people's text stay as they are.

    >>> readdress(f"{BEGIN}\\n'hf-hub:a/b'\\n{END}\\n'hf-hub:a/b'", 'c/d').splitlines()[1:]
    ["'hf-hub:c/d'", '<!-- timm_3g: end -->', "'hf-hub:a/b'"]
    """

    def rename(text: str) -> str:
        return re.sub(r"'hf-hub:[^'\n]+'", f"'hf-hub:{repo}'", text)

    block = _BLOCK.search(readme)
    if not block:
        return readme
    snippets, mark, rest = block[0].partition(PROSE[0])
    return readme[: block.start()] + rename(snippets) + mark + rest + readme[block.end() :]
