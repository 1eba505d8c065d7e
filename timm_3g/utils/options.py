"""Functions whose arguments are the fields of one dataclass: one definition for Python callers and for the command line."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar

Options = TypeVar('Options')
Result = TypeVar('Result')


class OptionError(ValueError):
    """An option whose value is invalid. The command line names it in its own spelling.

    Args:
        option: the name of the field.
        rule: the rest of the message: the rule, what was received, the remedy.

    >>> raise OptionError('batch_size', 'must be at least 1; got 0.')
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: batch_size must be at least 1; got 0.
    """

    def __init__(self, option: str, rule: str) -> None:
        super().__init__(f'{option} {rule}')
        self.option, self.rule = option, rule


def require_at_least(least: int, **options: int | None) -> None:
    """Raise OptionError for the first of the options that is less than `least`. None passes.

    >>> require_at_least(1, batch_size=8, num_samples=None)
    """
    for name, value in options.items():
        if value is not None and value < least:
            raise OptionError(name, f'must be at least {least}; got {value}.')


def takes_fields_of(cls: type[Options]) -> Callable[[Callable[[Options], Result]], Callable[..., Result]]:
    """A decorator for a function of one options object: callers may pass the object, or its fields.

    Args:
        cls: a dataclass. Its `__post_init__` checks the values.

    Returns:
        A decorator. The decorated function takes an instance of `cls` alone, or the fields of `cls`, by position or by name.
        `inspect.signature` shows the fields.

    Raises:
        TypeError: the decorated function got a name that is no field, or lacks a field without a default.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class GreetOptions:
    ...     name: str
    ...     times: int = 1
    >>> @takes_fields_of(GreetOptions)
    ... def greet(options: GreetOptions) -> str:
    ...     return f'Hello {options.name}. ' * options.times
    >>> greet('Ada', times=2) == greet(GreetOptions('Ada', 2))
    True
    >>> greet('Ada', time=2)
    Traceback (most recent call last):
    TypeError: greet has no option 'time'. Did you mean 'times'?
    """
    names = [field.name for field in fields(cls)]  # type: ignore[arg-type]

    def decorate(function: Callable[[Options], Result]) -> Callable[..., Result]:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Result:
            if len(args) == 1 and not kwargs and isinstance(args[0], cls):
                return function(args[0])
            for name in kwargs:
                if name not in names:
                    near = difflib.get_close_matches(name, names, n=1)
                    hint = f'Did you mean {near[0]!r}?' if near else f'Options are: {", ".join(names)}.'
                    raise TypeError(f'{function.__name__} has no option {name!r}. {hint}')
            return function(cls(*args, **kwargs))

        call.__signature__ = inspect.signature(cls)  # type: ignore[attr-defined]
        return call

    return decorate
