"""torch.compile of a whole network against eager."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import timm
import torch
from torch import Tensor, nn

from timm_3g.compat import count_graph_breaks

from ..bench import INFERENCE, Bench
from ..case import Case
from ..plot import draw_section
from ..timing import is_out_of_memory, synchronize
from ._networks import STEP, inference, network_case, random_images, to_device, training_step


def measure(bench: Bench) -> list[str]:
    """Count graph breaks, then time the first call and later ones, of a training step and of inference."""
    name = bench.compile_model
    model: Any = to_device(timm.create_model(name), bench)
    images, target = random_images(model, bench.compile_img_size, bench)
    case = network_case(name, images, bench, bench.options.compile_backend)
    for phase in (STEP, INFERENCE):
        with bench.case('compile', case):
            try:
                _compare(bench, model.train(phase == STEP), images, target, case, phase)
            except RuntimeError as error:  # no compiler on this machine, or a failure of torch's own
                if is_out_of_memory(error):
                    raise
                bench.report.fail('compile', case, 'compiled', phase, f'failed: {str(error).strip().splitlines()[0][:100]}')
    draw_section(bench.report, 'compile', f'{name}, torch.compile')
    return []


def _compare(bench: Bench, model: nn.Module, images: Tensor, target: Tensor, case: Case, phase: str) -> None:
    row = (case, 'compiled', phase)
    torch.compiler.reset()
    with bench.autocast(), nullcontext() if phase == STEP else torch.no_grad():
        breaks = count_graph_breaks(deepcopy(model), images)
    bench.report.add('compile', *row, 'graph breaks', breaks)
    torch.compiler.reset()
    compiled: Any = torch.compile(deepcopy(model), backend=bench.options.compile_backend)
    calls: dict[str, Callable[[], object]] = {}
    for name, network in (('eager', model), ('compiled', compiled)):
        calls[name] = training_step(network, images, target, bench) if phase == STEP else inference(network, images, bench)
    start = time.perf_counter()
    calls['compiled']()
    synchronize(bench.device)
    bench.report.add('compile', *row, 'first call', time.perf_counter() - start, 's')
    bench.time('compile', case, phase, calls, speed_up_over=['eager'])
