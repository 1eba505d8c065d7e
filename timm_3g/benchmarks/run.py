"""The benchmark as one function: sections measured one after the other, into a report."""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import timm
import torch

from timm_3g.layers import SecondOrderPool2d
from timm_3g.utils.files import is_own_picture, require_writable_folder
from timm_3g.utils.machine import describe
from timm_3g.utils.options import OptionError, takes_fields_of

from .bench import Bench
from .case import Case
from .forms import create_pool
from .options import BenchmarkOptions, device_of
from .report import Report
from .rounding import tf32_products


@takes_fields_of(BenchmarkOptions)
def benchmark(options: BenchmarkOptions) -> Report:
    """Measure what second-order pooling costs on this machine, against its textbook forms.

    Features, images and weights are random, with seed 0. Forms are timed in turn; a ratio is the median over rounds of the
    quotient within a round. The sections need the extra `demo` (matplotlib and scipy).

    Args:
        options: see BenchmarkOptions. Each field may be given by name.

    Returns:
        The report: `rows` with one figure each (section, case, form, phase, quantity, value, unit), `table(section)` as text.
        With `output`, also benchmark.csv and a picture per section in that folder, written after each section.

    Raises:
        ValueError: an invalid option, an output folder with a CSV of another version.
        FileExistsError: a picture in the output folder that is not ours.
        TypeError: num_iters for a pooling without steps.
        RuntimeError: an unknown model.
        ModuleNotFoundError: the extra is missing.

    >>> report = benchmark(sections=['memory'], device='cpu', pool='isqrt', dim=16, size=4, batch_size=[2])
    >>> [(row.case['part'], row.form) for row in report.values('memory', 'kept for the backward')][:3]
    [('head', 'textbook'), ('head', 'handwritten'), ('head', 'ours')]
    >>> textbook, _, ours = [row.value for row in report.values('memory', 'kept for the backward')][:3]
    >>> ours < textbook / 4
    True
    """
    device = device_of(options.device)
    output = Path(options.output) if options.output else None
    _check(options, device, output)
    measures = {name: importlib.import_module(f'.sections.{name}', __package__).measure for name in options.sections}
    with _settings(options, device):
        report = Report(describe(device, options.tf32), output, options.sections)
        bench = Bench.of(options, device, report)
        if options.on_progress:
            options.on_progress(report)
        for name, measure in measures.items():
            torch.manual_seed(0)
            report.notes[name] = []
            with bench.case(name, Case.of(part='setup')):  # what no case of the section's own has caught
                report.notes[name] = measure(bench)
            if options.on_progress:
                options.on_progress(report)
            report.save()
    return report


def _check(options: BenchmarkOptions, device: torch.device, output: Path | None) -> None:
    """Raise now what would else be raised after a section: an unknown pooling or model, a folder, too few positions."""
    if output:
        require_writable_folder(output)
        for picture in (output / f'{section}.png' for section in options.sections):
            if os.path.lexists(picture) and not is_own_picture(picture):
                raise FileExistsError(f'{picture} is there, and timm_3g did not draw it. Move it, or name another --output.')
    if 'fit' in options.sections and options.size**2 <= options.fit_dim:
        raise OptionError(
            'fit_dim',
            f'must be less than size * size = {options.size**2}, or `fit` not among the sections; got {options.fit_dim}.',
        )
    create_pool(options.pool, 1, options.num_iters)
    if {'model', 'poolings'} & set(options.sections):
        pool = getattr(timm.create_model(options.model, device='meta'), 'global_pool', None)
        if not isinstance(pool, SecondOrderPool2d):
            raise OptionError(
                'model',
                f'must be a network with second-order pooling, e.g. resnet50_3g; {options.model} has '
                f'{getattr(pool, "pool_type", type(pool).__name__)!r}.',
            )
    if 'compile' in options.sections and options.compile_model and not timm.is_model(options.compile_model):
        raise OptionError('compile_model', f'must be a model of timm or timm_3g; got {options.compile_model!r}.')


@contextmanager
def _settings(options: BenchmarkOptions, device: torch.device) -> Iterator[None]:
    """Threads, the current GPU, TF32 and cuDNN's choice of algorithms by the options, and as they were afterwards."""
    threads, cudnn_benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True  # as timm's scripts
    try:
        with torch.cuda.device(device) if device.type == 'cuda' else nullcontext(), tf32_products(device, options.tf32 == 'on'):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = cudnn_benchmark
