"""CSV files."""

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
