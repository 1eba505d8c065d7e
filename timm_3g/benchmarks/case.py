"""What the sections of `timm-3g benchmark` share: a case that may run out of memory, its timing, features to run on."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from timm_3g.layers import create_global_pool
from timm_3g.layers.create_pool import POOLS

from .report import Report
from .textbook import handwritten, has_textbook, textbook
from .timing import Timing, is_out_of_memory, paired

OUT_OF_MEMORY = 'out of memory'
TRAINING = 'forward + backward'
INFERENCE = 'forward'

Head = Callable[[Tensor], Tensor]


@dataclass
class Bench:
    """A run: its options, checked and complete, the device, and where figures go."""

    args: argparse.Namespace
    device: torch.device
    report: Report

    def autocast(self) -> AbstractContextManager[object]:
        """By --amp-dtype."""
        dtype = self.amp_dtype()
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def amp_dtype(self) -> torch.dtype | None:
        """By --amp-dtype; None for 'none'."""
        return {'none': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}[self.args.amp_dtype]

    def under_autocast(self, form: Head) -> Head:
        """`form` with an autocast of its own around each call: within a longer one, weights are cast once for all calls."""

        def call(x: Tensor) -> Tensor:
            with self.autocast():
                return form(x)

        return call

    @contextmanager
    def case(self, section: str, case: str) -> Iterator[None]:
        """Memory that does not suffice ends this case with a line that says so, and not the run."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self.report.fail(section, case, '', '', OUT_OF_MEMORY)
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def time(
        self,
        section: str,
        case: str,
        phase: str,
        forms: Mapping[str, Callable[[], object]],
        speed_up_over: Sequence[str] = (),
        time_over: Sequence[str] = (),
    ) -> dict[str, Timing | None]:
        """Time the forms side by side and report median, minimum, interquartile range, rounds, and ratios to some of them.

        Args:
            speed_up_over: forms whose time over this form's is reported: above 1, this one is faster.
            time_over: forms that this form's time is divided by: above 1, this one is slower.
        """
        timings = paired(forms, self.device, self.args.runs, self.args.seconds, f'{section}, {case}, {phase}')
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


def random_features(batch: int, dim: int, positions: int, device: torch.device, decaying: bool = False) -> Tensor:
    """Features (B, d, N) as after a ReLU, float32, the same on every device.

    White: ReLU of independent normal numbers. Decaying: ReLU of Q diag(1, 1/2, ..., 1/d) z with z white and Q orthogonal,
    scaled to mean square 1 before the ReLU: the eigenvalues of the covariance fall steeply, as those of trained networks do.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, dim, positions, generator=generator)
    if decaying:
        q, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
        x = (q / torch.arange(1, dim + 1)) @ x
        x = x / x.square().mean().sqrt()
    return x.relu().to(device)


def create_pool(name: str, dim: int, num_iters: int | None, num_reweights: int = 0) -> Any:
    """The pooling of this name without reduction, with so many re-weighting blocks if it can have them.

    Raises:
        TypeError: num_iters for a pooling without steps.
        ValueError: a pooling of first order, or num_iters out of range.
    """
    if name not in POOLS:
        raise ValueError(f'--pool must be a second-order pooling, one of {", ".join(POOLS)}; got {name!r}.')
    options: dict[str, Any] = {} if num_iters is None else {'num_iters': num_iters}
    if 'num_reweights' in POOLS[name].options:
        options['num_reweights'] = num_reweights
    return create_global_pool(name, dim, 0, **options)


def head_forms(pool: Any) -> dict[str, Head]:
    """Features (B, d, N) to the vector: our form last, before it the two textbook forms of the same function, if it has any."""
    forms: dict[str, Head] = {}
    if has_textbook(pool):
        options: dict[str, Any] = {'num_iters': pool.num_iters, 'eps': pool.eps, 'kind': pool.triangle}
        forms['textbook'] = lambda x: textbook(x, **options)
        forms['handwritten'] = lambda x: handwritten(x, **options)
    forms['ours'] = pool.statistic
    return forms


def training_of(form: Head, x: Tensor, parameters: Sequence[Tensor] = ()) -> Callable[[], object]:
    """One forward and backward of `form` at x, with gradients of x and the parameters, from a fixed gradient of the output."""
    x = x.detach().requires_grad_()
    grads: list[Tensor] = []

    def call() -> object:
        out = form(x)
        if not grads:  # not before: here a form that needs too much memory fails by itself, and not the case
            grads.append(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out))
        return torch.autograd.grad(out, [x, *parameters], grads[0])

    return call


def inference_of(form: Head, x: Tensor) -> Callable[[], object]:
    """One forward of `form` at x under inference_mode."""

    def call() -> Tensor:
        with torch.inference_mode():
            return form(x)

    return call
