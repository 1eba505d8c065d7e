"""The paper that a pooling comes from, as a citation. Each pooling's module holds its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """A paper in conference proceedings, and the place in it that a pooling follows.

    Attributes:
        title: as printed.
        authors: full names, given names first.
        venue: the proceedings, with the usual abbreviation in parentheses.
        year: of the conference.
        url: https address of the paper.
        where: the part of the paper that defines the pooling: equations, tables or the name of a step.
        key: BibTeX key.
        pages: in the proceedings, e.g. '5080-5088', or '' where they are not known.

    >>> authors = ('Ada Lovelace', 'Alan Turing')
    >>> paper = Paper('A Title', authors, 'A Conference (AC)', 1999, 'https://example.org', 'eq. (1)', 'ada')
    >>> print(paper.bibtex())
    @inproceedings{ada,
      title={A Title},
      author={Lovelace, Ada and Turing, Alan},
      booktitle={A Conference (AC)},
      year={1999},
      url={https://example.org}
    }
    """

    title: str
    authors: tuple[str, ...]
    venue: str
    year: int
    url: str
    where: str
    key: str
    pages: str = ''

    def __post_init__(self) -> None:
        if isinstance(self.authors, str):
            raise TypeError(f"authors must be a tuple of full names, e.g. ('Ada Lovelace',); got {self.authors!r}.")

    def bibtex(self) -> str:
        """The citation as a BibTeX entry. Words with inner capitals keep them, in braces."""
        title = ' '.join(f'{{{word}}}' if word[1:] != word[1:].lower() else word for word in self.title.split(' '))
        names = (name.rpartition(' ') for name in self.authors)
        fields = {
            'title': title,
            'author': ' and '.join(f'{family}, {given}' for given, _, family in names),
            'booktitle': self.venue,
            'pages': self.pages.replace('-', '--'),
            'year': str(self.year),
            'url': self.url,
        }
        lines = ',\n'.join(f'  {name}={{{value}}}' for name, value in fields.items() if value)
        return f'@inproceedings{{{self.key},\n{lines}\n}}'
