"""Time and memory of the parts of the head by themselves: covariance, root and vector; re-weighting."""

import weakref
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from timm.utils import reparameterize_model
from torch import Tensor, nn

from .case import INFERENCE, OUT_OF_MEMORY, TRAINING, Bench, create_pool, head_forms, inference_of, random_features, training_of
from .plot import draw_bars
from .rounding import tf32_products
from .textbook import TextbookReweighting
from .timing import attempt, busy_core, synchronize

MIB = 2**20


def measure_head(bench: Bench) -> list[str]:
    """Time of covariance, root and triangle: features (B, d, N), float32, to the vector."""
    args = bench.args
    for tf32 in ('off', 'on') if bench.device.type == 'cuda' else ('',):
        for busy in (False, True) if args.busy else (False,):
            for batch in args.batch_size:
                case = f'batch={batch} dim={args.dim} positions={args.size**2}'
                case += (f' tf32={tf32}' if tf32 else '') + (' busy=1' if busy else '')
                with (
                    bench.case('head', case),
                    tf32_products(bench.device, tf32 == 'on'),
                    busy_core() if busy else nullcontext(),
                ):
                    forms = head_forms(create_pool(args.pool, args.dim, args.num_iters).to(bench.device))
                    bases = [name for name in forms if name != 'ours']
                    x = random_features(batch, args.dim, args.size**2, bench.device)
                    training = {name: training_of(form, x) for name, form in forms.items()}
                    bench.time('head', case, TRAINING, training, speed_up_over=bases)
                    inference = {name: inference_of(form, x) for name, form in forms.items()}
                    bench.time('head', case, INFERENCE, inference, speed_up_over=bases)
    _draw(bench, 'head', 'median', f'{args.pool}: covariance, root, triangle')
    return []


def measure_memory(bench: Bench) -> list[str]:
    """Memory a sample of covariance, root and triangle, and of re-weighting: what a forward keeps for its backward."""
    args = bench.args
    batch = _middle(args.batch_size)
    case = f'part=head batch={batch} dim={args.dim} positions={args.size**2}'
    with bench.case('memory', case):
        pool = create_pool(args.pool, args.dim, args.num_iters).to(bench.device)
        x = random_features(batch, args.dim, args.size**2, bench.device)
        for name, form in head_forms(pool).items():
            _report_memory(bench, case, name, form, x, list(pool.buffers()))

    case = f'part=re-weighting batch={batch} dim={args.dim} positions={args.size**2}'
    with bench.case('memory', case):
        x = random_features(batch, args.dim, args.size**2, bench.device).unflatten(2, (args.size, args.size))
        for name, module in _reweightings(bench).items():
            _report_memory(bench, case, name, module, x, [*module.parameters(), *module.buffers()])
    _draw(bench, 'memory', 'kept for the backward', 'memory a sample')
    return ['Kept: storages that autograd saves, each once, without weights and buffers. MiB a sample; 1 MiB = 2^20 bytes.']


def measure_reweighting(bench: Bench) -> list[str]:
    """Time of re-weighting, T = 3 blocks of `3g`: features (B, d, H, W) to the same, by memory layout."""
    args = bench.args
    batch = _middle(args.batch_size)
    layouts = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
    # Not under float16: there the package re-weights in float32.
    for amp in [False, True] if bench.amp_dtype() == torch.bfloat16 else [False]:
        for layout, memory_format in layouts.items():
            case = f'batch={batch} dim={args.dim} size={args.size} layout={layout}' + (f' amp={args.amp_dtype}' if amp else '')
            with bench.case('reweight', case):
                x = random_features(batch, args.dim, args.size**2, bench.device).unflatten(2, (args.size, args.size))
                x = x.contiguous(memory_format=memory_format)
                modules = {k: m.to(memory_format=memory_format) for k, m in _reweightings(bench).items()}
                run = bench.under_autocast if amp else lambda form: form
                training = {k: training_of(run(m), x, list(m.parameters())) for k, m in modules.items()}
                bench.time('reweight', case, TRAINING, training, speed_up_over=['textbook'])
                for module in modules.values():
                    module.eval()
                modules['ours, reparameterized'] = reparameterize_model(modules['ours'])
                inference = {k: inference_of(run(m), x) for k, m in modules.items()}
                bench.time('reweight', case, INFERENCE, inference, speed_up_over=['textbook'])
    _draw(bench, 'reweight', 'median', 're-weighting, T = 3')
    return ["reparameterized: by timm.utils.reparameterize_model, what timm's --reparam does before inference."]


class _Refine(nn.Module):
    """The re-weighting of a pooling as a module of its own."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool.refine(x)


def _reweightings(bench: Bench) -> dict[str, Any]:
    """Both forms with the same weights, in training mode."""
    pool = create_pool('3g', bench.args.dim, None, num_reweights=3).to(bench.device)
    return {'textbook': TextbookReweighting(pool), 'ours': _Refine(pool)}


def _middle(batches: Sequence[int]) -> int:
    return sorted(batches)[len(batches) // 2]


def kept_bytes(call: Callable[[], object], apart_from: Sequence[Tensor] = ()) -> int:
    """Bytes that the autograd graph of what `call` returns holds: storages whole, each once, those of `apart_from` left out."""
    saved: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        held = tensor.detach()  # an object that the graph alone keeps: what it gives up before the end is not counted
        saved.append(weakref.ref(held))
        return held

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    storages = [tensor.untyped_storage() for ref in saved if (tensor := ref()) is not None]
    del result
    bytes_at = {storage.data_ptr(): storage.nbytes() for storage in storages}
    for tensor in apart_from:
        bytes_at.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(bytes_at.values())


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most that a GPU allocated during `call`, above what was allocated before."""
    call()  # cuBLAS and cuDNN allocate workspaces once
    synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def _report_memory(
    bench: Bench, case: str, name: str, form: Callable[[Tensor], Tensor], x: Tensor, apart_from: Sequence[Tensor]
) -> None:
    leaf = x.detach().requires_grad_()
    kept = attempt(partial(kept_bytes, partial(form, leaf), apart_from))
    if kept is None:
        bench.report.fail('memory', case, name, TRAINING, OUT_OF_MEMORY)
        return
    bench.report.add('memory', case, name, TRAINING, 'kept for the backward', kept / len(x) / MIB, 'MiB')
    if bench.device.type == 'cuda':
        parameters = [t for t in apart_from if t.requires_grad]
        peak = attempt(partial(peak_bytes, training_of(form, x, parameters), bench.device))
        if peak is not None:
            bench.report.add('memory', case, name, TRAINING, 'peak', peak / len(x) / MIB, 'MiB')


def _draw(bench: Bench, section: str, quantity: str, title: str) -> None:
    if rows := bench.report.values(section, quantity):
        draw_bars(rows, f'{title} ({bench.report.machine.device})', bench.args.output / f'{section}.png')
