"""What the sections of a benchmark share: options complete for the device, cases that may run out of memory, timings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .case import Case
from .forms import Form
from .options import AMP_DTYPES, BenchmarkOptions
from .report import Report
from .storage import MIB, kept_bytes, peak_bytes
from .timing import Timing, attempt, is_out_of_memory, paired

OUT_OF_MEMORY = 'out of memory'
TRAINING = 'forward + backward'
INFERENCE = 'forward'


@dataclass
class Bench:
    """A run: its options, the device, the report, and the options that depend on the device."""

    options: BenchmarkOptions
    device: torch.device
    report: Report
    growth_batch_size: int
    fit_images: int
    batch_size_model: int
    amp: str
    channels_last: bool
    compile_model: str
    compile_img_size: int | None

    @classmethod
    def of(cls, options: BenchmarkOptions, device: torch.device, report: Report) -> 'Bench':
        """The bench of these options, with what they leave open set to what suits the device."""
        gpu = device.type == 'cuda'
        return cls(
            options,
            device,
            report,
            growth_batch_size=options.growth_batch_size or (32 if gpu else 4),
            fit_images=options.fit_images or (32 if gpu else 256),
            batch_size_model=options.batch_size_model or (256 if gpu else 8),
            amp=options.amp_dtype or ('bfloat16' if gpu else 'none'),
            channels_last=gpu if options.channels_last is None else options.channels_last,
            compile_model=options.compile_model or (options.model if gpu else 'resnet18_3g'),
            compile_img_size=options.compile_img_size or (options.img_size if gpu else 64),
        )

    @property
    def amp_dtype(self) -> torch.dtype | None:
        """Of autocast. None for no autocast."""
        return AMP_DTYPES[self.amp]

    @property
    def middle_batch(self) -> int:
        """Of the batch sizes, where one is enough."""
        return sorted(self.options.batch_size)[len(self.options.batch_size) // 2]

    def autocast(self) -> AbstractContextManager[object]:
        """By amp_dtype."""
        return nullcontext() if self.amp_dtype is None else torch.autocast(self.device.type, self.amp_dtype)

    def under_autocast(self, form: Form) -> Form:
        """`form` with an autocast of its own around each call: within a longer one, weights are cast once for all calls."""

        def call(x: Tensor) -> Tensor:
            with self.autocast():
                return form(x)

        return call

    @contextmanager
    def case(self, section: str, case: Case) -> Iterator[None]:
        """Too little memory ends this case with a row that says so, and not the run."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.report.fail(section, case, '', '', OUT_OF_MEMORY)
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def memory(
        self,
        section: str,
        case: Case,
        form: str,
        phase: str,
        forward: Callable[[], object],
        step: Callable[[], object],
        samples: int,
        apart_from: Sequence[Tensor],
    ) -> None:
        """Report what a forward keeps for its backward, and on a GPU the peak of forward and backward, in MiB per sample.

        Args:
            section: whose rows they are.
            case: what was measured.
            form: its name.
            phase: training.
            forward: what returns the end of the graph.
            step: forward and backward. It leaves behind what it found: gradients that stay would be missing from the peak.
            samples: how many go through it at once.
            apart_from: weights and buffers, which are not counted as kept.
        """
        kept = attempt(partial(kept_bytes, forward, apart_from))
        if kept is None:
            self.report.fail(section, case, form, phase, OUT_OF_MEMORY)
            return
        self.report.add(section, case, form, phase, 'kept for the backward', kept / samples / MIB, 'MiB')
        if self.device.type == 'cuda':
            peak = attempt(partial(peak_bytes, step, self.device))
            if peak is not None:
                self.report.add(section, case, form, phase, 'peak', peak / samples / MIB, 'MiB')

    def time(
        self,
        section: str,
        case: Case,
        phase: str,
        forms: Mapping[str, Callable[[], object]],
        speed_up_over: Sequence[str] = (),
        time_over: Sequence[str] = (),
    ) -> dict[str, Timing | None]:
        """Time the forms side by side and report median, minimum, interquartile range, rounds, and ratios to some of them.

        Args:
            section: whose rows they are.
            case: what was measured.
            phase: training or inference.
            forms: name -> what to time.
            speed_up_over: forms whose time over this form's is reported: above 1, this one is faster.
            time_over: forms that this form's time is divided by: above 1, this one is slower.
        """
        timings = paired(forms, self.device, self.options.runs, self.options.seconds, f'{section}, {case}, {phase}')
        for form, timing in timings.items():
            if timing is None:
                self.report.fail(section, case, form, phase, OUT_OF_MEMORY)
                continue
            row = (section, case, form, phase)
            self.report.add(*row, 'median', 1e3 * timing.median, 'ms')
            self.report.add(*row, 'min', 1e3 * min(timing.seconds), 'ms')
            self.report.add(*row, 'IQR', 1e3 * timing.spread, 'ms')
            self.report.add(*row, 'rounds', len(timing.seconds))
            for base in speed_up_over:
                if other := timings.get(base):
                    self.report.add(*row, f'speed-up over {base}', other.ratio(timing), 'x')
            for base in time_over:
                if other := timings.get(base):
                    self.report.add(*row, f'time over {base}', timing.ratio(other), 'x')
        return timings
