"""What one figure of a benchmark was measured on, as data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """Sizes and settings by name, in order. `str` gives words for a table: 'batch=8 dim=256'.

    Args:
        items: names and values.

    >>> case = Case.of(batch=8, dim=256, tf32=None)
    >>> case['dim'], case.get('tf32'), str(case)
    (256, None, 'batch=8 dim=256')
    >>> str(case.with_(part='head'))
    'batch=8 dim=256 part=head'
    """

    items: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, **values: Any) -> 'Case':
        """The case of these values. Those that are None are left out."""
        return cls(tuple((name, value) for name, value in values.items() if value is not None))

    def with_(self, **values: Any) -> 'Case':
        """This case with more values at its end."""
        return Case(self.items + Case.of(**values).items)

    def get(self, name: str) -> Any:
        """The value of this name, or None."""
        return dict(self.items).get(name)

    def __getitem__(self, name: str) -> Any:
        return dict(self.items)[name]

    def __str__(self) -> str:
        return ' '.join(f'{name}={value}' for name, value in self.items)


def split_shared(cases: Iterable[Case]) -> tuple[Case, dict[Case, Case]]:
    """What all cases have in common, and of each case the rest. Of a single case everything is in common.

    >>> shared, rest = split_shared([Case.of(batch=2, dim=6), Case.of(batch=8, dim=6)])
    >>> str(shared), [str(case) for case in rest.values()]
    ('dim=6', ['batch=2', 'batch=8'])
    """
    distinct = list(dict.fromkeys(cases))
    shared = [item for item in distinct[0].items if all(item in case.items for case in distinct)]
    rest = {case: Case(tuple(item for item in case.items if item not in shared)) for case in distinct}
    return Case(tuple(shared)), rest
