"""Whole networks against average pooling and the textbook head, and the share of each part of the head."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import timm
import torch
from timm.utils import reparameterize_model
from torch import Tensor

from ..bench import INFERENCE, Bench
from ..case import Case
from ..forms import Form, inference_of, training_of
from ..plot import draw_section
from ..textbook import TextbookPool2d, has_textbook, has_textbook_reweighting
from ._networks import STEP, inference, network_case, random_images, to_device, training_step


def measure(bench: Bench) -> list[str]:
    """Time a training step and inference of the network, then of the parts of its head."""
    options = bench.options
    ours: Any = timm.create_model(options.model)
    pool = ours.global_pool
    networks = {'avg': timm.create_model(options.model, global_pool='avg'), 'ours': ours}
    if has_textbook(pool) and has_textbook_reweighting(pool):
        networks['textbook'] = deepcopy(ours)
        networks['textbook'].global_pool = TextbookPool2d(networks['textbook'].global_pool)
    for network in networks.values():
        to_device(network, bench)
    images, target = random_images(ours, options.img_size, bench)
    case = network_case(options.model, images, bench)
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
        calls = {name: inference(network, images, bench) for name, network in evaluated.items()}
        timing = bench.time('model', case, INFERENCE, calls, time_over=bases)['ours']
        medians[INFERENCE] = None if timing is None else timing.median
    part = case.with_(part='head')
    for phase, median in medians.items():
        with bench.case('model', part):
            _time_parts(bench, ours, images, part, phase, median)
    draw_section(bench.report, 'model', options.model, keep=lambda row: row.case.get('part') is None)
    return [
        'avg: the same backbone, global_pool=avg. time over: above 1 is slower. of the whole: of the median of ours.',
        'part=head: the parts by themselves, one after the other on the features of this network, not inside a step.',
        "reparameterized: by timm.utils.reparameterize_model, which timm's --reparam calls before inference.",
    ]


def _time_parts(bench: Bench, model: Any, images: Tensor, case: Case, phase: str, whole: float | None) -> None:
    """Time of the parts of the head, each on the output of the part before it; `whole`: seconds of the network."""
    pool = model.global_pool
    model.train(phase == STEP)
    # Under float16 autocast the package runs the head in float32; else its parts up to the features run under autocast.
    half = bench.amp_dtype == torch.float16
    run: Callable[[Form], Form] = (lambda form: form) if half else bench.under_autocast
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
    for name, timing in bench.time('model', case, phase, calls).items():
        if timing is not None and whole is not None:
            bench.report.add('model', case, name, phase, 'of the whole', 100 * timing.median / whole, '%')
