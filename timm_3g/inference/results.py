"""One row of results, and the CSV that rows are collected in."""

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timm_3g.utils.files import write_text
from timm_3g.utils.lock import locked


@dataclass
class Result:
    """What `validate` found: accuracy in percent, counts, and everything that settles them. The columns of the CSV."""

    date: str
    model: str
    tag: str
    checkpoint: str
    data: str
    split: str
    images: int
    top1: float
    top1_err: float
    top5: float
    top5_err: float
    top1_count: int
    top5_count: int
    param_count: int
    img_size: int
    crops: int
    crop_pct: float
    crop_mode: str
    interpolation: str
    precision: str
    processes: int
    device: str
    torch: str
    timm: str
    timm_3g: str
    seconds: float


COLUMNS = [field.name for field in fields(Result)]


def read_rows(file: Path) -> str:
    """The text of such a CSV, or '' where there is none yet.

    Raises:
        ValueError: a file with other columns, or that is no CSV.
    """
    try:
        text = file.read_text(encoding='utf-8') if file.exists() else ''
        header = next(csv.reader(io.StringIO(text)), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{file} is no CSV of results: {error}. Move it, or name another --results-file.') from error
    if header and header != COLUMNS:
        raise ValueError(f'{file} has other columns than this version writes; move it, or name another --results-file.')
    return text


def append_row(file: Path, result: Result) -> None:
    """Add a row: the file is whole at any moment, and rows that others add at the same time are kept.

    Raises:
        ValueError: a file with other columns.
    """
    file = Path(os.path.realpath(file))  # who comes by a link takes the same lock
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file):
        before = read_rows(file)
        text = io.StringIO()
        text.write(before if before.endswith('\n') or not before else f'{before}\n')  # an editor may have taken the last one
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        if not text.tell():
            writer.writeheader()
        writer.writerow(asdict(result))
        write_text(file, text.getvalue())
