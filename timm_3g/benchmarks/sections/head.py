"""Time of the parts of the head by themselves: covariance, root and vector."""

from contextlib import nullcontext

from ..bench import INFERENCE, TRAINING, Bench
from ..case import Case
from ..forms import create_pool, head_forms, inference_of, random_features, training_of
from ..plot import draw_section
from ..rounding import tf32_products
from ..timing import busy_core


def measure(bench: Bench) -> list[str]:
    """Time the forms of the head: with TF32 and without on a GPU, on an idle machine and on a busy one."""
    options = bench.options
    positions = options.size**2
    for tf32 in ('off', 'on') if bench.device.type == 'cuda' else (None,):
        for busy in (False, True) if options.busy else (False,):
            for batch in options.batch_size:
                case = Case.of(batch=batch, dim=options.dim, positions=positions, tf32=tf32, busy=1 if busy else None)
                with (
                    bench.case('head', case),
                    tf32_products(bench.device, tf32 == 'on'),
                    busy_core() if busy else nullcontext(),
                ):
                    forms = head_forms(create_pool(options.pool, options.dim, options.num_iters).to(bench.device))
                    bases = [name for name in forms if name != 'ours']
                    x = random_features(batch, options.dim, positions, bench.device)
                    training = {name: training_of(form, x) for name, form in forms.items()}
                    bench.time('head', case, TRAINING, training, speed_up_over=bases)
                    inference = {name: inference_of(form, x) for name, form in forms.items()}
                    bench.time('head', case, INFERENCE, inference, speed_up_over=bases)
    draw_section(bench.report, 'head', f'{options.pool}: covariance, root, triangle')
    return []
