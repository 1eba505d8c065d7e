"""`timm-3g benchmark`: what second-order pooling costs on this machine, against its textbook forms. Tables, a CSV, pictures."""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch

from timm_3g.benchmarks.case import Bench, create_pool
from timm_3g.benchmarks.fit import measure_fit
from timm_3g.benchmarks.growth import measure_growth
from timm_3g.benchmarks.head import measure_head, measure_memory, measure_reweighting
from timm_3g.benchmarks.model import measure_compile, measure_model, require_second_order
from timm_3g.benchmarks.precision import measure_precision
from timm_3g.benchmarks.report import Report, describe
from timm_3g.benchmarks.rounding import tf32_products

EXAMPLE = """timm-3g benchmark
  timm-3g benchmark --sections head memory --batch-size 8 32 --threads 1 --busy --output benchmark"""

# One place to add a section: it reports rows under its name and returns lines to print below its table. The first line of its
# docstring is its title.
SECTIONS: dict[str, Callable[[Bench], list[str]]] = {
    'head': measure_head,
    'memory': measure_memory,
    'reweight': measure_reweighting,
    'model': measure_model,
    'growth': measure_growth,
    'precision': measure_precision,
    'compile': measure_compile,
    'fit': measure_fit,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb. Without any, everything that this machine can measure, in sizes that suit it."""
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=list(SECTIONS), help='(default: all, in this order)')
    parser.add_argument('--output', type=Path, default=Path('benchmark'), metavar='DIR', help='CSV and pictures (%(default)s)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--threads', type=int, metavar='N', help="of torch on the CPU (default: torch's own choice)")
    parser.add_argument('--runs', type=int, default=15, metavar='N', help='rounds of each comparison at most (15)')
    parser.add_argument('--seconds', type=float, default=60.0, metavar='S', help='of each comparison, if three rounds fit (60)')
    parser.add_argument(
        '--tf32', choices=['on', 'off'], default='on', help="TF32 in float32 products on a GPU, as in timm's scripts (on)"
    )

    head = parser.add_argument_group('head, memory, reweight, precision')
    head.add_argument('--pool', default='3g', metavar='NAME', help='of the covariance, root and triangle (3g)')
    head.add_argument('--dim', type=int, default=256, metavar='N', help='channels (256)')
    head.add_argument('--size', type=int, default=14, metavar='N', help='side of the feature map: N = size^2 positions (14)')
    head.add_argument('--num-iters', type=int, metavar='N', help="steps of the root (default: the pooling's, 5)")
    head.add_argument(
        '--batch-size',
        type=int,
        nargs='+',
        default=[8, 32, 128],
        metavar='N',
        help='images; memory and reweight take the middle one (8 32 128)',
    )
    head.add_argument('--busy', action='store_true', help='head: once more while another process keeps one core busy')

    growth = parser.add_argument_group('growth')
    growth.add_argument('--growth-dims', type=int, nargs='+', default=[64, 128, 256, 512, 1024, 2048], metavar='N', help='d')
    growth.add_argument('--growth-sizes', type=int, nargs='+', default=[7, 14, 28, 56], metavar='N', help='N = size^2')
    growth.add_argument('--growth-batch-size', type=int, metavar='N', help='(default: 4, on a GPU 32)')

    fit = parser.add_argument_group('fit')
    fit.add_argument('--fit-images', type=int, default=256, metavar='N', help='sets of size^2 samples (256)')
    fit.add_argument('--fit-dim', type=int, default=64, metavar='N', help='dimensions (64)')

    model = parser.add_argument_group('model, compile')
    model.add_argument('--model', default='resnet50_3g', metavar='NAME', help='(default: %(default)s)')
    model.add_argument('--img-size', type=int, metavar='N', help="square input (default: the model's, 224)")
    model.add_argument('--batch-size-model', type=int, metavar='N', help='(default: 8, on a GPU 256)')
    model.add_argument(
        '--amp-dtype',
        choices=['none', 'bfloat16', 'float16'],
        help='of autocast; bfloat16 also for reweight (default: none, on a GPU bfloat16)',
    )
    model.add_argument('--channels-last', action=argparse.BooleanOptionalAction, help='(default: on a GPU only)')
    model.add_argument('--compile-model', metavar='NAME', help='(default: resnet18_3g, on a GPU --model)')
    model.add_argument('--compile-img-size', type=int, metavar='N', help='(default: 64, on a GPU --img-size)')
    model.add_argument('--compile-backend', default='inductor', metavar='NAME', help='of torch.compile (inductor)')


def run(args: argparse.Namespace) -> None:
    """Measure section after section; each prints its table and adds to the CSV when it is done."""
    device = complete(args)
    with _settings(args, device):
        report = Report(describe(device, args.tf32), args.output, args.sections)
        bench = Bench(args, device, report)
        print('\n'.join(report.machine.lines()))
        print(
            'Random features, images and weights, seed 0. Forms in turn; ratios: median over rounds of the quotient in a round.'
        )
        for name in args.sections:
            torch.manual_seed(0)
            notes: list[str] = []
            with bench.case(name, 'setup'):  # what no case of the section's own has caught
                notes = SECTIONS[name](bench)
            title = (SECTIONS[name].__doc__ or '').partition('\n')[0]
            print('\n'.join([f'\n{name}: {title}', report.table(name), *notes]), flush=True)
            report.save()
    print(f'\nFigures: {args.output / "benchmark.csv"}; pictures beside it.')


def complete(args: argparse.Namespace) -> torch.device:
    """Check the options, and set those that depend on the device. Returns the device.

    Raises:
        ValueError, TypeError, RuntimeError: an option out of range, a device, pooling or model that is not there.
    """
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        raise ValueError(f'--device must be cpu or cuda; got {args.device!r}.') from error
    if device.type not in ('cpu', 'cuda'):
        raise ValueError(f'--device must be cpu or cuda; got {args.device!r}.')
    if device.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device} needs a GPU, and torch sees none here. Take --device cpu.')
    gpu = device.type == 'cuda'
    if gpu and device.index is None:
        device = torch.device('cuda', torch.cuda.current_device())  # torch.cuda.set_device refuses a device without an index
    defaults = {
        'growth_batch_size': 32 if gpu else 4,
        'batch_size_model': 256 if gpu else 8,
        'amp_dtype': 'bfloat16' if gpu else 'none',
        'channels_last': gpu,
        'compile_model': args.model if gpu else 'resnet18_3g',
        'compile_img_size': args.img_size if gpu else 64,
    }
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name, value in vars(args).items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not isinstance(number, bool) and number <= 0:
                raise ValueError(f'--{name.replace("_", "-")} must be positive; got {number}.')
    create_pool(args.pool, 1, args.num_iters)  # a wrong name is an error now, not after the first section
    if 'model' in args.sections:
        require_second_order(args.model)
    if 'compile' in args.sections and not timm.is_model(args.compile_model):
        raise ValueError(f'--compile-model must be a model of timm or timm_3g; got {args.compile_model!r}.')
    return device


@contextmanager
def _settings(args: argparse.Namespace, device: torch.device) -> Iterator[None]:
    """Threads, TF32 and cuDNN's choice of algorithms by the options, and as they were afterwards."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True  # as timm's scripts
    if device.type == 'cuda':
        torch.cuda.set_device(device)
    try:
        with tf32_products(device, args.tf32 == 'on'):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark
