"""Tables and picture of a study from its CSV, on a page where they cannot disagree with it."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm_3g.utils.files import is_own_picture, require_writable, require_writable_folder, write_text
from timm_3g.utils.options import takes_fields_of

from .results import Row, read_results
from .tables import cells_of, pairs_table, tables


@dataclass(frozen=True)
class ReportOptions:
    """The options of `report_study`.

    Attributes:
        results: the CSV of a study.
        page: a Markdown page. The text between its marks `<!-- study NAME: begin -->` and `<!-- study NAME: end -->` is written
            anew, and that between `<!-- study NAME pairs: A - B, C - D -->` and `<!-- study NAME pairs: end -->`, if there are
            such marks: the paired differences of these arms. A page that is not there is made. None for no page.
        pictures: folder of the PNG. None for that of the CSV.

    >>> ReportOptions(Path('docs/a.csv')).page is None
    True
    """

    results: Path | str
    page: Path | str | None = None
    pictures: Path | str | None = None


@dataclass(frozen=True)
class Report:
    """The tables in Markdown, and the pictures that were drawn.

    >>> Report('| arm |', []).text
    '| arm |'
    """

    text: str
    pictures: list[Path]


@takes_fields_of(ReportOptions)
def report_study(options: ReportOptions) -> Report:
    """Write tables and a picture of a study from its CSV alone. Needs the extra `demo` (matplotlib, SciPy).

    Args:
        options: see ReportOptions. Each field may be given by name.

    Returns:
        The tables, and the pictures.

    Raises:
        FileNotFoundError: no such CSV.
        ValueError: no CSV of a study, a CSV without rows or with rows of two states of the study, a page without its marks or
            with pairs of arms that the CSV does not have.
        OSError: a file cannot be written, or a picture of another origin is in its place.
        ModuleNotFoundError: the extra is missing.

    >>> report_study(Path('missing.csv'))
    Traceback (most recent call last):
    FileNotFoundError: missing.csv does not exist.
    """
    from .plot import draw_study

    results = Path(options.results)
    if not results.is_file():
        what = 'is a folder. Name the CSV of a study' if results.is_dir() else 'does not exist'
        raise FileNotFoundError(f'{results} {what}.')
    rows = read_results(results)
    if not rows:
        raise ValueError(f'{results} has no rows. Run the study first.')
    others = sorted({row.study for row in rows} - {rows[0].study})
    if others:
        raise ValueError(
            f'{results} has rows of {rows[0].study} and of {", ".join(others)}. Give each study a --results of its own.'
        )
    try:
        name, text, cells = rows[0].study, tables(rows), cells_of(rows)
    except ValueError as error:
        raise ValueError(f'{results}: {error}') from error
    page = ''
    file = Path(options.page) if options.page else None
    if file:
        try:
            page = file.read_text(encoding='utf-8') if file.exists() else '# {}\n\n{}\n\n{}\n'.format(name, *marks(name))
        except UnicodeDecodeError as error:
            raise ValueError(f'{file} must be UTF-8: {error}') from error
        page = with_pairs(with_tables(page, name, text), name, rows)
        require_writable(file)
    picture = Path(options.pictures or results.parent) / f'{name}.png'
    require_writable_folder(picture.parent)
    if os.path.lexists(picture) and not is_own_picture(picture):
        raise FileExistsError(f'{picture} is there, and timm_3g did not draw it. Move it, or name another folder for pictures.')
    if cells:
        draw_study(cells, name, picture)
    if file:
        write_text(file, page)
    return Report(text, [picture] if cells else [])


def marks(name: str) -> tuple[str, str]:
    """What stands before and after the tables of a study on a page.

    >>> marks('a')[0]
    '<!-- study a: begin -->'
    """
    return f'<!-- study {name}: begin -->', f'<!-- study {name}: end -->'


def with_tables(page: str, name: str, text: str) -> str:
    """The page with the tables of a study between its marks.

    Raises:
        ValueError: the page does not have each mark once, in order.

    >>> print(with_tables('<!-- study a: begin -->\\nold\\n<!-- study a: end -->', 'a', 'new'))
    <!-- study a: begin -->
    <BLANKLINE>
    new
    <BLANKLINE>
    <!-- study a: end -->
    """
    begin, end = marks(name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f'The page must have {begin} and {end}, once each, in this order.')
    return re.sub(f'{re.escape(begin)}.*{re.escape(end)}', lambda _: f'{begin}\n\n{text}\n\n{end}', page, flags=re.DOTALL)


def with_pairs(page: str, name: str, rows: Sequence[Row]) -> str:
    """The page with the paired differences that its marks ask for. Without such marks as it is.

    Raises:
        ValueError: one mark without the other, marks twice or with other marks between them, pairs that are none, an arm of no
            row.

    >>> with_pairs('no marks', 'a', [])
    'no marks'
    """
    opening, end = f'<!-- study {name} pairs: ', f'<!-- study {name} pairs: end -->'
    if opening not in page:
        return page
    found = re.search(rf'{re.escape(opening)}([^>]*) -->(.*?){re.escape(end)}', page, re.DOTALL)
    if not found or page.count(opening) != 2 or '<!-- study ' in found[2]:
        raise ValueError(
            f'Marks for pairs of arms are {opening}A - B, C - D --> and {end}, once each, in this order, and without others '
            'between them.'
        )
    pairs = [tuple(pair.split(' - ')) for pair in re.split(r',\s+', found[1])]
    if len(set(pairs)) < len(pairs) or any(len(pair) != 2 or pair[0] == pair[1] for pair in pairs):
        raise ValueError(f'Pairs of arms must be A - B, C - D, each of two arms and once; got {found[1]!r:.200}.')
    text = pairs_table(rows, [(arm, other) for arm, other in pairs])
    return page[: found.start(2)] + f'\n\n{text}\n\n' + page[found.end(2) :]
