"""Files of class names, in timm's forms, with clear errors."""

from pathlib import Path
from typing import Any

from timm.data.readers.class_map import load_class_map

CLASS_NAMES = 'class_names.txt'  # beside the checkpoints of `timm-3g train`


def read_class_map(file: str | Path, root: str | Path = '') -> dict[Any, int]:
    """Read class names: {name: index} of a .txt file (one name per line) or a .pkl file (a pickled dict of built-in types).

    Args:
        root: another folder to look for the file in, as timm does.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another format, an empty or repeated name, or an index that is not a non-negative integer.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'names.txt')
    >>> _ = file.write_text('cat\\ndog\\n')
    >>> read_class_map(file)
    {'cat': 0, 'dog': 1}
    """
    path = next((path for path in (Path(file), Path(root, file)) if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(f'{file} does not exist. A class map is a .txt or .pkl file.')
    if path.suffix.lower() == '.txt':
        text = _read_text(path).rstrip()
        names = [line.strip() for line in text.split('\n')] if text else []  # as timm splits
        doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if doubled or '' in names or not names:
            what = f'has {doubled[0]!r} twice' if doubled and doubled[0] else 'has an empty line' if names else 'is empty'
            raise ValueError(
                f'The class map {path} {what}. It must have one name per line, in the order of the index, each once.'
            )
        return {name: index for index, name in enumerate(names)}
    if path.suffix.lower() != '.pkl':
        raise ValueError(
            f'The class map {path} must be a .txt with one name per line, or a .pkl of a dict; got {path.suffix!r}.'
        )
    try:
        content: Any = load_class_map(str(path))
    except Exception as error:  # whatever pickle raises over a damaged file
        raise ValueError(f'The class map {path} must be a pickled dict of built-in types, names to indices: {error}') from error
    wrong = [index for index in content.values() if not isinstance(index, int) or isinstance(index, bool) or index < 0]
    if wrong or not content:
        raise ValueError(f'The class map {path} must map names to indices, which start at 0; got {wrong[:1] or content!r}.')
    return content


def _read_text(path: Path) -> str:
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f'The class map {path} must be UTF-8: {error}') from error
    if text.startswith('\ufeff'):  # timm's readers would make it a part of the first name
        raise ValueError(f'The class map {path} begins with a byte order mark. Save it as plain UTF-8.')
    return text


def names_in_order(class_map: dict[Any, int], origin: str | Path) -> list[str]:
    """The names in the order of their index.

    Args:
        origin: what the error names.

    Raises:
        ValueError: unless the indices are 0 to n - 1, each once.

    >>> names_in_order({'dog': 1, 'cat': 0}, 'names.pkl')
    ['cat', 'dog']
    """
    if sorted(class_map.values()) != list(range(len(class_map))):
        expected, found = next((i, index) for i, index in enumerate(sorted(class_map.values())) if i != index)
        raise ValueError(
            f'{origin} must have each of the indices 0 to {len(class_map) - 1} once; it has {found} in place of {expected}.'
        )
    return [str(name) for name in sorted(class_map, key=class_map.__getitem__)]
