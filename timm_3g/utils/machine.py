"""Where, when and with what a benchmark or a run of a study ran."""

import os
import platform
import shlex
import sys
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import timm
import torch

import timm_3g


@dataclass(frozen=True)
class Machine:
    """Where, when and on what something ran. `describe` makes one of this machine.

    >>> import torch
    >>> machine = describe(torch.device('cpu'), 'on')
    >>> machine.device, machine.tf32, machine.torch == torch.__version__
    ('cpu', '', True)
    """

    date: str
    device: str
    cpu: str
    cores: int
    threads: int
    load: str
    python: str
    torch: str
    cuda: str
    tf32: str
    timm: str
    timm_3g: str
    command: str

    def lines(self) -> list[str]:
        """The same as lines to print."""
        load = f', load average {self.load} at the start' if self.load else ''
        return [
            self.command,
            self.date,
            f'device: {self.device}' + (f', TF32 in float32 products: {self.tf32}' if self.tf32 else ''),
            f'CPU: {self.cpu}, {self.cores} cores, {self.threads} torch threads{load}',
            f'Python {self.python}, torch {self.torch}, CUDA {self.cuda or "none"}, timm {self.timm}, timm_3g {self.timm_3g}',
        ]


def describe(device: torch.device, tf32: str) -> Machine:
    """This machine.

    Args:
        device: that is used.
        tf32: 'on' or 'off', of float32 products on a GPU. A CPU has ''.

    >>> describe(torch.device('cpu'), 'on').lines()[2], describe(torch.device('mps'), '').device
    ('device: cpu', 'mps')
    """
    affinity = getattr(os, 'sched_getaffinity', None)  # what a container may use; Linux only
    load = getattr(os, 'getloadavg', None)
    return Machine(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type,
        cpu=_cpu_name(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=f'{load()[0]:.2f}' if load else '',
        python=platform.python_version(),
        torch=torch.__version__,
        cuda=torch.version.cuda or '',
        tf32=tf32 if device.type == 'cuda' else '',
        timm=timm.__version__,
        timm_3g=timm_3g.__version__,
        command=shlex.join(['timm-3g', *sys.argv[1:]]),
    )


def _cpu_name() -> str:
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
