"""Memory of the parts of the head: what a forward keeps for its backward, and the peak on a GPU."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from ..bench import TRAINING, Bench
from ..case import Case
from ..forms import Form, create_pool, head_forms, random_features, reweighting_forms, training_of
from ..plot import draw_section


def measure(bench: Bench) -> list[str]:
    """Measure covariance, root and triangle, then re-weighting."""
    options = bench.options
    batch, dim, positions = bench.middle_batch, options.dim, options.size**2
    case = Case.of(part='head', batch=batch, dim=dim, positions=positions)
    with bench.case('memory', case):
        pool = create_pool(options.pool, dim, options.num_iters).to(bench.device)
        x = random_features(batch, dim, positions, bench.device)
        for name, form in head_forms(pool).items():
            _add(bench, case, name, form, x, list(pool.buffers()))

    case = Case.of(part='re-weighting', batch=batch, dim=dim, positions=positions)
    with bench.case('memory', case):
        x = random_features(batch, dim, positions, bench.device).unflatten(2, (options.size, options.size))
        for name, module in reweighting_forms(dim, bench.device).items():
            _add(bench, case, name, module, x, [*module.parameters(), *module.buffers()])
    draw_section(bench.report, 'memory', 'memory per sample', 'kept for the backward')
    return ['Kept: storages that autograd saves, each once, without weights and buffers. MiB per sample; 1 MiB = 2^20 bytes.']


def _add(bench: Bench, case: Case, name: str, form: Form, x: Tensor, apart_from: Sequence[Tensor]) -> None:
    forward = partial(form, x.detach().requires_grad_())
    step = training_of(form, x, [t for t in apart_from if t.requires_grad])
    bench.memory('memory', case, name, TRAINING, forward, step, len(x), apart_from)
