"""CSV files and aligned lines."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm_3g.utils.files import write_text


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write one line per row, numbers with six digits. The file is written completely or not at all.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'a.csv')
    >>> write_csv([{'name': 'a', 'value': 1 / 3}], file)
    >>> file.read_text()
    'name,value\\na,0.333333\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: f'{v:.6g}' if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(file, text.getvalue())


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right.

    >>> print(*aligned(['', 'size'], [['large', '1000'], ['small', '1']]), sep='\\n')
           size
    large  1000
    small     1
    """
    grid = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(header))]
    pairs = ((line[0].ljust(widths[0]), [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]) for line in grid)
    return ['  '.join([first, *rest]) for first, rest in pairs]
