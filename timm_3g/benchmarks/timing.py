"""Times of several forms of one computation, measured side by side; and a core that is kept busy meanwhile."""

import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from tqdm import tqdm

Result = TypeVar('Result')

# A sample shorter than this is repeated until it is that long: the clock and the wait for a GPU cost some microseconds.
_SHORTEST_SAMPLE = 2e-3
_FEWEST_ROUNDS = 3

_SPIN = """
import os, sys
while os.getppid() == int(sys.argv[1]):  # also ends when the benchmark is killed
    for _ in range(1000000):
        pass
"""


@dataclass
class Timing:
    """Seconds of each round."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Half of the rounds were faster."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """The interquartile range, 0 for a single round."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method='inclusive')
        return high - low

    def ratio(self, other: 'Timing') -> float:
        """How many times the time of `other`: the median over rounds of the quotient within a round.

        What slows the machine for a while slows both, so the quotient varies less than the times.
        """
        return statistics.median(a / b for a, b in zip(self.seconds, other.seconds, strict=False))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python raised this for too little memory, on a GPU or a CPU."""
    words = ("can't allocate memory", 'not enough memory', 'ALLOC_FAILED', 'CUDA error: out of memory')
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def attempt(call: Callable[[], Result]) -> Result | None:
    """What `call` returns, or None if there was not enough memory for it, which is then given back. Other errors pass."""
    try:
        return call()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():  # after the except clause: the traceback held the tensors
        torch.cuda.empty_cache()
    return None


def paired(
    forms: Mapping[str, Callable[[], object]], device: torch.device, runs: int, seconds: float, label: str = ''
) -> dict[str, Timing | None]:
    """Time the forms in turn, round after round, each round in another order. Every form is first called twice to warm up.

    Args:
        forms: name -> what to time.
        device: is waited for before and after each sample.
        runs: rounds at most.
        seconds: stop after about so long, but not before three rounds (or `runs`, if that is less).
        label: of the progress bar.

    Returns:
        For each form its times, or None where the memory did not suffice; the others go on.
    """
    result: dict[str, Timing | None] = dict.fromkeys(forms)
    calls: dict[str, int] = {}  # of a sample
    round_seconds = 0.0
    for name, form in forms.items():
        once = attempt(partial(_warm_sample, form, device))
        if once is not None:
            result[name] = Timing()
            calls[name] = max(1, math.ceil(_SHORTEST_SAMPLE / once))
            round_seconds += once * calls[name]
    rounds = min(runs, max(_FEWEST_ROUNDS, int(seconds / round_seconds))) if calls else 0
    for i in tqdm(range(rounds), desc=label, unit='round', leave=False, disable=None):
        names = list(calls)
        for name in names[i % len(names) :] + names[: i % len(names)] if names else []:
            took = attempt(partial(_sample, forms[name], calls[name], device))
            timing = result[name]
            if took is not None and timing is not None:
                timing.seconds.append(took)
            else:
                result[name] = None
                del calls[name]
    return result


def _warm_sample(form: Callable[[], object], device: torch.device) -> float:
    form()
    return _sample(form, 1, device)


def _sample(form: Callable[[], object], calls: int, device: torch.device) -> float:
    """Seconds of one call, the mean over `calls`."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        form()
    synchronize(device)
    return (time.perf_counter() - start) / calls


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


@contextmanager
def busy_core() -> Iterator[None]:
    """Meanwhile another process keeps one core busy, as a data loader or another user would."""
    # Not multiprocessing: its child would import torch first, and would outlive a parent that is killed.
    process = subprocess.Popen([sys.executable, '-c', _SPIN, str(os.getpid())])
    try:
        time.sleep(0.2)  # Python starts in less
        yield
    finally:
        process.kill()
        process.wait()
