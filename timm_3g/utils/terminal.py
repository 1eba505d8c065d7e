"""Text of strangers (file names, class names, messages) on a terminal."""


def printable(text: str) -> str:
    """In one line: every character that a terminal may obey or cannot show stands as its escape, `\\x1b` for instance."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def one_line(text: str) -> str:
    """The same, with white space of any kind and length as one space."""
    return printable(' '.join(text.split()))
