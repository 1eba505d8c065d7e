"""YAML of users and of strangers."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

MOST_VALUES = 100_000  # with aliases counted as often as they stand: a few lines of them can stand for more than fits in memory


class Loader(yaml.SafeLoader):
    """PyYAML's, but a key that stands twice is an error: PyYAML takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping of a node."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != '<<']
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f'the key {twice!r} stands twice', node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str | bytes, loader: type[Loader] = Loader) -> Any:
    """The content of YAML.

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
        where = f', in line {mark.line + 1}, column {mark.column + 1}' if mark else ''
        raise ValueError(f'{error.problem or error.context}{where}') from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes in no encoding, a day that is none
        raise ValueError(' '.join(str(error).split())) from error
    left, todo = MOST_VALUES, [content]
    while todo:
        value = todo.pop()
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
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
    is no YAML that can be used: the key 'lr' stands twice, in line 1, column 1
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f'{file} is {"no file" if Path(file).exists() else "not there"}. Name a YAML file.')
    try:
        return parse_yaml(Path(file).read_bytes())  # YAML knows its encodings
    except ValueError as error:
        raise ValueError(f'{file} is no YAML that can be used: {error}') from error
