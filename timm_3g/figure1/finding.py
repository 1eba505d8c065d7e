"""What one part of the figure found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """The numbers of one part of the figure, and a summary to read.

    Attributes:
        tables: name of a CSV -> its rows, each a dict of column and value.
        summary: lines of an aligned table, and notes.

    >>> Finding({'spectra': [{'matrix': 'covariance', 'index': 1, 'mean': 0.9, 'std': 0.1}]}, ['covariance 90 %']).summary
    ['covariance 90 %']
    """

    tables: Mapping[str, Sequence[Row]]
    summary: Sequence[str]
