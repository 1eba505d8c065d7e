"""`timm-3g benchmark`: the forms it compares with are right, what it counts is right, every section runs. Never a time."""

import csv
import io
import math
import subprocess
from contextlib import redirect_stdout

import numpy as np
import pytest
import reference
import timm
import torch
from common import EXACT, FLOAT32, SMALL, create_global_pool, features

from timm_3g.benchmarks import SECTIONS, BenchmarkOptions, Case, Report, benchmark
from timm_3g.benchmarks.bench import Bench
from timm_3g.benchmarks.options import device_of
from timm_3g.benchmarks.rounding import RoundedProducts, round_bf16, round_fp16, round_tf32, tf32_products
from timm_3g.benchmarks.sections.fit import plain_fixed_point
from timm_3g.benchmarks.sections.growth import fit_growth, predict
from timm_3g.benchmarks.sections.poolings import _count
from timm_3g.benchmarks.sections.precision import is_real, products_in
from timm_3g.benchmarks.storage import kept_bytes
from timm_3g.benchmarks.textbook import (
    TextbookPool2d,
    TextbookReweighting,
    handwritten,
    has_textbook,
    has_textbook_reweighting,
    textbook,
)
from timm_3g.benchmarks.timing import Timing, attempt, busy_core, is_out_of_memory, paired
from timm_3g.layers.create_pool import POOLS
from timm_3g.mggd import fit_mggd
from timm_3g.utils.machine import describe
from timm_3g_cli import main

CPU = torch.device('cpu')
TRIANGLES = {'lower': reference.lower, 'upper': reference.upper}
TINY = ['--dim', '6', '--size', '3', '--batch-size', '2', '3', '--device', 'cpu', '--runs', '2', '--seconds', '0.01']
NETWORK = ['--model', SMALL, '--compile-model', SMALL, '--compile-img-size', '32', '--compile-backend', 'eager']
GROWTH = ['--growth-dims', '4', '8', '--growth-sizes', '2', '3']
TINY += [*NETWORK, *GROWTH, '--batch-size-model', '2', '--growth-batch-size', '2', '--fit-images', '3', '--fit-dim', '2']


QUICK = [section for section in SECTIONS if section != 'compile']


def vector_and_gradient(form, x, grad):
    x = x.detach().requires_grad_()
    vector = form(x)
    return vector.detach(), torch.autograd.grad(vector, x, grad.to(x.dtype))[0]


# The textbook forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', TRIANGLES)
@pytest.mark.parametrize('form', [textbook, handwritten])
def test_forms_agree_with_the_reference(form, kind):
    x = features(3, 7, 2, 5, dtype=torch.float64).flatten(2)
    roots = [reference.newton_schulz_by_eigenvalues(reference.covariance(i, eps=1e-3), 4) for i in x.numpy()]
    expected = [TRIANGLES[kind](root) for root in roots]
    torch.testing.assert_close(form(x, 4, 1e-3, kind), torch.from_numpy(np.stack(expected)), **EXACT)


@pytest.mark.parametrize('num_iters', [1, 2, 3, 5, 7])
@pytest.mark.parametrize('n', [5, 12])
def test_handwritten_gradient_is_that_of_autograd(num_iters, n):
    """In float64 to rounding; in float32 to its bound."""
    x = features(2, 8, 1, n, dtype=torch.float64).flatten(2)
    grad = torch.randn(2, 36, dtype=torch.float64)
    exact = vector_and_gradient(lambda x: textbook(x, num_iters, 1e-3, 'lower'), x, grad)
    for dtype, tolerance in ((torch.float64, EXACT), (torch.float32, FLOAT32)):
        found = vector_and_gradient(lambda x: handwritten(x, num_iters, 1e-3, 'lower'), x.to(dtype), grad)
        for value, expected in zip(found, exact, strict=True):
            torch.testing.assert_close(value.double(), expected, **tolerance)


@pytest.mark.parametrize('pool_type', ['3g', 'isqrt'])
def test_forms_are_our_function(pool_type):
    pool = create_global_pool(pool_type, 8, 0).double()
    assert has_textbook(pool)
    x = features(2, 8, 4, 5, dtype=torch.float64).flatten(2)
    grad = torch.randn(2, 36, dtype=torch.float64)
    ours = vector_and_gradient(pool.statistic, x, grad)
    theirs = vector_and_gradient(lambda x: textbook(x, pool.num_iters, pool.eps, pool.triangle), x, grad)
    for value, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(value, expected, **EXACT)


@pytest.mark.parametrize('pool_type, options', [('mpn', {}), ('cov', {}), ('g2de', {}), ('isqrt', {'centered': False})])
def test_other_functions_have_no_textbook_form(pool_type, options):
    assert not has_textbook(create_global_pool(pool_type, 8, 0, **options))


@pytest.mark.parametrize('pool_type, options', [('urm_v1', {}), ('urm_v2', {}), ('3g', {'reweight_beta': 0.5})])
def test_other_reweightings_have_no_textbook_form(pool_type, options):
    assert has_textbook_reweighting(create_global_pool('3g', 8, 0))
    assert has_textbook_reweighting(create_global_pool('isqrt', 8, 0))
    assert not has_textbook_reweighting(create_global_pool(pool_type, 8, 0, **options))


@pytest.mark.parametrize('training', [True, False])
def test_textbook_reweighting_is_ours(training):
    pool = create_global_pool('3g', 8, 0).double().train(training)
    for name, buffer in pool.named_buffers():  # not the 0 and 1 that a mistake would not show with
        if name.endswith('running_mean'):
            buffer.normal_()
        elif name.endswith('running_var'):
            buffer.uniform_(0.5, 2.0)
    chain = TextbookReweighting(pool)
    x = features(3, 8, 4, 4, dtype=torch.float64)
    grad = torch.randn_like(x)
    for value, expected in zip(vector_and_gradient(pool.refine, x, grad), vector_and_gradient(chain, x, grad), strict=True):
        torch.testing.assert_close(value, expected, **EXACT)
    ours, theirs = dict(pool.reweight.named_parameters()), dict(chain.blocks.named_parameters())
    assert ours.keys() == theirs.keys()
    pool.refine(x).backward(grad)
    chain(x).backward(grad)
    for name in ours:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, **EXACT)


def test_textbook_head_gives_the_logits_of_the_model():
    model = timm.create_model(SMALL, bn_eps=1e-3).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = model(images)
    model.float()
    model.global_pool = TextbookPool2d(model.global_pool)
    torch.testing.assert_close(model(images.float()).double(), expected, **FLOAT32)
    with torch.autocast('cpu', torch.bfloat16):
        assert model(images.float()).isfinite().all()


# Formats --------------------------------------------------------------------------------------------------------------


def test_tf32_keeps_ten_bits_and_rounds_to_even():
    ulp = 2.0**-10
    pairs = {
        1.0: 1.0,
        1.0 + ulp: 1.0 + ulp,
        1.0 + ulp / 2: 1.0,  # a tie: 1 is even
        1.0 + 3 * ulp / 2: 1.0 + 2 * ulp,  # a tie: up to even
        1.0 + ulp / 2 + 2.0**-23: 1.0 + ulp,
        1.0 + ulp / 2 - 2.0**-23: 1.0,
        -(1.0 + 3 * ulp / 2): -(1.0 + 2 * ulp),
        2.0 - 2.0**-23: 2.0,  # the carry runs into the exponent
        3.4028234663852886e38: math.inf,
        math.inf: math.inf,
        -math.inf: -math.inf,
        0.0: 0.0,
    }
    assert round_tf32(torch.tensor([*pairs])).tolist() == [*pairs.values()]
    assert round_tf32(torch.tensor(math.nan)).isnan()
    bits = torch.tensor([0x3F80_1000, 0x3F80_3000, 0x3F80_1001], dtype=torch.int32)
    rounded = round_tf32(bits.view(torch.float32)).view(torch.int32)
    assert rounded.tolist() == [0x3F80_0000, 0x3F80_4000, 0x3F80_2000]
    assert round_tf32(torch.randn(4, 3).t()).shape == (3, 4)


def test_tf32_lies_between_float16_and_float32():
    """float16 has the same bits between 2^-14 and 65504: there the two agree."""
    x = torch.randn(10_000).clamp_min(2.0**-14)
    assert torch.equal(round_tf32(x), round_fp16(x))
    assert torch.equal(round_fp16(x), x.half().float()) and torch.equal(round_bf16(x), x.bfloat16().float())
    assert round_fp16(torch.tensor(65520.0)).isinf()


@pytest.mark.parametrize('product', ['mm', 'bmm', 'matmul', 'baddbmm', 'baddbmm_', 'addmm', '@', 'linear'])
@pytest.mark.parametrize('inference', [True, False])
def test_operands_of_products_are_rounded_and_nothing_else(product, inference):
    a, b = torch.randn(3, 4, 4), torch.randn(3, 4, 4)
    call = {
        'mm': lambda a, b, c: a[0].mm(b[0]),
        'bmm': lambda a, b, c: a.bmm(b),
        'matmul': lambda a, b, c: torch.matmul(a, b),
        'baddbmm': lambda a, b, c: torch.baddbmm(c, a, b, alpha=2.0),
        'baddbmm_': lambda a, b, c: c.clone().baddbmm_(a, b),
        'addmm': lambda a, b, c: torch.addmm(c[0], a[0], b[0]),
        '@': lambda a, b, c: a @ b,
        'linear': lambda a, b, c: torch.nn.functional.linear(a[0], b[0].t().contiguous()),
    }[product]
    c = torch.randn(3, 4, 4)
    with torch.inference_mode(inference):
        with RoundedProducts(round_bf16):
            found = call(a, b, c)
        assert torch.equal(found, call(round_bf16(a), round_bf16(b), c))
        assert not torch.equal(found, call(a, b, c))
        with RoundedProducts(round_bf16):
            assert torch.equal(a + b, b + a) and torch.equal(a * 1.0, a)
            assert torch.equal(a.double() @ b.double(), torch.bmm(a.double(), b.double()))


def test_products_of_a_backward_are_rounded():
    a, b = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4)
    grad = torch.randn(4, 4)
    with RoundedProducts(round_bf16):
        (found,) = torch.autograd.grad(a @ b, a, grad)
    assert torch.equal(found, round_bf16(grad) @ round_bf16(b).t())


def test_tf32_of_a_gpu_is_switched_and_put_back():
    matmul, gpu = torch.backends.cuda.matmul, torch.device('cuda')
    before = matmul.fp32_precision
    with tf32_products(CPU, True):
        assert matmul.fp32_precision == before
    with tf32_products(gpu, True):
        assert matmul.fp32_precision == 'tf32' and matmul.allow_tf32  # neither of the two switches contradicts the other
        with products_in('float32', gpu), products_in('bf16', gpu):
            assert matmul.fp32_precision == 'ieee'
        with products_in('tf32', gpu):
            assert matmul.fp32_precision == 'tf32' and is_real('tf32', gpu) and not is_real('tf32', CPU)
    assert matmul.fp32_precision == before and not matmul.allow_tf32


# What is counted ------------------------------------------------------------------------------------------------------


def test_kept_bytes():
    x = torch.randn(10, 10, requires_grad=True)
    weight = torch.randn(10, 10, requires_grad=True)
    assert kept_bytes(lambda: x + 1.0) == 0
    assert kept_bytes(lambda: x.exp()) == 400  # its result
    assert kept_bytes(lambda: x * x) == 400  # the same storage twice
    assert kept_bytes(lambda: x[:5].t() * x[5:].t()) == 400  # two views of one storage
    assert kept_bytes(lambda: x @ weight) == 800
    assert kept_bytes(lambda: x @ weight, apart_from=[weight]) == 400
    assert kept_bytes(lambda: (x.exp(), x.sin())[0]) == 400  # what nobody holds is not kept
    assert kept_bytes(lambda: x.detach().exp()) == 0


def test_the_peak_of_a_network_has_its_gradients(monkeypatch):
    """A step that finds those of the step before frees them first: as many bytes would be missing."""
    model, left = timm.create_model(SMALL), []

    def peak_bytes(step, device):
        step()
        left.extend(parameter.grad for parameter in model.parameters())
        return 4 * 2**20

    monkeypatch.setattr('timm_3g.benchmarks.bench.peak_bytes', peak_bytes)
    options = BenchmarkOptions(amp_dtype='none')
    bench = Bench.of(options, torch.device('cuda'), Report(describe(CPU, '')))
    _count(bench, Case(), '3g', model, torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    assert left and all(gradient is None for gradient in left)
    assert [row.value for row in bench.report.values('poolings', 'peak')] == [2.0]  # MiB per image


def test_growth_is_fitted():
    sizes = [(64, 196), (128, 196), (256, 196), (512, 196), (256, 49), (256, 784)]

    def times(a, b, c, e):
        return {(d, n): a * min(d, n) ** 3 + b * d * n * min(d, n) + c * d * d + e for d, n in sizes}

    for prices in (
        (2e-12, 3e-12, 4e-9, 5e-5),
        (1e-9, 0.0, 0.0, 0.0),
        (0.0, 1e-9, 0.0, 0.0),
        (1e-12, 0.0, 1e-8, 0.0),
        (0.0, 0.0, 0.0, 1e-3),
    ):
        assert fit_growth(times(*prices)) == pytest.approx(prices, rel=1e-9, abs=1e-18)
        assert predict(times(*prices), prices) == times(*prices)
    assert fit_growth(times(2e-12, 3e-12, 0.0, 0.0), terms=2) == pytest.approx((2e-12, 3e-12), rel=1e-9)
    # Follows no term, least the steps: still none has a negative price.
    assert min(fit_growth({size: 1.0 / size[0] for size in sizes})) >= 0.0


def test_timing():
    timing = Timing([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (timing.median, timing.spread, Timing([1.0]).spread) == (3.0, 2.0, 0.0)
    # The quotient of a round, not of the medians: 6 / 3, 2 / 1, 4 / 2, 1 / 5, 8 / 4.
    assert Timing([6.0, 2.0, 4.0, 1.0, 8.0]).ratio(timing) == 2.0


def test_forms_are_timed_in_turn():
    calls = []

    def form(name):
        return lambda: calls.append(name) or torch.ones(400, 400).exp().sum()

    result = paired({'a': form('a'), 'b': form('b')}, CPU, runs=4, seconds=1e9)
    assert all(len(timing.seconds) == 4 and min(timing.seconds) > 0 for timing in result.values())
    timed = calls[calls.index('b') + 2 :]  # after two calls of each
    turns = [name for i, name in enumerate(timed) if i == 0 or timed[i - 1] != name]
    assert turns == ['a', 'b', 'a', 'b', 'a'] and calls[:2] == ['a', 'a']
    assert len(paired({'a': form('a')}, CPU, runs=9, seconds=0.0)['a'].seconds) == 3
    assert len(paired({'a': form('a')}, CPU, runs=1, seconds=0.0)['a'].seconds) == 1


def test_a_form_without_memory_leaves_the_others():
    def too_much():
        torch.empty(2**50)

    def wrong():
        raise RuntimeError('something else')

    assert attempt(too_much) is None and attempt(lambda: 5) == 5
    result = paired({'big': too_much, 'small': lambda: torch.ones(9)}, CPU, runs=2, seconds=1.0)
    assert result['big'] is None and len(result['small'].seconds) == 2
    assert paired({'big': too_much}, CPU, runs=2, seconds=1.0) == {'big': None}
    with pytest.raises(RuntimeError, match='something else'):
        paired({'wrong': wrong}, CPU, runs=2, seconds=1.0)


def test_busy_core_ends(monkeypatch):
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *args):
            super().__init__(*args)
            started.append(self)

    monkeypatch.setattr(subprocess, 'Popen', Recorded)
    with pytest.raises(KeyError), busy_core():
        assert started[0].poll() is None
        raise KeyError
    assert started[0].poll() is not None


# The verb -------------------------------------------------------------------------------------------------------------


def read(folder):
    with (folder / 'benchmark.csv').open(newline='') as stream:
        return list(csv.DictReader(stream))


def figures(folder, section, quantity):
    """(form, phase, case) -> value."""
    rows = [row for row in read(folder) if (row['section'], row['quantity']) == (section, quantity)]
    values = {(row['form'], row['phase'], row['case']): float(row['value']) for row in rows}
    assert len(values) == len(rows)
    return values


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run of everything: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp('benchmark')
    with redirect_stdout(io.StringIO()) as out:
        assert main(['benchmark', '--busy', '--threads', '1', '--output', str(folder), *TINY, '--sections', *QUICK]) == 0
    return folder, out.getvalue()


@pytest.fixture(scope='module')
def compiled(tmp_path_factory):
    """The same of torch.compile, whose tracing takes longer than all else together."""
    folder = tmp_path_factory.mktemp('compile')
    with redirect_stdout(io.StringIO()) as out:
        assert main(['benchmark', '--output', str(folder), *TINY, '--sections', 'compile']) == 0
    return folder, out.getvalue()


@pytest.mark.slow
def test_the_machine_is_described(whole):
    folder, out = whole
    for word in (f'torch {torch.__version__}', f'timm {timm.__version__}', 'device: cpu', '1 torch threads', 'timm-3g'):
        assert word in out.partition('head:')[0]
    assert {row['threads'] for row in read(folder)} == {'1'}
    assert all(row[column] for row in read(folder) for column in ('date', 'device', 'cpu', 'cores', 'torch', 'command'))
    pictures = [f'{section}.png' for section in QUICK]
    assert sorted(p.name for p in folder.iterdir()) == sorted(['benchmark.csv', *pictures])


@pytest.mark.slow
@pytest.mark.parametrize('section', SECTIONS)
def test_section_leaves_a_table_figures_and_a_picture(section, request):
    folder, out = request.getfixturevalue('compiled' if section == 'compile' else 'whole')
    assert f'\n{section}: ' in out
    assert (folder / f'{section}.png').read_bytes().startswith(b'\x89PNG')
    rows = [row for row in read(folder) if row['section'] == section]
    assert rows and not any(row['note'] for row in rows)
    # Twenty steps overflow in few bits, and that is a result.
    assert all(math.isfinite(float(row['value'])) for row in rows if 'num_iters=20' not in row['case'])


@pytest.mark.slow
def test_head_compares_three_forms_idle_and_busy(whole):
    cases = [f'batch={batch} dim=6 positions=9{busy}' for busy in ('', ' busy=1') for batch in (2, 3)]
    phases = ('forward + backward', 'forward')
    expected = {(f, p, c) for f in ('textbook', 'handwritten', 'ours') for p in phases for c in cases}
    for quantity in ('median', 'min', 'IQR', 'rounds', 'speed-up over textbook', 'speed-up over handwritten'):
        assert figures(whole[0], 'head', quantity).keys() == expected


def test_a_gpu_fits_fewer_sets():
    """One by one it waits for every step of every fit: 256 sets take minutes there."""
    for options, wanted in ((BenchmarkOptions(), (256, 32)), (BenchmarkOptions(fit_images=7), (7, 7))):
        report = Report(describe(torch.device('cpu'), ''))
        assert tuple(Bench.of(options, torch.device(name), report).fit_images for name in ('cpu', 'cuda')) == wanted


def test_the_plain_fixed_point_is_the_same_estimate():
    x = (
        torch.randn(40, 3, generator=torch.Generator().manual_seed(0)).double()
        @ torch.diag(torch.tensor([1.0, 2.0, 5.0])).double()
    )
    torch.testing.assert_close(plain_fixed_point(x, 0.5), fit_mggd(x, 0.5)[0].scatter, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_fit_compares_the_forms_and_says_how_they_ended(whole):
    known, unknown = (f'images=3 dim=2 positions=9 shape={shape}' for shape in ('known', 'unknown'))
    forms = {
        ('plain fixed point, one by one', known),
        *((form, case) for form in ('one by one', 'ours') for case in (known, unknown)),
    }
    assert {(form, case) for form, _, case in figures(whole[0], 'fit', 'median')} == forms
    assert figures(whole[0], 'fit', 'converged')['ours', 'fit', known] == 1.0


@pytest.mark.slow
def test_precision_tells_the_formats_apart(whole):
    for form in ('textbook', 'ours'):
        for phase in ('vector', 'gradient'):
            key = (form, phase, 'input=white num_iters=5 batch=4 dim=6 positions=9')
            names = ('float32 error', 'tf32 emulated error', 'bf16 emulated error')
            exact, tf32, bf16 = (figures(whole[0], 'precision', name)[key] for name in names)
            assert exact < 1e-5 < tf32 < 5e-3 and 2 * tf32 < bf16 < 5e-2


@pytest.mark.slow
def test_model_is_split_and_compared(whole):
    assert {key[:2] for key in figures(whole[0], 'model', 'time over avg')} == {
        *((form, 'training step') for form in ('avg', 'ours', 'textbook')),
        *((form, 'forward') for form in ('avg', 'ours', 'textbook', 'ours, reparameterized')),
    }
    parts = ('reduce', 're-weighting', 'covariance, root, triangle', 'classifier')
    shares = {key[:2] for key in figures(whole[0], 'model', 'of the whole')}
    assert shares == {(part, phase) for part in parts for phase in ('training step', 'forward')}


@pytest.mark.slow
def test_every_pooling_is_counted_and_timed(whole):
    names = ('avg', *(name for name in POOLS if name != 'mggd'))
    for quantity in ('median', 'time over avg'):
        found = {key[:2] for key in figures(whole[0], 'poolings', quantity)}
        assert found == {(name, phase) for name in names for phase in ('training step', 'forward')}
    sizes, millions, kept = (
        {key[0]: value for key, value in figures(whole[0], 'poolings', quantity).items()}
        for quantity in ('vector', 'parameters', 'kept for the backward')
    )
    for name in names:
        model = timm.create_model(SMALL, global_pool=name)
        assert millions[name] == sum(p.numel() for p in model.parameters()) / 1e6
        assert sizes[name] == model.forward_head(model.forward_features(torch.randn(2, 3, 32, 32)), pre_logits=True).shape[1]
    assert (sizes['avg'], sizes['isqrt'], sizes['bcnn']) == (128, 64 * 65 // 2, 64 * 64)
    # 3G keeps what iSQRT-COV does, and its three blocks more.
    assert kept['avg'] < kept['isqrt'] < kept['3g']


@pytest.mark.slow
def test_compile_counts_graph_breaks(compiled):
    breaks = figures(compiled[0], 'compile', 'graph breaks')
    assert {key[:2] for key in breaks} == {('compiled', 'training step'), ('compiled', 'forward')}
    assert set(breaks.values()) == {0.0}


@pytest.mark.slow
@pytest.mark.parametrize('options', [['--amp-dtype', 'bfloat16', '--channels-last'], ['--amp-dtype', 'float16']])
def test_networks_under_autocast(options, tmp_path):
    """What a GPU does by default, as far as a CPU can."""
    sections = ['--sections', 'model', 'reweight', '--img-size', '16']
    assert main(['benchmark', '--output', str(tmp_path), *TINY, *options, *sections]) == 0
    assert all(math.isfinite(float(row['value'])) for row in read(tmp_path))


def test_other_poolings(tmp_path, capsys):
    """No textbook form: ours alone is timed, and precision says so."""
    sections = ['--sections', 'head', 'memory', 'growth', 'precision']
    assert main(['benchmark', *sections, '--pool', 'mpn', '--output', str(tmp_path), *TINY]) == 0
    assert '--pool mpn has no textbook form' in capsys.readouterr().out
    assert {row['form'] for row in read(tmp_path) if row['section'] == 'head'} == {'ours'}


def test_sections_of_another_run_are_kept(tmp_path, capsys):
    for section in ('memory', 'growth', 'memory'):
        assert main(['benchmark', '--sections', section, '--output', str(tmp_path), *TINY]) == 0
    assert {row['section'] for row in read(tmp_path)} == {'memory', 'growth'}
    assert len(figures(tmp_path, 'memory', 'kept for the backward')) == 5  # and none twice
    (tmp_path / 'benchmark.csv').write_text('a,b\n1,2\n')
    assert main(['benchmark', '--sections', 'memory', '--output', str(tmp_path), *TINY]) == 1
    assert 'has other columns than this version writes; move it' in capsys.readouterr().err


def test_a_picture_of_another_origin_is_kept(tmp_path, capsys):
    (tmp_path / 'head.png').write_text('mine')
    assert main(['benchmark', '--sections', 'head', '--output', str(tmp_path), *TINY]) == 1
    assert 'head.png is there, and timm_3g did not draw it' in capsys.readouterr().err
    assert (tmp_path / 'head.png').read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


def test_what_does_not_fit_is_said_and_the_rest_goes_on(tmp_path, capsys):
    """Features of 10^12 channels have no place anywhere."""
    huge = ['--growth-dims', '8', '1000000000000', '--growth-sizes', '2', '--output', str(tmp_path)]
    assert main(['benchmark', '--sections', 'growth', *TINY, *huge]) == 0
    assert 'out of memory' in capsys.readouterr().out
    by_case = {row['case']: row for row in read(tmp_path)}
    failed = by_case['batch=2 dim=1000000000000 positions=196']
    assert (failed['quantity'], failed['value'], failed['note']) == ('failed', 'nan', 'out of memory')
    assert 'batch=2 dim=8 positions=196' in by_case and 'batch=2 dim=256 positions=4' in by_case


def test_a_compiler_that_fails_is_said(tmp_path, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise RuntimeError('no compiler here\nlong story')

    monkeypatch.setattr(torch._dynamo, 'explain', broken)
    assert main(['benchmark', '--sections', 'compile', '--output', str(tmp_path), *TINY]) == 0
    assert 'failed: no compiler here' in capsys.readouterr().out


def test_table_shows_what_differs():
    report = Report(describe(CPU, 'on'))
    report.add('head', Case.of(batch=2, dim=6), 'ours', 'forward', 'median', 1.23456, 'ms')
    report.add('head', Case.of(batch=8, dim=6), 'ours', 'forward', 'median', 123456.0, 'ms')
    report.fail('head', Case.of(batch=8, dim=6), 'textbook', 'forward', 'out of memory')
    assert report.table('head').splitlines() == [
        'all: dim=6',
        'case     phase    form      median, ms           note',
        'batch=2  forward  ours           1.235',
        'batch=8  forward  ours          123456',
        'batch=8  forward  textbook              out of memory',
    ]
    assert report.table('memory') == ''


def test_from_python(tmp_path, monkeypatch):
    """The same function takes options or their fields, returns the rows, and writes no files unless told."""
    monkeypatch.chdir(tmp_path)
    seen = []
    sizes = {
        'sections': ('memory', 'head'),
        'device': 'cpu',
        'dim': 4,
        'size': 2,
        'batch_size': [2],
        'runs': 1,
        'seconds': 0.01,
    }
    for report in (
        benchmark(**sizes, on_progress=lambda report: seen.append(list(report.notes))),
        benchmark(BenchmarkOptions(**sizes)),
    ):
        assert {row.section for row in report.rows} == set(report.notes) == {'memory', 'head'}
        assert {row.case['batch'] for row in report.rows} == {2} and report.rows[0].case['dim'] == 4
        assert report.text('memory').startswith('memory: Memory per sample of covariance')
    assert seen == [[], ['memory'], ['memory', 'head']]
    assert not list(tmp_path.iterdir())
    for options, message in (
        ({'batch_size': [8, -1]}, '^batch_size must be positive; got -1'),
        ({'seconds': math.inf}, '^seconds must be finite; got inf'),
        ({'batch_size': []}, '^batch_size must have at least one value; got none'),
        ({'size': 7, 'sections': ['fit']}, r'^fit_dim must be less than size \* size = 49, .*; got 64'),
        ({'sections': ['heads']}, "^sections must be of head, .*; got 'heads'"),
        ({'pool': 'avg', 'sections': ['head']}, '^pool must be a second-order pooling'),
    ):
        with pytest.raises(ValueError, match=message):
            benchmark(**options)


def test_a_gpu_has_its_index(monkeypatch):
    """Some of torch's functions refuse a GPU without one."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 1)
    assert [device_of(name) for name in (None, 'cuda', 'cuda:0')] == [torch.device('cuda', i) for i in (1, 1, 0)]
    with pytest.raises(ValueError, match='device cuda:2 does not exist: there are 2, from cuda:0'):
        device_of('cuda:2')


def test_out_of_memory_by_every_name():
    for message in ('CUDA error: out of memory', "can't allocate memory", 'CUBLAS_STATUS_ALLOC_FAILED'):
        assert is_out_of_memory(RuntimeError(message))
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError('CUDA error: an illegal memory access'))


@pytest.mark.parametrize(
    'options, message',
    [
        (['--device', 'mps'], "--device must be cpu or cuda; got 'mps'"),
        (['--device', 'tower'], "--device must be cpu or cuda; got 'tower'"),
        (['--runs', '0'], '--runs must be positive; got 0'),
        (['--batch-size', '8', '-1'], '--batch-size must be positive; got -1'),
        (['--seconds', '0'], '--seconds must be positive; got 0.0'),
        (['--pool', 'avg'], '--pool must be a second-order pooling, one of 3g, 3g_nosqrt, '),
        (['--pool', 'cov', '--num-iters', '5'], "global_pool='cov' has no option num_iters"),
        (
            ['--sections', 'compile', '--compile-model', 'resnet'],
            "--compile-model must be a model of timm or timm_3g; got 'resnet'",
        ),
        (['--model', 'resnet'], 'Unknown model (resnet)'),
        (
            ['--model', 'resnet18'],
            '--model must be a network with second-order pooling, e.g. resnet50_3g',
        ),
    ],
)
def test_bad_options(options, message, tmp_path, capsys):
    assert main(['benchmark', '--output', str(tmp_path), *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith('timm-3g benchmark: ') and message in error and error.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert main(['benchmark', '--device', 'cuda']) == 1
    assert '--device cuda needs a GPU, and torch finds none here. Use cpu.' in capsys.readouterr().err


def test_everything_on_a_gpu(gpu, tmp_path):
    assert main(['benchmark', *TINY, '--device', 'cuda', '--output', str(tmp_path)]) == 0
    peak, kept = (figures(tmp_path, 'memory', quantity) for quantity in ('peak', 'kept for the backward'))
    assert peak.keys() == kept.keys() and all(peak[key] >= kept[key] / 2 > 0 for key in peak)
    assert {'tf32=off', 'tf32=on'} <= {row['case'].split()[-1] for row in read(tmp_path) if row['section'] == 'head'}
    assert figures(tmp_path, 'precision', 'tf32 error')


def test_settings_are_put_back(tmp_path):
    before = (torch.get_num_threads(), torch.backends.cudnn.benchmark)
    assert main(['benchmark', '--sections', 'memory', '--threads', '1', '--output', str(tmp_path), *TINY]) == 0
    assert (torch.get_num_threads(), torch.backends.cudnn.benchmark) == before


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotADirectoryError, match='is not a folder'):
        benchmark(sections=['memory'], output=tmp_path / 'file' / 'x', on_progress=lambda report: pytest.fail('it began'))
