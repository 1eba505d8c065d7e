"""Several photographs as a table."""

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path

from timm_3g.utils.terminal import printable

from .look import look
from .shelf import ShelfModel

COLUMNS = ('file', 'class', 'probability', 'second class', 'second probability', 'error')


def table_of(model: ShelfModel, files: Sequence[str], megapixels: int) -> list[list[str]]:
    """A row of COLUMNS for each file. A file that cannot be read has an error in place of classes.

    >>> from timm_3g.page.shelf import Shelf
    >>> model = Shelf(['resnet10_mini_3g.open_cifar10'], device='cpu').get('resnet10_mini_3g.open_cifar10')
    >>> table_of(model, ['absent.png'], megapixels=50)[0][0]
    'absent.png'
    """
    rows = []
    for file in files:
        name = printable(Path(file).name)
        try:
            top = look(model, file, megapixels).top(model.classes, 2)
        except ValueError as error:
            rows.append([name, '', '', '', '', str(error)])
            continue
        cells = [text for label, probability in top.items() for text in (label, f'{probability:.4f}')]
        rows.append([name, *cells, *[''] * (4 - len(cells)), ''])
    return rows


def write_table(rows: Sequence[Sequence[str]], folder: Path) -> Path:
    """Write COLUMNS and rows as predictions.csv in a new folder below `folder`.

    A name that a spreadsheet would take for a formula gets an apostrophe in front.

    >>> file = write_table([['=1+1.png', 'cat', '0.9', '', '', '']], Path(tempfile.mkdtemp()))
    >>> file.read_text().splitlines()[1]
    "'=1+1.png,cat,0.9,,,"
    """
    file = Path(tempfile.mkdtemp(dir=folder), 'predictions.csv')
    with file.open('w', encoding='utf-8', newline='') as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        writer.writerows([f"'{cell}" if cell[:1] in ('=', '+', '-', '@') else cell for cell in row] for row in rows)
    return file
