"""mkdocs hook: puts the citations of the poolings, which their modules hold, in the place of a mark in a page."""

from typing import Any

from timm_3g.layers import pool_paper
from timm_3g.layers.create_pool import POOLS

MARK = '<!-- papers -->'


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with a table of papers where it has the mark."""
    if MARK not in markdown:
        return markdown
    rows = ['| name | paper | defined in |', '| --- | --- | --- |']
    for name in POOLS:
        paper = pool_paper(name)
        rows.append(f'| `{name}` | [{paper.title}]({paper.url}), {paper.venue}, {paper.year} | {paper.where} |')
    return markdown.replace(MARK, '\n'.join(rows))
