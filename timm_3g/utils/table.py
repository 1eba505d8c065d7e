"""Tables as aligned text."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """One line per row, columns two spaces apart.

    Args:
        rows: cells, the same number in each row. Usually the first row is the header.
        left: number of columns that are aligned to the left. The others hold numbers and are aligned to the right.

    Returns:
        The lines, without spaces at their ends.

    >>> print('\\n'.join(aligned([['form', 'ms'], ['ours', '1.2'], ['textbook', '10.5']])))
    form        ms
    ours       1.2
    textbook  10.5
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        '  '.join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]
