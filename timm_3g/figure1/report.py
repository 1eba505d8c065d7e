"""What the parts of `timm-3g figure1` share: CSV files, aligned lines, rank correlation."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from timm_3g.utils.files import write_text


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """One line a row, whole or not at all; numbers with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator='\n')
    writer.writeheader()
    writer.writerows({k: f'{v:.6g}' if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    write_text(file, text.getvalue())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines: words to the left, the other columns to the right."""
    grid = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(header))]
    pairs = ((line[0].ljust(widths[0]), [c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]) for line in grid)
    return ['  '.join([first, *rest]) for first, rest in pairs]


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation along the last dimension, ties by their mean rank; NaN where all ranks are tied."""
    ranks = [torch.from_numpy(rankdata(t.cpu().double().numpy(), axis=-1)) for t in (a, b)]
    x, y = (r - r.mean(-1, keepdim=True) for r in ranks)
    return (x * y).sum(-1) / (x.square().sum(-1) * y.square().sum(-1)).sqrt()


def misfit(a: Tensor, b: Tensor) -> Tensor:
    """min over c of |c a - b| / |b| over all but the first dimension: 0 is proportional, 1 is orthogonal."""
    a, b = a.flatten(1), b.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
    return (1 - cosine.square()).clamp(min=0).sqrt()
