"""Long lists of names in an error."""

from collections.abc import Iterable


def abbreviated(names: Iterable[str], most: int = 4) -> str:
    """The first names in order, and how many more there are.

    >>> abbreviated(['dog', 'cat', 'bird'], 2)
    'bird, cat and 1 more'
    """
    names = sorted(names)
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
