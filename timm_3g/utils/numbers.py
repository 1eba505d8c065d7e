"""Numbers that files of strangers state."""

import sys
from typing import Any


def is_finite(value: Any) -> bool:
    """Whether a value is an int or a float that a float can hold: no nan, no infinity, no int of 400 digits, no bool.

    >>> is_finite(0.5), is_finite(float('nan')), is_finite(10**400), is_finite(True)
    (True, False, False, False)
    """
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
