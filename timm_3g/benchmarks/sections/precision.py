"""What fewer bits in the products cost: relative errors of vector and gradient against float64."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from ..bench import Bench
from ..case import Case
from ..forms import Form, create_pool, head_forms, random_features
from ..plot import Line, Panel, draw_lines
from ..rounding import RoundedProducts, round_bf16, round_fp16, round_tf32, tf32_products

NUM_ITERS = (1, 3, 5, 7, 10, 15, 20)
BATCH = 4
INPUTS = {'white': False, 'decaying': True}
FORMATS: dict[str, Callable[[Tensor], Tensor] | None] = {
    'float32': None,
    'tf32': round_tf32,
    'bf16': round_bf16,
    'fp16': round_fp16,
}
WITHIN = 0.01  # of the closing lines, not of the measurement


def measure(bench: Bench) -> list[str]:
    """Compare both forms in each format with the textbook form in float64, over steps and kinds of features."""
    options = bench.options
    if 'textbook' not in head_forms(create_pool(options.pool, 1, None)):
        return [f'Nothing measured: --pool {options.pool} has no textbook form to compare with; 3g and isqrt have.']
    for kind, decaying in INPUTS.items():
        for num_iters in NUM_ITERS:
            case = Case.of(input=kind, num_iters=num_iters, batch=BATCH, dim=options.dim, positions=options.size**2)
            with bench.case('precision', case):
                x = random_features(BATCH, options.dim, options.size**2, bench.device, decaying)
                forms = head_forms(create_pool(options.pool, options.dim, num_iters).to(bench.device))
                grad = torch.randn(forms['textbook'](x).shape, generator=torch.Generator().manual_seed(1)).to(x)
                exact = _vector_and_gradient(forms['textbook'], x.double(), grad.double())
                for form in ('textbook', 'ours'):
                    for name in FORMATS:
                        with products_in(name, bench.device):
                            found = _vector_and_gradient(forms[form], x, grad)
                        for phase, value, reference in zip(('vector', 'gradient'), found, exact, strict=True):
                            error = float((value.double() - reference).norm() / reference.norm())
                            error = error if math.isfinite(error) else math.inf
                            bench.report.add('precision', case, form, phase, _quantity(name, bench.device), error, 'relative')
    _draw(bench)
    return _reading(bench)


def is_real(name: str, device: torch.device) -> bool:
    """Whether the device itself computes in this format here, without emulation.

    bf16 and fp16 are emulated on a GPU too: the package refuses to multiply covariances in them, so there is no mode to switch
    on. What one would get is the question.
    """
    return FORMATS[name] is None or (name == 'tf32' and device.type == 'cuda')


@contextmanager
def products_in(name: str, device: torch.device) -> Iterator[None]:
    """Meanwhile float32 products run in the format of this name (a key of FORMATS)."""
    rounding = FORMATS[name]
    real = is_real(name, device)
    with tf32_products(device, real and name == 'tf32'), nullcontext() if real or not rounding else RoundedProducts(rounding):
        yield


def _quantity(name: str, device: torch.device) -> str:
    return f'{name}{"" if is_real(name, device) else " emulated"} error'


def _vector_and_gradient(form: Form, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    vector = form(leaf)
    return vector.detach(), torch.autograd.grad(vector, leaf, grad)[0]


def _errors(bench: Bench, name: str, kind: str, form: str, phase: str) -> dict[int, float]:
    """num_iters -> error, where there is one."""
    return {
        row.case['num_iters']: row.value
        for row in bench.report.values('precision', _quantity(name, bench.device))
        if (row.case['input'], row.form, row.phase) == (kind, form, phase)
    }


def _reading(bench: Bench) -> list[str]:
    """What a user takes from the table."""
    lines = [
        f'Most steps of {", ".join(map(str, NUM_ITERS))} up to which vector and gradient stay within {100 * WITHIN:.0f} %:'
    ]
    for kind in INPUTS:
        for form in ('textbook', 'ours'):
            words = []
            for name in FORMATS:
                vector, gradient = (_errors(bench, name, kind, form, phase) for phase in ('vector', 'gradient'))
                most = 'none'
                for num_iters in vector:
                    if max(vector[num_iters], gradient[num_iters]) > WITHIN:
                        break
                    most = str(num_iters)
                words.append(f'{name} {most}')
            lines.append(f'  {kind} features, {form}: {", ".join(words)}')
    return [
        *lines,
        'white: ReLU of normal numbers; decaying: ReLU of Q diag(1, 1/2, ..., 1/d) z, Q orthogonal, z normal, mean square 1.',
        'emulated: the operands of every float32 product are rounded first, the product itself is float32. That holds also for',
        'products that the package computes in full float32 on a GPU, so its TF32 can only be better than the emulated.',
        '"ours" is the form that the package takes on this device with this number of threads; another may round otherwise.',
    ]


def _draw(bench: Bench) -> None:
    """precision.png: errors against num_iters, a panel for each input and quantity; the textbook form dashed."""
    panels = []
    for kind in INPUTS:
        for phase in ('vector', 'gradient'):
            lines = {}
            for form in ('ours', 'textbook'):
                for name in FORMATS:
                    errors = {k: e for k, e in _errors(bench, name, kind, form, phase).items() if math.isfinite(e)}
                    lines[f'{name}, {form}'] = Line(list(errors), list(errors.values()), dashed=form == 'textbook')
            panels.append(Panel(f'{phase}, {kind} features', 'num_iters', 'relative error', lines))
    draw_lines(bench.report, 'precision', panels, log_x=False)
