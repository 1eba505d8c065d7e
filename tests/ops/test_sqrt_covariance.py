"""The fast root of a covariance against the scalar recursion on float64 eigenvalues, gradcheck, and the plain functions."""

import importlib
import threading

import numpy as np
import pytest
import reference
import torch
from common import EXACT
from torch import Tensor

from timm_3g.ops import _root_eigh, _root_products, covariance, sqrt_covariance, sqrtm_newton_schulz

module = importlib.import_module('timm_3g.ops.sqrt_covariance')

# float32 against float64 with eps: rounding of the steps, 1.3e-6 measured, and 1e-5 allowed to the N x N form.
FLOAT32 = 2e-5

FORMS = [_root_products, _root_eigh]
SHAPES = [(6, 9), (9, 6), (7, 7), (5, 1)]


@pytest.fixture(params=FORMS, ids=['products', 'eigh'])
def form(request, monkeypatch):
    """Both forms, whatever the number of threads, and three images at a time, so that a batch has more than one chunk."""
    monkeypatch.setattr(module, '_form', lambda x, num_iters, differentiable: request.param)
    monkeypatch.setattr(module, '_chunk_size', lambda x: 3)
    return request.param


def plain(x: Tensor, num_iters: int, centered: bool, eps: float) -> Tensor:
    return sqrtm_newton_schulz(covariance(x, centered, eps), num_iters)


def value_and_gradient(function, x, cotangent, *args):
    x = x.detach().requires_grad_()
    out = function(x, *args)
    return out.detach(), torch.autograd.grad(out, x, cotangent)[0]


def difference(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize('num_iters', [1, 2, 3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize('d, n', SHAPES)
def test_is_the_scalar_recursion_on_eigenvalues(form, d, n, num_iters):
    x = torch.randn(2, d, n, dtype=torch.float64, requires_grad=True)
    for got, one in zip(sqrt_covariance(x, num_iters).detach(), x.detach().numpy(), strict=True):
        expected = reference.newton_schulz_by_eigenvalues(reference.covariance(one), num_iters)
        np.testing.assert_allclose(got, expected, **EXACT)


@pytest.mark.parametrize('num_iters', [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize('centered', [True, False])
@pytest.mark.parametrize('eps', [0.0, 1e-7, 0.1])
@pytest.mark.parametrize('d, n', SHAPES)
def test_value_and_gradient_are_those_of_the_plain_functions(form, d, n, eps, centered, num_iters):
    """Also with an asymmetric cotangent, as a triangle gives, and on batches of one chunk, several, and a part of one."""
    args = (num_iters, centered, eps)
    for batch in (1, 3, 7):
        x = torch.randn(batch, d, n, dtype=torch.float64)
        cotangent = torch.randn(batch, d, d, dtype=torch.float64)
        for got, expected in zip(
            value_and_gradient(sqrt_covariance, x, cotangent, *args),
            value_and_gradient(plain, x, cotangent, *args),
            strict=True,
        ):
            torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.parametrize('eps', [0.0, 0.01])
@pytest.mark.parametrize('d, n', SHAPES)
def test_gradcheck(form, d, n, eps):
    x = torch.randn(2, d, n, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sqrt_covariance(x, 5, True, eps), x)


@pytest.mark.parametrize('num_iters', [15, 20, 30])
@pytest.mark.parametrize('d, n', [(64, 20), (20, 64), (64, 65)])
def test_many_steps_neither_diverge_nor_lose_their_gradient(d, n, num_iters):
    """As products they are NaN at 30 steps in float32, and their gradient at (64, 65) has no digit left at 20."""
    x = torch.randn(4, d, n).relu()
    cotangent = torch.randn(4, d, d)
    got = value_and_gradient(sqrt_covariance, x, cotangent, num_iters)
    e, u = torch.linalg.eigh(covariance(x.double()))
    exact = (u * e.clamp(min=0).sqrt().unsqueeze(1)) @ u.mT
    assert difference(got[0], exact) < 1e-3  # what the steps leave of the smallest eigenvalues
    expected = value_and_gradient(plain, x.double(), cotangent.double(), num_iters, True, 0.0)
    assert difference(got[0], expected[0]) < 1e-4
    if num_iters <= 20:
        assert difference(got[1], expected[1]) < 1e-3


def test_gradient_where_eigenvalues_coincide(form):
    """Orthogonal features: every eigenvalue is the same, and no difference of two may be divided by."""
    x = torch.eye(4, dtype=torch.float64).unsqueeze(0).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sqrt_covariance(x, 5, False), x)


@pytest.mark.parametrize('centered', [True, False])
def test_gradcheck_of_the_form_that_carries_eps_approximately(form, monkeypatch, centered):
    """Its gradient is that of what it computes, terms in eps included, though never taken in float64 by itself."""
    monkeypatch.setattr(module, '_negligible', lambda shift, num_iters: True)
    x = torch.randn(2, 9, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sqrt_covariance(x, 5, centered, 0.1), x)


def test_how_exact_the_form_that_carries_eps_approximately_is(form, monkeypatch):
    """Off by at most 8 f'(0) e = 61 e, relative; without its term in I by 300 e for so few positions."""
    monkeypatch.setattr(module, '_negligible', lambda shift, num_iters: True)
    x = torch.randn(2, 256, 10, dtype=torch.float64)
    e = 1e-7
    eps = e * float(covariance(x).diagonal(dim1=1, dim2=2).sum(1).mean())
    assert 0 < difference(sqrt_covariance(x.requires_grad_(), 5, True, eps), plain(x, 5, True, eps)) < 61 * e


def test_gradient_below_the_smallest_trace(form):
    """Where the trace is not divided by, it is a constant, and sends no gradient."""
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    cotangent = torch.randn(2, 6, 6, dtype=torch.float64)
    got = value_and_gradient(sqrt_covariance, 1e-17 * x, cotangent)
    expected = value_and_gradient(plain, 1e-17 * x, cotangent, 5, True, 0.0)
    assert difference(got[1], expected[1]) < 1e-12


@pytest.mark.parametrize('scale', [1.0, 0.1, 0.01, 1e-3, 1e-4, 1e-6, 1e-12])
def test_eps_is_part_of_the_function_however_small_the_features(form, scale):
    """The N x N form steps aside where eps matters: dropping eps costs 1.6e-3 at scale 0.01."""
    x = scale * torch.randn(4, 64, 20).relu()
    cotangent = torch.randn(4, 64, 64)
    for got, expected in zip(
        value_and_gradient(sqrt_covariance, x, cotangent, 5, True, 1e-7),
        value_and_gradient(plain, x.double(), cotangent.double(), 5, True, 1e-7),
        strict=True,
    ):
        assert got.dtype == torch.float32
        assert difference(got, expected) < FLOAT32


def test_which_form_of_the_matrix(monkeypatch):
    """N x N where eps is negligible; never in float64, for NaN, or while a CUDA graph is recorded."""
    small = torch.tensor([1e-9, 1e-8]).view(2, 1, 1)
    assert module._negligible(small, 5)
    assert not module._negligible(small * 1e3, 5) and not module._negligible(small, 20)
    assert not module._negligible(small.double(), 5) and not module._negligible(small * float('nan'), 5)
    monkeypatch.setattr(module, '_recording_a_graph', lambda x: True)
    assert not module._negligible(small, 5)


def test_images_of_one_batch_may_differ_in_scale(form):
    x = torch.randn(4, 32, 10) * torch.tensor([1.0, 1e-5, 0.0, 1e3]).view(-1, 1, 1)
    for got, expected in zip(sqrt_covariance(x, 5, True, 1e-7), plain(x.double(), 5, True, 1e-7), strict=True):
        assert difference(got, expected) < FLOAT32


@pytest.mark.parametrize('d, n', [(256, 196), (64, 196)])
@pytest.mark.parametrize('spectrum', ['white', 'decaying'])
def test_float32_at_full_size(form, d, n, spectrum):
    decay = torch.logspace(0, -3 if spectrum == 'decaying' else 0, d).unsqueeze(1)
    x = (decay * torch.randn(2, d, n)).relu()
    cotangent = torch.randn(2, d, d)
    for got, expected in zip(
        value_and_gradient(sqrt_covariance, x, cotangent, 5, True, 1e-7),
        value_and_gradient(plain, x.double(), cotangent.double(), 5, True, 1e-7),
        strict=True,
    ):
        assert difference(got, expected) < FLOAT32


@pytest.mark.parametrize('eps', [0.0, 1e-7])
@pytest.mark.parametrize('scale', [0.0, 1e-20, 1e-8, 1e8, 1e16])
def test_finite_forward_and_backward(form, scale, eps):
    x = (torch.randn(2, 6, 4) * scale).requires_grad_()
    root = sqrt_covariance(x, 5, True, eps)
    root.sum().backward()
    assert torch.isfinite(root).all() and torch.isfinite(x.grad).all()
    if scale == 0.0:
        assert x.grad.abs().max() == 0
        torch.testing.assert_close(root.double(), plain(x.detach().double(), 5, True, eps))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_nan_stays_in_its_own_image(form, bad):
    x = torch.randn(3, 6, 4)
    clean, clean_grad = value_and_gradient(sqrt_covariance, x, torch.ones(3, 6, 6), 5, True, 1e-7)
    x[1, 2, 3] = bad
    got, grad = value_and_gradient(sqrt_covariance, x, torch.ones(3, 6, 6), 5, True, 1e-7)
    assert got[1].isnan().all() and grad[1].isnan().all()
    for i in (0, 2):
        # the NaN image sends its chunk to the d x d form
        torch.testing.assert_close(got[i], clean[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(grad[i], clean_grad[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(5, 8), (2, 5, 8), (2, 3, 5, 8), (0, 5, 8)])
def test_leading_dimensions(form, shape):
    x = torch.randn(shape, requires_grad=True)
    root = sqrt_covariance(x)
    assert root.shape == (*shape[:-1], 5)
    root.sum().backward()
    assert x.grad.shape == shape


def test_layout_of_the_features_does_not_matter(form):
    x = torch.randn(4, 6, 3, 3)
    cotangent = torch.randn(4, 6, 6)
    expected = value_and_gradient(sqrt_covariance, x.flatten(2), cotangent)
    x = x.to(memory_format=torch.channels_last).flatten(2)
    got = value_and_gradient(sqrt_covariance, x, cotangent)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert got[1].stride() == x.stride()  # the gradient comes in the layout that the convolutions before want


def test_half_precision_is_refused():
    with pytest.raises(TypeError, match=r'float32 or float64 features; got torch.bfloat16. Call x.float\(\)'):
        sqrt_covariance(torch.randn(2, 3, 4, dtype=torch.bfloat16))


def test_autocast_reaches_neither_forward_nor_backward(form):
    x, cotangent = torch.randn(2, 12, 8), torch.randn(2, 12, 12)
    expected = value_and_gradient(sqrt_covariance, x, cotangent)
    with torch.autocast('cpu', torch.bfloat16):
        got = value_and_gradient(sqrt_covariance, x, cotangent)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b)


def kept_bytes(function, x: Tensor) -> int:
    storages: dict[int, int] = {}

    alive = []  # so that no address is used twice

    def pack(t: Tensor) -> Tensor:
        alive.append(t)
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        function(x)
    return sum(storages.values())


def test_kept_for_the_backward(form):
    """The issue's bound, 0.6 MiB an image at d = 256, N = 196."""
    x = torch.randn(4, 256, 196, requires_grad=True)
    assert kept_bytes(lambda x: sqrt_covariance(x, 5, True, 1e-7), x) / 4 <= 0.6 * 2**20


@pytest.mark.parametrize('threads, differentiable, expected', [(1, True, 'eigh'), (2, True, 'eigh'), (3, True, 'products')])
def test_the_form_follows_the_threads(monkeypatch, threads, differentiable, expected):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    x = torch.randn(1, 4, 3)
    assert module._form(x, 10, differentiable).__name__.endswith(expected)
    assert module._form(x, 10, False) is _root_products
    assert module._form(x.to('meta'), 10, True) is _root_products  # as on any device but the CPU
    assert module._form(x, 11, False) is _root_eigh


def test_float32_of_the_products_up_to_their_last_step(monkeypatch):
    """Worst where d and N are nearly equal."""
    monkeypatch.setattr(module, '_EIGH_MAX_THREADS', 0)
    x, cotangent = torch.randn(4, 64, 65).relu(), torch.randn(4, 64, 64)
    for num_iters in (8, 9, 10):
        got = value_and_gradient(sqrt_covariance, x, cotangent, num_iters)
        expected = value_and_gradient(plain, x.double(), cotangent.double(), num_iters, True, 0.0)
        assert all(difference(a, b) < FLOAT32 for a, b in zip(got, expected, strict=True))


def test_only_the_main_thread_sets_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []

    def work():
        torch.set_num_threads(2)
        with _root_eigh._one_thread(torch.empty(1, 4, 4)):
            seen.append(torch.get_num_threads())

    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    torch.set_num_threads(before)
    assert seen == [2]


@pytest.mark.parametrize('size, inside', [(512, 1), (513, 2)])
def test_small_matrices_are_decomposed_on_one_thread(size, inside):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyError), _root_eigh._one_thread(torch.empty(1, size, size)):
            assert torch.get_num_threads() == inside
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_forms_may_change_between_forward_and_backward(monkeypatch):
    """The number of threads is the caller's, and may change: what the forward kept says how to go back."""
    x = torch.randn(2, 6, 4, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(module, '_form', lambda x, num_iters, differentiable: _root_eigh)
    root = sqrt_covariance(x)
    monkeypatch.setattr(module, '_form', lambda x, num_iters, differentiable: _root_products)
    (got,) = torch.autograd.grad(root.sum(), x)
    torch.testing.assert_close(got, torch.autograd.grad(plain(x, 5, True, 0.0).sum(), x)[0], **EXACT)


@pytest.mark.parametrize('num_iters, expected', [(5, 'tf32'), (7, 'tf32'), (8, 'ieee')])
def test_many_steps_are_kept_from_tf32(monkeypatch, num_iters, expected):
    """Without a GPU: the flag that cuBLAS would read, seen from inside."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = 'tf32'
    try:
        with module._own_precision(FakeCuda(), num_iters):
            assert matmul.fp32_precision == expected
        assert matmul.fp32_precision == 'tf32'
        with pytest.raises(KeyError), module._own_precision(FakeCuda(), num_iters):
            raise KeyError
        assert matmul.fp32_precision == 'tf32'
    finally:
        matmul.fp32_precision = before


class FakeCuda:
    """As much of a CUDA tensor as the guard looks at."""

    device = torch.device('cuda')


@pytest.mark.parametrize('d, n', SHAPES)
@pytest.mark.parametrize('eps', [0.0, 1e-7])
def test_compiled_is_one_operator_with_the_same_gradient(d, n, eps):
    torch._dynamo.reset()
    x, cotangent = torch.randn(4, d, n, dtype=torch.float64), torch.randn(4, d, d, dtype=torch.float64)
    compiled = torch.compile(lambda x: 2 * sqrt_covariance(x, 5, True, eps), fullgraph=True, backend='aot_eager')
    for got, expected in zip(
        value_and_gradient(compiled, x, cotangent),
        value_and_gradient(lambda x: 2 * plain(x, 5, True, eps), x, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(got, expected, **EXACT)


@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf')  # opcheck reads it on its own copies
def test_the_operators_are_registered_as_they_should():
    layouts = [
        torch.randn(2, 5, 3),
        torch.randn(2, 3, 5),
        torch.randn(2, 3, 5).mT,  # channels_last
        torch.randn(5, 2, 3).permute(1, 2, 0),
        torch.randn(5, 3, 2).permute(2, 0, 1),
    ]
    for x in (x.requires_grad_() for x in layouts):
        torch.library.opcheck(module._compiled, (x, 5, True, 1e-7))
        torch.library.opcheck(module._compiled_backward, (torch.randn(2, x.shape[1], x.shape[1]), x.detach(), 5, True, 0.0))


def test_meta_and_export_take_the_plain_operations():
    assert sqrt_covariance(torch.randn(2, 5, 3, device='meta')).shape == (2, 5, 5)

    class Root(torch.nn.Module):
        def forward(self, x):
            return sqrt_covariance(x, 5, True, 1e-7)

    exported = torch.export.export(Root(), (torch.randn(2, 5, 3),))
    assert not any('timm_3g' in str(node.target) for node in exported.graph.nodes)


def test_second_derivatives(form):
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: sqrt_covariance(x, 3, True, 0.01), x)


def test_second_derivative_with_a_constant_cotangent(form):
    """The path through the root must not be lost where the cotangent itself needs no gradient."""
    x = torch.rand(2, 3, 4, dtype=torch.float64, requires_grad=True)
    results = []
    for function in (sqrt_covariance, sqrtm_newton_schulz):
        out = function(x) if function is sqrt_covariance else plain(x, 5, True, 0.0)
        (grad,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        results.append(torch.autograd.grad(grad.square().sum(), x)[0])
    assert results[0].abs().max() > 0
    torch.testing.assert_close(*results, **EXACT)


def test_torch_func_and_forward_mode():
    x, tangent = torch.randn(3, 4, 6, dtype=torch.float64), torch.randn(3, 4, 6, dtype=torch.float64)
    x.requires_grad_()
    expected = torch.autograd.grad(plain(x, 5, True, 0.0).sum(), x)[0]
    x = x.detach()
    per_image = torch.func.vmap(torch.func.grad(lambda one: sqrt_covariance(one).sum()))(x)
    torch.testing.assert_close(per_image, expected, **EXACT)
    _, pushed = torch.func.jvp(sqrt_covariance, (x,), (tangent,))
    torch.testing.assert_close(pushed, torch.func.jvp(lambda x: plain(x, 5, True, 0.0), (x,), (tangent,))[1], **EXACT)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(sqrt_covariance(dual)).tangent, pushed, **EXACT)


@pytest.mark.filterwarnings('ignore:`torch.jit:DeprecationWarning', 'ignore:`torch.jit:FutureWarning')
@pytest.mark.parametrize('num_iters', [12, 30, 60])
@pytest.mark.parametrize('d, n', [(64, 49), (20, 64)])
def test_many_steps_are_the_same_wherever_products_must_do_them(d, n, num_iters):
    """In float32 products were 1e-2 off at 25 steps and NaN from 30 on, and at 45 eigh had a hundred times the gradient."""

    def root(x: torch.Tensor, steps: int = num_iters) -> torch.Tensor:
        return sqrt_covariance(x, steps)

    def gradient(function, x):
        (grad,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=function is root)
        return grad

    class Root(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_iters = num_iters

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return sqrt_covariance(x, self.num_iters)

    x = torch.randn(2, d, n).relu().requires_grad_()
    expected, slope = root(x).detach(), torch.autograd.grad(root(x).square().sum(), x)[0]
    forms = {
        'traced': torch.jit.trace(Root(), x),
        'scripted': torch.jit.script(Root()),
        'exported': torch.export.export(Root(), (x.detach(),)).module(),
        'vmap': torch.func.vmap(root),
    }
    for name, form in forms.items():
        assert difference(form(x), expected) < 5e-6, name
        assert difference(gradient(form, x), slope) < 1e-4, name
    assert difference(gradient(root, x), slope) < 1e-4, 'a gradient that will be differentiated'
    assert difference(torch.func.grad(lambda x: root(x).square().sum())(x.detach()), slope) < 1e-4


@pytest.mark.parametrize('d, n', [(64, 49), (20, 64)])
def test_the_most_steps_in_products_are_the_exact_root(d, n):
    x = torch.randn(2, d, n).relu().requires_grad_()
    e, u = torch.linalg.eigh(covariance(x.detach().double()))
    exact = (u * e.clamp(min=0).sqrt().unsqueeze(1)) @ u.mT
    got = torch.func.vmap(lambda x: sqrt_covariance(x, 60))(x)
    assert difference(got, exact) < 5e-6
    assert bool(torch.autograd.grad(got.square().sum(), x)[0].isfinite().all())


@pytest.mark.parametrize('x', [torch.ones(5), torch.ones(2, 3, 0)])
def test_features_without_a_dimension_or_a_position(x):
    with pytest.raises(ValueError, match=r'x must be features \(\.\.\., d, N\) at one position or more; got'):
        sqrt_covariance(x)


def test_threads_of_a_program_do_not_meet(form):
    """Two threads, each with its own batch: no state is shared."""
    xs = [torch.randn(4, 12, 8) for _ in range(2)]
    expected = [value_and_gradient(sqrt_covariance, x, torch.ones(4, 12, 12)) for x in xs]
    got = [None, None]

    def work(i):
        for _ in range(20):
            got[i] = value_and_gradient(sqrt_covariance, xs[i], torch.ones(4, 12, 12))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
