"""One run in a process of its own: train, evaluate, leave the figures. `study` starts it as `python -m timm_3g.studies.job`.

The process that trains holds a lock of its own. So a run whose starter was killed goes on alone, and nobody trains it twice.
The starter holds another: until the new process has imported torch and taken the first, no other starter tries the same run.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import timm.data
import torch
import yaml
from filelock import SoftFileLease, Timeout

import timm_3g
from timm_3g.checkpoints import NotFiniteError, open_weights
from timm_3g.inference import ValidateOptions, validate
from timm_3g.models.loading import create_loaded
from timm_3g.training import prepare_script, read_summary
from timm_3g.utils.files import write_text
from timm_3g.utils.machine import describe

from .results import Figures, read_figures, write_figures
from .run import Run
from .subset import take_fraction

LEASE = 120.0  # seconds without a sign of life after which a run of another machine is taken over. All must agree on it
RESUMED = 1000  # what is added to the seed of an interrupted run, per epoch that is done
TAKEN = 75  # exit code of a process that found the run taken: EX_TEMPFAIL of sysexits.h


@dataclass(frozen=True)
class Job:
    """A run and where it happens. It travels to the process as JSON.

    Attributes:
        run: what to train.
        folder: of the runs: STEM/ is what train.py writes, STEM.json the figures, STEM.lock the lock, STEM.starter.lock that of
            the starter, by `Run.stem`.
        data_dir: an ImageFolder with the splits that the run names.
        config: the study's file.
        timm_scripts: a checkout of timm, or None.
    """

    run: Run
    folder: str
    data_dir: str
    config: str
    timm_scripts: str | None

    def file(self, suffix: str) -> Path:
        """A file of the run: its stem and a suffix."""
        return Path(self.folder, f'{self.run.stem}{suffix}')

    def lock(self) -> SoftFileLease:
        """The lock of the run. It ends with its process, and for other machines after LEASE seconds without a sign of life."""
        return self._lease('.lock', on_compromise=_end)

    def starter_lock(self) -> SoftFileLease:
        """The lock of the process that starts the run. A starter that loses it goes on: the run has a lock of its own."""
        return self._lease('.starter.lock', on_compromise=None)

    def _lease(self, suffix: str, on_compromise: Callable[[object], None] | None) -> SoftFileLease:
        self.file(suffix).parent.mkdir(parents=True, exist_ok=True)
        return SoftFileLease(self.file(suffix), lease_duration=LEASE, on_compromise=on_compromise)

    def start(self) -> 'subprocess.Popen[bytes]':
        """Start the process. What it prints goes to STEM.log."""
        self.file('.log').parent.mkdir(parents=True, exist_ok=True)
        with self.file('.log').open('ab') as log:
            command = [sys.executable, '-m', 'timm_3g.studies.job', json.dumps(asdict(self))]
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)


def _end(compromise: object) -> None:
    """End this process: another one trains the run now."""
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and evaluate one run. Returns 0, or TAKEN if another process has it."""
    parser = argparse.ArgumentParser(prog='python -m timm_3g.studies.job', description=__doc__)
    parser.add_argument('job', help='a Job as JSON')
    fields: dict[str, Any] = json.loads(parser.parse_args(argv).job)
    job = Job(**{**fields, 'run': Run(**fields['run'])})
    lock = job.lock()
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return TAKEN
    try:
        if not read_figures(job.file('.json'), job.run):  # nobody was faster
            write_figures(job.file('.json'), train_and_evaluate(job))
    finally:
        lock.release()
    return 0


def train_and_evaluate(job: Job) -> Figures:
    """The figures of a run. An interrupted one goes on from its last checkpoint.

    Raises:
        RuntimeError: train.py ended before the last epoch. It returns as if all were done where Ctrl-C interrupts it.
    """
    run = job.run
    data = take_fraction(job.data_dir, str(run.options['train_split']), run.fraction, Path(job.folder).parent / 'data')
    write_text(job.file('.yaml'), yaml.safe_dump(dict(run.options), sort_keys=False))
    last = job.file('') / 'last.pth.tar'
    before = _epochs_in(last)
    arguments = ['--config', str(job.file('.yaml')), '--data-dir', str(data), '--output', job.folder, '--experiment', run.stem]
    if before:  # train.py seeds anew: with the seed of the run it would draw again what the first epochs drew
        arguments += ['--resume', str(last), '--seed', str(run.seed + RESUMED * before)]
    start = time.perf_counter()
    prepare_script('train.py', arguments, job.timm_scripts)()
    seconds = time.perf_counter() - start
    device = torch.device(str(run.options.get('device') or ('cuda' if torch.cuda.is_available() else 'cpu')))
    memory = _memory_mib(device)
    if _epochs_in(last) < run.epochs:
        raise RuntimeError(f'train.py ended after {_epochs_in(last)} of {run.epochs} epochs. Start the study again.')
    model, gp = str(run.options['model']), run.options.get('gp')
    more = dict(run.options.get('model_kwargs') or {})
    network = create_loaded(model, last, options={'global_pool': gp, **more})
    held_out = ValidateOptions(
        model,
        checkpoint=last,
        gp=gp,
        model_kwargs=more,
        data_dir=data,
        split=str(run.options['val_split']),
        device=str(device),
        batch_size=int(run.options.get('validation_batch_size') or run.options.get('batch_size') or 128),
        workers=int(run.options.get('workers', 4)),
        channels_last=bool(run.options.get('channels_last', False)),
    )
    test = replace(held_out, split=run.test_split)
    val = _score(held_out)
    tested = _score(test) if run.test_split else None
    corrupted = {name: _score(replace(test, corruption=name)).top1 for name in run.corruptions}
    machine = describe(device, '')
    return Figures(
        sha256=run.sha256,
        val_images=val.images,
        val_top1=val.top1,
        val_top5=val.top5,
        test_images=tested.images if tested else None,
        test_top1=tested.top1 if tested else None,
        test_top5=tested.top5 if tested else None,
        train_loss=round(read_summary(job.file('')).column('train_loss')[-1], 6),
        train_images=_count_images(data, str(run.options['train_split'])),
        param_count=sum(p.numel() for p in network.parameters()),
        seconds_per_epoch=round(seconds / (run.epochs - before), 1) if before < run.epochs else None,
        memory_mib=memory,
        resumed=before > 0,
        device=machine.device,
        cpu=machine.cpu,
        threads=machine.threads,
        torch=machine.torch,
        timm=machine.timm,
        timm_3g=timm_3g.__version__,
        commit=commit_of(Path(job.config).parent),
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        corrupted=corrupted,
    )


def _epochs_in(checkpoint: Path) -> int:
    """How many epochs a checkpoint of train.py has behind it. 0 if there is none."""
    return int(open_weights(checkpoint).record.training['epoch']) + 1 if checkpoint.exists() else 0


def _count_images(data: Path | str | None, split: str) -> int:
    return len(timm.data.create_dataset('', root=str(data), split=split))


class _Score(NamedTuple):
    """Accuracy on a split in percent."""

    images: int
    top1: float
    top5: float


def _score(options: ValidateOptions) -> _Score:
    """What `validate` finds. A network whose training diverged has 0 %: that is a result, and a grid has such points."""
    try:
        found = validate(options)
    except NotFiniteError as error:
        print(f'Counted as 0 %: {error}')
        return _Score(_count_images(options.data_dir, options.split), 0.0, 0.0)
    return _Score(found.images, found.top1, found.top5)


def commit_of(folder: Path) -> str:
    """The git commit of a folder, with '+' after it if tracked files differ. '' outside a repository or without git."""
    command = ['git', '-C', str(folder), 'describe', '--always', '--abbrev=12', '--dirty=+', '--match=']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def _memory_mib(device: torch.device) -> int:
    """The largest memory so far in MiB: PyTorch's on the GPU, else that of this process."""
    if device.type == 'cuda':
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == 'darwin' else 2**10))


if __name__ == '__main__':
    sys.exit(main())
