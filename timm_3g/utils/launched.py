"""What torchrun tells each process that it starts."""

import os


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes. True without torchrun, or where one process is all.

    >>> is_first_process()
    True
    """
    return number_of_processes() == 1 or int(os.environ.get('RANK') or 0) == 0


def number_of_processes() -> int:
    """How many processes run together. 1 without torchrun.

    >>> number_of_processes()
    1
    """
    return int(os.environ.get('WORLD_SIZE') or 1)
