"""YAML of users and of strangers."""

from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 100_000  # with aliases counted as often as they stand: a few lines of them can stand for more than fits in memory


class Loader(yaml.SafeLoader):
    """PyYAML's, but a key that stands twice is an error: PyYAML takes the last one without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The node of a mapping as it is written, before `<<` merges others into it."""
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != '<<'):
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f'the key {key.value!r} stands twice', key.start_mark)
            seen.add((key.tag, key.value))
        return node


def parse_yaml(text: str | bytes, loader: type[Loader] = Loader, first_line: int = 1) -> Any:
    """The content of YAML.

    Args:
        text: the YAML.
        loader: what reads it.
        first_line: the number of its first line, for messages.

    Raises:
        ValueError: it is no YAML, has a key twice, or stands for more than `MOST_VALUES` values.

    >>> parse_yaml('lr: 0.1')
    {'lr': 0.1}
    >>> parse_yaml('a: &x [*x]')
    Traceback (most recent call last):
    ValueError: it has more than 100,000 values, with aliases counted as often as they stand
    """
    try:
        content = yaml.load(text, loader)
    except RecursionError as error:
        raise ValueError('it is nested too deeply') from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f', in line {mark.line + first_line}, column {mark.column + 1}' if mark else ''
        halves = (error.context, error.problem) if str(error.problem).startswith('but ') else (error.problem or error.context,)
        raise ValueError(f'{" ".join(map(str, halves))}{where}') from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes in no encoding, a day that is none
        raise ValueError(' '.join(str(error).split())) from error
    except (KeyError, AttributeError, IndexError, TypeError, OverflowError) as error:  # PyYAML's own, over a tag
        raise ValueError(f'it has a value that is none of its type: {error!r}') from error
    left, todo = MOST_VALUES, [content]
    while todo:
        value = todo.pop()
        parts = (
            [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        )
        left -= len(parts)
        if left < 0:
            raise ValueError(f'it has more than {MOST_VALUES:,} values, with aliases counted as often as they stand')
        todo.extend(parts)
    return content


def read_yaml(file: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: see `parse_yaml`.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'a.yaml')
    >>> _ = file.write_text('lr: 0.1\\nlr: 0.9')
    >>> try:
    ...     read_yaml(file)
    ... except ValueError as error:
    ...     print(str(error).removeprefix(f'{file} '))
    is no YAML that can be used: the key 'lr' stands twice, in line 2, column 1
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f'{file} is {"no file" if Path(file).exists() else "not there"}. Name a YAML file.')
    try:
        return parse_yaml(Path(file).read_bytes())  # YAML knows its encodings
    except ValueError as error:
        raise ValueError(f'{file} is no YAML that can be used: {error}') from error
