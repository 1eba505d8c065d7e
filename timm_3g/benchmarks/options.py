"""What a benchmark measures, and on what: its sections and its options."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from timm_3g.utils.options import OptionError

if TYPE_CHECKING:
    from .report import Report

# The one place to add a section, besides its module in `sections/`. The module has a function `measure(bench)`, which adds rows
# to the report and returns lines to print below its table.
SECTIONS = {
    'head': 'Time of covariance, root and triangle: features (B, d, N), float32, to the vector.',
    'memory': 'Memory per sample of covariance, root and triangle, and of re-weighting: what a forward keeps for its backward.',
    'reweight': 'Time of re-weighting, T = 3 blocks of `3g`: features (B, d, H, W) to the same, by memory layout.',
    'model': 'Whole network against the same with average pooling: training step (forward, loss, backward), inference.',
    'poolings': 'Every pooling in one network against average pooling: training step, inference, memory, size.',
    'growth': 'Cost of our covariance, root and triangle over channels d and positions N: '
    'a min(d, N)^3 + b d N min(d, N) + c d^2 + constant.',
    'precision': 'Error of vector and gradient, relative (Frobenius), against the textbook form in float64, by product format.',
    'compile': 'torch.compile of the whole network against eager: graph breaks, seconds of the first call, time of the others.',
    'fit': 'Time of fitting a generalized Gaussian to every image: N = size^2 samples of shape 0.5 in `fit_dim` dimensions.',
}
AMP_DTYPES = {'none': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
SWITCH = ('on', 'off')


@dataclass(frozen=True)
class BenchmarkOptions:
    """The options of `timm_3g.benchmark`. Those that are None by default suit the device.

    Args:
        sections: keys of SECTIONS, in the order to measure them.
        output: folder for benchmark.csv and the pictures. None writes no files.
        device: 'cpu', 'cuda' or 'cuda:N'. None for the GPU if there is one.
        threads: of torch on the CPU. None for torch's own choice.
        runs: rounds of each comparison at most.
        seconds: of each comparison. Three rounds run in any case, or `runs` if that is less.
        tf32: 'on' or 'off': TF32 in float32 products on a GPU. timm's scripts turn it on.
        pool: second-order pooling of head, memory, growth and precision.
        dim: channels d.
        size: side of the feature map, so N = size^2 positions.
        num_iters: steps of the root. None for the pooling's own.
        batch_size: images. Memory and reweight take the middle one.
        busy: measure head once more while another process keeps one core busy.
        growth_dims: channels d at N = 196.
        growth_sizes: sides of the feature map at d = 256.
        growth_batch_size: None for 4, on a GPU 32.
        fit_images: sets of N samples. None for 256, on a GPU 32: it waits for each step of each fit there.
        fit_dim: dimensions of a sample.
        model: a network with second-order pooling.
        img_size: square input. None for the model's own.
        batch_size_model: None for 8, on a GPU 256.
        amp_dtype: 'none', 'bfloat16' or 'float16', of autocast. None for 'none', on a GPU 'bfloat16'.
        channels_last: memory layout of networks. None for channels_last on a GPU only.
        compile_model: None for resnet18_3g, on a GPU `model`.
        compile_img_size: None for 64, on a GPU `img_size`.
        compile_backend: of torch.compile.
        on_progress: is called with the report before the first section and after each one.

    Raises:
        ValueError: a number that is not positive and finite, no value, or an unknown section, device, amp_dtype or tf32.

    >>> BenchmarkOptions(sections=['head'], batch_size=[8, 32]).seconds
    60.0
    >>> BenchmarkOptions(runs=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: runs must be positive; got 0.
    """

    sections: Sequence[str] = tuple(SECTIONS)
    output: Path | str | None = None
    device: str | None = None
    threads: int | None = None
    runs: int = 15
    seconds: float = 60.0
    tf32: str = 'on'
    pool: str = '3g'
    dim: int = 256
    size: int = 14
    num_iters: int | None = None
    batch_size: Sequence[int] = (8, 32, 128)
    busy: bool = False
    growth_dims: Sequence[int] = (64, 128, 256, 512, 1024, 2048)
    growth_sizes: Sequence[int] = (7, 14, 28, 56)
    growth_batch_size: int | None = None
    fit_images: int | None = None
    fit_dim: int = 64
    model: str = 'resnet50_3g'
    img_size: int | None = None
    batch_size_model: int | None = None
    amp_dtype: str | None = None
    channels_last: bool | None = None
    compile_model: str | None = None
    compile_img_size: int | None = None
    compile_backend: str = 'inductor'
    on_progress: 'Callable[[Report], None] | None' = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, (int, float)) and not isinstance(number, bool) and not 0 < number < math.inf:
                    raise OptionError(field.name, f'must be {"positive" if number <= 0 else "finite"}; got {number}.')
            if isinstance(value, (list, tuple)) and not value:
                raise OptionError(field.name, 'must have at least one value; got none.')
        for name, known in (('sections', SECTIONS), ('amp_dtype', AMP_DTYPES), ('tf32', SWITCH)):
            value = getattr(self, name)
            for word in value if isinstance(value, (list, tuple)) else [value]:
                if word is not None and word not in known:
                    raise OptionError(name, f'must be of {", ".join(known)}; got {word!r}.')
        if self.device is not None:
            device_of(self.device)


def device_of(name: str | None) -> torch.device:
    """The device of this name, with its index. None for the GPU if there is one.

    Raises:
        ValueError: neither 'cpu' nor 'cuda', or a GPU that is not there.

    >>> device_of('cpu')
    device(type='cpu')
    """
    name = name or ('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError('device', f'must be cpu or cuda; got {name!r}.') from error
    if device.type not in ('cpu', 'cuda'):
        raise OptionError('device', f'must be cpu or cuda; got {name!r}.')
    if device.type == 'cpu':
        return device
    if not torch.cuda.is_available():
        raise OptionError('device', f'{name} needs a GPU, and torch finds none here. Use cpu.')
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        raise OptionError('device', f'{name} does not exist: there {"is" if count == 1 else "are"} {count}, from cuda:0.')
    return torch.device('cuda', index)  # torch.cuda.set_device and others refuse a GPU without an index
