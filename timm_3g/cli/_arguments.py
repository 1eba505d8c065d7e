"""From a command line to typed options: values that several verbs share, and the options of a library function."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, TypeVar

from timm.utils import ParseKwargs

from timm_3g.utils.options import OptionError

Options = TypeVar('Options')


def options_from(args: argparse.Namespace, cls: type[Options], **given: Any) -> Options:
    """The options dataclass of a verb from its parsed command line.

    Args:
        args: parsed arguments. Those that `cls` has no field for are ignored.
        cls: a dataclass. A field that the command line has no argument for keeps its default.
        given: fields that do not come from the command line, or not as they are.

    Raises:
        ValueError: what `cls` raises, with options named as on the command line.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class GreetOptions:
    ...     name: str
    ...     times: int = 1
    >>> options_from(argparse.Namespace(name='Ada', verb='greet'), GreetOptions, times=2)
    GreetOptions(name='Ada', times=2)
    """
    values = {field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)}  # type: ignore[arg-type]
    with command_line_names():
        return cls(**{**values, **given})


@contextmanager
def command_line_names() -> Iterator[None]:
    """Name options in errors as on the command line: an `OptionError` of `batch_size` says `--batch-size`.

    >>> with command_line_names():
    ...     raise OptionError('batch_size', 'must be at least 1; got 0.')
    Traceback (most recent call last):
    ValueError: --batch-size must be at least 1; got 0.
    """
    try:
        yield
    except OptionError as error:
        raise ValueError(f'--{error.option.replace("_", "-")} {error.rule}') from error


class KeyValues(ParseKwargs):
    """timm's action for KEY=VALUE pairs, with a one-line error for a value without `=`."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Set a dict. A value without a key ends the command with argparse's message."""
        for value in filter(None, values):
            key, equals, _ = value.partition('=')
            if not (equals and key.isidentifier()):
                parser.error(f'{option_string} takes KEY=VALUE, e.g. num_iters=5; got {value!r}.')
        super().__call__(parser, namespace, values, option_string)
