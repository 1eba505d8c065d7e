"""What torchrun tells each process that it starts."""

import os


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes. True without torchrun.

    >>> is_first_process()
    True
    """
    return int(os.environ.get('RANK', '0')) == 0


def number_of_processes() -> int:
    """How many processes run together. 1 without torchrun.

    >>> number_of_processes()
    1
    """
    return int(os.environ.get('WORLD_SIZE', '1'))
