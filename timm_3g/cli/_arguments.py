"""Values of options that several commands share, checked where they come in."""

import argparse
from typing import Any

from timm.utils import ParseKwargs


class KeyValues(ParseKwargs):
    """timm's action for KEY=VALUE..., which says in one line what lacks its `=`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set a dict. Ends the command with argparse's message for a value without a key."""
        for value in filter(None, values):
            key, equals, _ = value.partition('=')
            if not (equals and key.isidentifier()):
                parser.error(f'{option_string} takes KEY=VALUE, e.g. num_iters=5; got {value!r}.')
        super().__call__(parser, namespace, values, option_string)
