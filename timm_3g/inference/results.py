"""What an evaluation found, and the CSV that collects such results."""

import csv
import io
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from timm_3g.utils.files import write_text
from timm_3g.utils.lock import locked


@dataclass(frozen=True)
class Evaluation:
    """Accuracy, counts, and the settings that determine them. The fields are the columns of the CSV.

    Attributes:
        date: in UTC, ISO 8601.
        model, tag, checkpoint: name of the model, and where its weights are from.
        data, split: what it was evaluated on.
        images: number of images.
        top1, top1_err, top5, top5_err: accuracy and error in percent, four decimals.
        top1_count, top5_count: number of images whose label is the first, or among the first five classes.
        param_count: number of parameters.
        img_size, crops, crop_pct, crop_mode, interpolation: how images were prepared. img_size is the width in pixels.
        precision: 'float32', or the dtype of autocast.
        processes, device: where it ran.
        torch, timm, timm_3g: versions.
        seconds: of evaluation, without loading the model.
        corruption: of the images. '' for none.
        input_size: channels, height and width.
        mean, std: what pixels were normalised with.
        use_ema: whether EMA weights of a checkpoint were wanted.
        gp, model_kwargs, class_map, input_img_mode, input_key, target_key, num_samples: as they were given, '' or None if not.
            model_kwargs in JSON.

    >>> from dataclasses import fields
    >>> [field.name for field in fields(Evaluation)][6:9]
    ['images', 'top1', 'top1_err']
    """

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
    corruption: str = ''
    input_size: str = ''
    mean: str = ''
    std: str = ''
    use_ema: bool | None = None
    gp: str = ''
    model_kwargs: str = ''
    class_map: str = ''
    input_img_mode: str = ''
    input_key: str = ''
    target_key: str = ''
    num_samples: int | None = None


COLUMNS = [field.name for field in fields(Evaluation)]
_FIRST_LATER = COLUMNS.index('corruption')  # the columns from here on came one version after the other


def read_rows(file: Path) -> str:
    """The text of such a CSV, or '' if the file does not exist. Rows of earlier versions get the columns that they lack.

    Raises:
        ValueError: a file with other columns, or not a CSV.

    >>> read_rows(Path('missing.csv'))
    ''
    """
    try:
        text = file.read_text(encoding='utf-8-sig') if file.exists() else ''
        lines = [line for line in csv.reader(io.StringIO(text)) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f'{file} is not a CSV of results: {error}. Move it, or choose another results file.') from error
    if not lines:
        return ''
    header, *rows = lines
    if header == COLUMNS:
        return text
    if len(header) < _FIRST_LATER or header != COLUMNS[: len(header)]:
        raise ValueError(f'{file} has other columns than this version writes. Move it, or choose another results file.')
    longer = io.StringIO()
    missing = [''] * (len(COLUMNS) - len(header))
    csv.writer(longer, lineterminator='\n').writerows([COLUMNS, *([*row, *missing] for row in rows)])
    return longer.getvalue()


def append_row(file: Path, result: Evaluation) -> None:
    """Add a row. The file is complete at any moment, and rows that other processes add at the same time are kept.

    Raises:
        OSError: the file cannot be written.
        ValueError: a file with other columns, or not a CSV.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp(), 'results.csv')
    >>> append_row(file, Evaluation(*COLUMNS[:25], seconds=1.5))
    >>> file.read_text().splitlines()[1].split(',')[24:27]
    ['timm_3g', '1.5', '']
    """
    file = Path(os.path.realpath(file))  # one lock for a file and links to it
    file.parent.mkdir(parents=True, exist_ok=True)
    with locked(file):
        before = read_rows(file)
        text = io.StringIO()
        text.write(
            before if before.endswith('\n') or not before else f'{before}\n'
        )  # an editor may have removed the last line end
        writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
        if not text.tell():
            writer.writeheader()
        writer.writerow(asdict(result))
        write_text(file, text.getvalue())
