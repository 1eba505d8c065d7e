"""Whole networks: against average pooling, against the textbook head, and compiled against eager."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import timm
import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.layers import SecondOrderPool2d

from .case import INFERENCE, Bench, Head, inference_of, training_of
from .plot import draw_bars
from .textbook import TextbookPool2d, has_textbook, has_textbook_reweighting
from .timing import is_out_of_memory, synchronize

STEP = 'training step'


def measure_model(bench: Bench) -> list[str]:
    """Whole network against the same with average pooling: training step (forward, cross-entropy, backward) and inference."""
    args = bench.args
    ours: Any = timm.create_model(args.model)
    pool = ours.global_pool
    networks = {'avg': timm.create_model(args.model, global_pool='avg'), 'ours': ours}
    if has_textbook(pool) and has_textbook_reweighting(pool):
        networks['textbook'] = deepcopy(ours)
        networks['textbook'].global_pool = TextbookPool2d(networks['textbook'].global_pool)
    for network in networks.values():
        _to(network, bench)
    images, target = _images(ours, args.img_size, bench)
    case = _case(args.model, images, bench)
    bases = [name for name in ('avg', 'textbook') if name in networks]
    medians: dict[str, float | None] = {}
    with bench.case('model', case):
        steps = {name: training_step(network.train(), images, target, bench) for name, network in networks.items()}
        timing = bench.time('model', case, STEP, steps, time_over=bases)['ours']
        medians[STEP] = None if timing is None else timing.median
    for network in networks.values():
        network.zero_grad(set_to_none=True)  # their memory is not part of inference
    with bench.case('model', case):
        evaluated = {name: network.eval() for name, network in networks.items()}
        evaluated['ours, reparameterized'] = reparameterize_model(ours)
        calls = {name: _inference(network, images, bench) for name, network in evaluated.items()}
        timing = bench.time('model', case, INFERENCE, calls, time_over=bases)['ours']
        medians[INFERENCE] = None if timing is None else timing.median
    for phase, median in medians.items():
        with bench.case('model', f'{case} part=head'):
            _split(bench, ours, images, case, phase, median)
    if rows := [row for row in bench.report.values('model', 'median') if 'part=' not in row.case]:
        draw_bars(rows, f'{args.model} ({bench.report.machine.device})', args.output / 'model.png')
    return [
        'avg: the same backbone, global_pool=avg. time over: above 1 is slower. of the whole: of the median of ours.',
        'part=head: the parts by themselves, one after the other on the features of this network, not inside a step.',
        "reparameterized: by timm.utils.reparameterize_model, what timm's --reparam does before inference.",
    ]


def require_second_order(name: str) -> None:
    """Raises RuntimeError unless timm knows this model, ValueError unless its pooling is of this package."""
    pool = getattr(timm.create_model(name, device='meta'), 'global_pool', None)
    if not isinstance(pool, SecondOrderPool2d):
        raise ValueError(
            f'--model must be a network with second-order pooling, e.g. resnet50_3g; {name} has '
            f'{getattr(pool, "pool_type", type(pool).__name__)!r}.'
        )


def training_step(model: nn.Module, images: Tensor, target: Tensor, bench: Bench) -> Callable[[], None]:
    """Gradients to None, forward, cross-entropy, backward. No optimizer: it is the same for every head but for its weights."""

    def step() -> None:
        model.zero_grad(set_to_none=True)
        with bench.autocast():
            loss = F.cross_entropy(model(images), target)
        loss.backward()

    return step


def _inference(model: nn.Module, images: Tensor, bench: Bench) -> Callable[[], object]:
    return inference_of(bench.under_autocast(model), images)


def _to(model: nn.Module, bench: Bench) -> nn.Module:
    layout = torch.channels_last if bench.args.channels_last else torch.contiguous_format
    return model.to(bench.device, memory_format=layout)  # type: ignore[call-overload]


def _images(model: Any, img_size: int | None, bench: Bench) -> tuple[Tensor, Tensor]:
    """Random images (B, C, H, W) and labels (B,), the same on every device."""
    channels, height, width = model.pretrained_cfg['input_size']
    height, width = (img_size, img_size) if img_size else (height, width)
    generator = torch.Generator().manual_seed(0)
    batch = bench.args.batch_size_model
    images = torch.randn(batch, channels, height, width, generator=generator).to(bench.device)
    layout = torch.channels_last if bench.args.channels_last else torch.contiguous_format
    target = torch.randint(model.num_classes, (batch,), generator=generator)
    return images.contiguous(memory_format=layout), target.to(bench.device)


def _case(model: str, images: Tensor, bench: Bench) -> str:
    layout = 'channels_last' if bench.args.channels_last else 'contiguous'
    return f'model={model} batch={len(images)} img_size={images.shape[-1]} amp={bench.args.amp_dtype} layout={layout}'


def _split(bench: Bench, model: Any, images: Tensor, case: str, phase: str, whole: float | None) -> None:
    """Time of the parts of the head, each on what the part before it gave; `whole`: seconds of the network."""
    pool = model.global_pool
    model.train(phase == STEP)
    # Under float16 autocast the package runs the head in float32; else its parts up to the features run under autocast.
    half = bench.amp_dtype() == torch.float16
    run: Callable[[Head], Head] = (lambda form: form) if half else bench.under_autocast
    with torch.no_grad(), bench.autocast():
        features = model.forward_features(images)
    features = features.float() if half else features
    classifier = model.get_classifier()
    parts = {
        'reduce': (run(pool.reduce), list(pool.reduce.parameters())),
        're-weighting': (run(pool.refine), list(pool.reweight.parameters()) if hasattr(pool, 'reweight') else []),
        'covariance, root, triangle': (lambda x: pool.statistic(x.flatten(2).float()).to(features.dtype), []),
        'classifier': (run(classifier), list(classifier.parameters())),
    }
    calls = {}
    x = features
    for name, (function, parameters) in parts.items():
        calls[name] = training_of(function, x, parameters) if phase == STEP else inference_of(function, x)
        with torch.no_grad():
            x = function(x)
    for name, timing in bench.time('model', f'{case} part=head', phase, calls).items():
        if timing is not None and whole is not None:
            bench.report.add('model', f'{case} part=head', name, phase, 'of the whole', 100 * timing.median / whole, '%')


def measure_compile(bench: Bench) -> list[str]:
    """torch.compile of the whole network against eager: graph breaks, seconds of the first call, time of the calls after it."""
    args = bench.args
    model: Any = _to(timm.create_model(args.compile_model), bench)
    images, target = _images(model, args.compile_img_size, bench)
    case = f'{_case(args.compile_model, images, bench)} backend={args.compile_backend}'
    for phase in (STEP, INFERENCE):
        with bench.case('compile', case):
            try:
                _compare_compiled(bench, model.train(phase == STEP), images, target, case, phase)
            except RuntimeError as error:  # no compiler on this machine, or torch's own failure: the user's to know
                if is_out_of_memory(error):
                    raise
                bench.report.fail('compile', case, 'compiled', phase, f'failed: {str(error).strip().splitlines()[0][:100]}')
    if rows := bench.report.values('compile', 'median'):
        draw_bars(rows, f'{args.compile_model}, torch.compile ({bench.report.machine.device})', args.output / 'compile.png')
    return []


def _compare_compiled(bench: Bench, model: nn.Module, images: Tensor, target: Tensor, case: str, phase: str) -> None:
    row = (case, 'compiled', phase)
    torch._dynamo.reset()
    with bench.autocast(), nullcontext() if phase == STEP else torch.no_grad():
        explained = torch._dynamo.explain(deepcopy(model))(images)
    bench.report.add('compile', *row, 'graph breaks', explained.graph_break_count)
    torch._dynamo.reset()
    compiled: Any = torch.compile(deepcopy(model), backend=bench.args.compile_backend)
    calls: dict[str, Callable[[], object]] = {}
    for name, network in (('eager', model), ('compiled', compiled)):
        calls[name] = training_step(network, images, target, bench) if phase == STEP else _inference(network, images, bench)
    start = time.perf_counter()
    calls['compiled']()
    synchronize(bench.device)
    bench.report.add('compile', *row, 'first call', time.perf_counter() - start, 's')
    bench.time('compile', case, phase, calls, speed_up_over=['eager'])
