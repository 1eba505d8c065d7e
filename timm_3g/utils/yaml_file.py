"""YAML files of a user."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's, but a key that stands twice is an error: PyYAML takes the last one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != '<<']
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f'the key {twice!r} stands twice', node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: str | Path) -> Any:
    """The content of a YAML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, or has a key twice.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'a.yaml')
    >>> _ = file.write_text('lr: 0.1\\nlr: 0.9')
    >>> try:
    ...     read_yaml(file)
    ... except ValueError as error:
    ...     print(str(error).removeprefix(f'{file} '))
    is no YAML that can be used: the key 'lr' stands twice in "...", line 1, column 1
    """
    if not Path(file).is_file():
        raise FileNotFoundError(f'{file} is {"no file" if Path(file).exists() else "not there"}. Name a YAML file.')
    try:
        with open(file, 'rb') as stream:  # YAML knows its encodings
            return yaml.load(stream, _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f'{file} is no YAML that can be used: {" ".join(str(error).split())}') from error
