"""The YAML front matter of a Markdown file.

huggingface_hub's `RepoCard` reads front matter, too. It is not used here for three reasons, which a test checks: it reads
Norwegian, `language: no`, as false and would write that back. It fails if a key is not text. It does not recognize front matter
that opens with `--- ` and a blank. A card on the Hub may have all three, and what people wrote is kept.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from timm_3g.utils.yaml_file import Loader, parse_yaml


class _Loader(Loader):
    """YAML in which only true and false are booleans, so that `no` is Norwegian."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != 'tag:yaml.org,2002:bool']
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver('tag:yaml.org,2002:bool', re.compile(r'^(?:true|false)$'), list('tf'))


_FRONT_MATTER = re.compile(r'---[ \t]*\n(.*?)^---[ \t]*(?:\n(.*)|\Z)', re.DOTALL | re.MULTILINE)


def read_text(file: Path) -> str:
    """A Markdown file as text, without byte order mark and carriage returns.

    Raises:
        ValueError: it is not a regular file, or not UTF-8.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f'{file} must be a regular file.')
    try:
        return file.read_text(encoding='utf-8-sig').replace('\r\n', '\n')
    except UnicodeDecodeError as error:
        raise ValueError(f'{file} must be UTF-8: {error}') from error


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """(fields, body) of a Markdown file. ({}, text) if it does not start with front matter.

    Raises:
        ValueError: the front matter is not a YAML mapping.

    >>> split_front_matter('---\\nlicense: mit\\nlanguage: no\\n---\\nText.')
    ({'license': 'mit', 'language': 'no'}, 'Text.')
    >>> split_front_matter('Text.')
    ({}, 'Text.')
    """
    match = _FRONT_MATTER.match(text)
    if not match:
        return {}, text
    try:
        fields = parse_yaml(match[1], _Loader, first_line=2)
    except ValueError as error:
        raise ValueError(f'The front matter is not valid YAML: {error}.') from error
    if not isinstance(fields, dict | None):
        raise ValueError(f'The front matter must map names to values; got {type(fields).__name__}.')
    return fields or {}, match[2] or ''


def lines_of_fields(text: str) -> dict[str, str]:
    """The lines of each field in the front matter as they stand there, with the comments above them.

    A field is left out where its lines alone do not have its value, such as one with an alias of another.

    >>> lines_of_fields('---\\n# Mine.\\nversion: 1.10  # not 1.1\\na:\\n- b\\n---\\nText.')
    {'version': '# Mine.\\nversion: 1.10  # not 1.1\\n', 'a': 'a:\\n- b\\n'}
    """
    match = _FRONT_MATTER.match(text)
    fields = split_front_matter(text)[0]
    parts: list[str] = []
    above = ''  # comments and blank lines, until it is known whose they are
    for line in match[1].splitlines(keepends=True) if match else ():
        if not line.strip() or line.lstrip().startswith('#'):
            above += line
            continue
        if line[0] in ' \t-' and parts:
            parts[-1] += above + line
        else:
            parts.append(above + line)
        above = ''
    found: dict[str, str] = {}
    for part in parts:
        with suppress(ValueError):
            alone = parse_yaml(part, _Loader)
            if isinstance(alone, dict) and len(alone) == 1:
                (name,) = alone
                if isinstance(name, str) and fields.get(name) == alone[name]:
                    found[name] = part
    return found


def join_front_matter(fields: dict[str, Any], body: str, lines: Mapping[str, str] | None = None) -> str:
    """The text of a Markdown file. `split_front_matter` gives the fields and the body back.

    Args:
        fields: names to values.
        body: what follows.
        lines: of fields that are to stand as they did (see `lines_of_fields`).

    >>> join_front_matter({'license': 'mit'}, 'Text.')
    '---\\nlicense: mit\\n---\\nText.'
    """
    lines = lines or {}
    parts = [lines[name] if name in lines else _dump({name: value}) for name, value in fields.items()]
    return f'---\n{"".join(parts)}---\n{body}'


def _dump(fields: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=1000)
    return text
