"""Time of re-weighting by itself."""

import torch
from timm.utils import reparameterize_model

from ..bench import INFERENCE, TRAINING, Bench
from ..case import Case
from ..forms import inference_of, random_features, reweighting_forms, training_of
from ..plot import draw_section

LAYOUTS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


def measure(bench: Bench) -> list[str]:
    """Time three blocks of `3g` by memory layout, with bfloat16 autocast too if that is the amp_dtype."""
    options = bench.options
    batch = bench.middle_batch
    # Not under float16: there the package re-weights in float32.
    for amp in [False, True] if bench.amp_dtype == torch.bfloat16 else [False]:
        for layout, memory_format in LAYOUTS.items():
            case = Case.of(batch=batch, dim=options.dim, size=options.size, layout=layout, amp=bench.amp if amp else None)
            with bench.case('reweight', case):
                x = random_features(batch, options.dim, options.size**2, bench.device).unflatten(
                    2, (options.size, options.size)
                )
                x = x.contiguous(memory_format=memory_format)
                forms = reweighting_forms(options.dim, bench.device)
                modules = {name: module.to(memory_format=memory_format) for name, module in forms.items()}
                run = bench.under_autocast if amp else lambda form: form
                training = {name: training_of(run(m), x, list(m.parameters())) for name, m in modules.items()}
                bench.time('reweight', case, TRAINING, training, speed_up_over=['textbook'])
                for module in modules.values():
                    module.eval()
                modules['ours, reparameterized'] = reparameterize_model(modules['ours'])
                inference = {name: inference_of(run(m), x) for name, m in modules.items()}
                bench.time('reweight', case, INFERENCE, inference, speed_up_over=['textbook'])
    draw_section(bench.report, 'reweight', 're-weighting, T = 3')
    return ["reparameterized: by timm.utils.reparameterize_model, which timm's --reparam calls before inference."]
