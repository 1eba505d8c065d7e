"""Every pooling in one network: its time, memory and size against average pooling."""

from typing import Any

import timm
from torch import Tensor

from timm_3g.layers.create_pool import POOLS

from ..bench import INFERENCE, Bench
from ..case import Case
from ..plot import draw_section
from ._networks import STEP, inference, loss_of, network_case, random_images, to_device, training_step

# All but the exact estimator, which fits every image in many steps: with 256 channels each takes seconds. See the section fit.
COMPARED = tuple(name for name in POOLS if name != 'mggd')


def measure(bench: Bench) -> list[str]:
    """Count what each network has and keeps, then time its training step and inference."""
    options = bench.options
    networks: dict[str, Any] = {
        name: to_device(timm.create_model(options.model, global_pool=name), bench) for name in ('avg', *COMPARED)
    }
    images, target = random_images(networks['avg'], options.img_size, bench)
    case = network_case(options.model, images, bench)
    with bench.case('poolings', case):
        for name, network in networks.items():
            _count(bench, case, name, network.train(), images, target)
        steps = {name: training_step(network, images, target, bench) for name, network in networks.items()}
        bench.time('poolings', case, STEP, steps, time_over=['avg'])
    for network in networks.values():
        network.zero_grad(set_to_none=True)  # their memory is not part of inference
    with bench.case('poolings', case):
        calls = {name: inference(network.eval(), images, bench) for name, network in networks.items()}
        bench.time('poolings', case, INFERENCE, calls, time_over=['avg'])
    draw_section(bench.report, 'poolings', options.model)
    return [
        'avg: the same backbone with average pooling. time over: above 1 is slower. parameters: of the whole network.',
        'mggd, the exact estimator, is left out: it fits every image in many steps. See the section fit.',
        'Kept: storages that autograd saves, each once, without weights and buffers. MiB per image; 1 MiB = 2^20 bytes.',
    ]


def _count(bench: Bench, case: Case, name: str, network: Any, images: Tensor, target: Tensor) -> None:
    """Rows of the network's size, and of the memory that its training step takes per image."""
    row = ('poolings', case, name, STEP)
    bench.report.add(*row, 'parameters', sum(p.numel() for p in network.parameters()) / 1e6, 'M')
    bench.report.add(*row, 'vector', network.head_hidden_size)
    step = training_step(network, images, target, bench)

    def step_and_clear() -> None:
        step()
        network.zero_grad(set_to_none=True)

    weights = [*network.parameters(), *network.buffers()]
    bench.memory(*row, loss_of(network, images, target, bench), step_and_clear, len(images), weights)
