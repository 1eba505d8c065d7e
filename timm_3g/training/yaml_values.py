"""Values of a YAML file of another type than they look: `1e-7` is a string in YAML 1.1."""

import argparse
from collections.abc import Iterable, Mapping
from typing import Any


def check_value_types(file: str, content: Mapping[str, Any], actions: Iterable[argparse.Action]) -> None:
    """Compare the values of a YAML file for train.py with the types of its options.

    argparse converts a string to the number that an option takes, but not a string in a list, in model_kwargs or in opt_kwargs.
    Any text turns a flag on.

    Args:
        file: its name, for the error.
        content: keys and values. Every key is the `dest` of an action.
        actions: the options of train.py.

    Raises:
        ValueError: a value of the wrong type. The message has the file, the key, the value and the remedy.

    >>> parser = argparse.ArgumentParser()
    >>> check_value_types('a.yaml', {'lr': 0.1}, [parser.add_argument('--lr', type=float)])
    >>> check_value_types('a.yaml', {'opt_kwargs': {'eps': '1e-7'}}, [parser.add_argument('--opt-kwargs')])
    Traceback (most recent call last):
    ValueError: a.yaml: opt_kwargs.eps is the string '1e-7', not a number. Write 1.0e-7.
    """
    by_name = {action.dest: action for action in actions}
    for key, value in content.items():
        action = by_name[key]
        if value is None:
            continue
        if isinstance(value, (Mapping, list)):
            for name, text in _strings(key, value):
                if _number(text) is not None:
                    raise ValueError(f'{file}: {name} is the string {text!r}, not a number. Write {_number(text)}.')
        if action.nargs == 0 and isinstance(action.const, bool) and not isinstance(value, bool):
            raise ValueError(f'{file}: {key} must be true or false; got {value!r}.')
        if action.type is str and action.nargs is None and not isinstance(value, str):
            raise ValueError(f'{file}: {key} must be text; got {value!r}. Write it in quotes.')
        if action.type in (int, float, str) and action.nargs is not None and not isinstance(value, list):
            raise ValueError(f'{file}: {key} must be a list; got {value!r}. Write [{value}].')
        if action.type in (int, float) and action.nargs is None:
            kind = 'an integer' if action.type is int else 'a number'
            fits = isinstance(value, int if action.type is int else (int, float)) and not isinstance(value, bool)
            if isinstance(value, str):
                fits = _converts(value, action.type)
            if not fits:
                raise ValueError(f'{file}: {key} must be {kind}; got {value!r}.')


def _strings(name: str, value: Any) -> Iterable[tuple[str, str]]:
    """The strings in a value, each with its place: `opt_kwargs.betas[1]`."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield from _strings(f'{name}.{key}', below)
    elif isinstance(value, list):
        for i, below in enumerate(value):
            yield from _strings(f'{name}[{i}]', below)


def _number(text: str) -> str | None:
    """The number in a string, as YAML 1.1 reads it. None for other text."""
    if not any(c.isdigit() for c in text) or not _converts(text, float):
        return None
    if _converts(text, int):
        return str(int(text))
    digits, e, power = repr(float(text)).partition('e')
    return f'{digits if "." in digits else digits + ".0"}e{int(power):+d}' if e else digits


def _converts(text: str, kind: Any) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True
