"""The examples of docstrings (`>>>`) as blocks of code in the reference. Markdown alone would show them as quotations."""

import re
from typing import Any

from griffe import Extension, Object

# The lines from a prompt to the next blank line, or to the end.
EXAMPLE = re.compile(r'^(?P<indent> *)>>>.*(?:\n *\S.*)*', re.MULTILINE)


class Doctests(Extension):
    """Puts a fence around every example."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Before the docstring is parsed."""
        if obj.docstring:
            obj.docstring.value = EXAMPLE.sub(r'\g<indent>```pycon\n\g<0>\n\g<indent>```', obj.docstring.value)
