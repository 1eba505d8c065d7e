"""Root, poolings and generalized Gaussian on a GPU against float64 on the CPU, and a study. Without a GPU nothing runs.

The report says so.
"""

import copy

import pytest
import timm
import torch
from common import SMALL, create_global_pool, image_folder
from torch import Tensor

from timm_3g.layers.create_pool import POOLS
from timm_3g.mggd import MultivariateGeneralizedGaussian, fit_mggd, regularized_covariance
from timm_3g.ops import covariance, sqrt_covariance, sqrtm_newton_schulz
from timm_3g.studies import study

# Of the products with five steps: rounding in float32, and what TF32's 10 bits make of it (6e-4 expected).
TOLERANCE = {'ieee': 2e-5, 'tf32': 5e-3}


def value_and_gradient(x: Tensor, cotangent: Tensor, num_iters: int = 5) -> tuple[Tensor, Tensor]:
    x = x.detach().requires_grad_()
    root = sqrt_covariance(x, num_iters, True, 1e-7)
    return root.detach(), torch.autograd.grad(root, x, cotangent)[0]


def expected(x: Tensor, cotangent: Tensor, num_iters: int = 5) -> tuple[Tensor, Tensor]:
    x = x.cpu().double().requires_grad_()
    root = sqrtm_newton_schulz(covariance(x, True, 1e-7), num_iters)
    return root.detach(), torch.autograd.grad(root, x, cotangent.cpu().double())[0]


def difference(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().cpu().double(), b.detach()
    return float((a - b).norm() / b.norm())


@pytest.fixture
def precision(gpu):
    before = torch.backends.cuda.matmul.fp32_precision
    yield lambda name: setattr(torch.backends.cuda.matmul, 'fp32_precision', name)
    torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize('name', ['ieee', 'tf32'])
@pytest.mark.parametrize('d, n', [(256, 196), (64, 196)])
def test_value_and_gradient(gpu, precision, name, d, n):
    precision(name)
    x, cotangent = torch.randn(8, d, n, device=gpu).relu(), torch.randn(8, d, d, device=gpu)
    for got, wanted in zip(value_and_gradient(x, cotangent), expected(x, cotangent), strict=True):
        assert difference(got, wanted) < TOLERANCE[name]


def test_many_steps_do_not_use_tf32(gpu, precision):
    precision('tf32')
    x, cotangent = torch.randn(4, 64, 196, device=gpu).relu(), torch.randn(4, 64, 64, device=gpu)
    for got, wanted in zip(value_and_gradient(x, cotangent, 12), expected(x, cotangent, 12), strict=True):
        assert difference(got, wanted) < 1e-4


def test_bf16_autocast_does_not_reach_it(gpu):
    x, cotangent = torch.randn(8, 256, 196, device=gpu).relu(), torch.randn(8, 256, 256, device=gpu)
    with torch.autocast('cuda', torch.bfloat16):
        found = value_and_gradient(x, cotangent)
    for got, wanted in zip(found, expected(x, cotangent), strict=True):
        assert difference(got, wanted) < TOLERANCE['tf32']


def test_records_into_a_cuda_graph(gpu):
    """Recorded in the d x d form, because a graph cannot look at eps / trace; run on other features."""
    x = torch.randn(8, 256, 196, device=gpu).relu()
    with torch.no_grad():
        sqrt_covariance(x, 5, True, 1e-7)  # cuBLAS allocates its workspace outside
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            root = sqrt_covariance(x, 5, True, 1e-7)
        x.copy_(torch.randn_like(x).relu())
        graph.replay()
    assert difference(root, expected(x, torch.zeros(8, 256, 256))[0]) < TOLERANCE['tf32']


def test_memory_of_a_step(gpu):
    """Kept between forward and backward, beside the features: 0.6 MiB an image with them; at the peak less than 5.06 MiB."""
    x, cotangent = torch.randn(64, 256, 196, device=gpu).relu(), torch.randn(64, 256, 256, device=gpu)
    value_and_gradient(x, cotangent)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    root = sqrt_covariance(x.requires_grad_(), 5, True, 1e-7)
    kept = torch.cuda.memory_allocated() - before - root.untyped_storage().nbytes() + x.untyped_storage().nbytes()
    root.backward(cotangent)
    assert kept <= 64 * 0.6 * 2**20
    assert torch.cuda.max_memory_allocated() - before < 64 * 5.06 * 2**20


def test_fit_and_robust_covariance(gpu):
    distribution = MultivariateGeneralizedGaussian(torch.zeros(8, device=gpu), torch.eye(8, device=gpu), 0.5)
    x = distribution.rsample((16, 196)).requires_grad_()
    on_cpu = x.detach().cpu().double().requires_grad_()
    (fitted, record), (wanted, _) = fit_mggd(x), fit_mggd(on_cpu)
    assert bool(record.converged.all()) and fitted.shape.is_cuda and fitted.shape.dtype == torch.float32
    assert difference(fitted.covariance_matrix, wanted.covariance_matrix) < 1e-5
    assert difference(fitted.log_prob(x.detach().movedim(1, 0)), wanted.log_prob(on_cpu.detach().movedim(1, 0))) < 1e-4
    robust, judge = (regularized_covariance(t, 0.5, 1.1) for t in (x, on_cpu))
    assert difference(robust, judge.detach()) < 1e-5
    gradients = [torch.autograd.grad(t.square().sum(), s)[0] for t, s in ((robust, x), (judge, on_cpu))]
    assert difference(*gradients) < 1e-4


# Poolings and networks ------------------------------------------------------------------------------------------------

NAMES = list(POOLS)


def pool_and_judge(name: str, device: torch.device, **kwargs) -> tuple[torch.nn.Module, torch.nn.Module, Tensor]:
    """A pooling on the GPU, the same in float64 on the CPU, and features for both that keep away from the kinks at 0."""
    options = {'sketch_dim': 512} if name == 'cbp' else {}
    pool = create_global_pool(name, 48, 16, **options, **kwargs).eval()
    x = torch.randn(8, 48, 7, 7, generator=torch.Generator().manual_seed(1)).relu() + 0.1
    return copy.deepcopy(pool).to(device), pool.double(), x


@pytest.mark.parametrize('name', NAMES)
def test_every_pooling(gpu, precision, name):
    precision('ieee')
    pool, judge, x = pool_and_judge(name, gpu)
    a, b = x.clone().to(gpu).requires_grad_(), x.double().requires_grad_()
    y, wanted = pool(a), judge(b)
    cotangent = torch.randn(wanted.shape, dtype=torch.float64)
    (y * cotangent.to(y)).sum().backward()
    (wanted * cotangent).sum().backward()
    assert difference(y, wanted) < 1e-4
    assert difference(a.grad, b.grad) < 1e-3
    for (key, p), q in zip(pool.named_parameters(), judge.parameters(), strict=True):
        if q.grad is not None and float(q.grad.norm()) > 1e-9:
            assert difference(p.grad, q.grad) < 2e-3, key


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_every_pooling_under_autocast(gpu, name, dtype):
    pool, judge, x = pool_and_judge(name, gpu)
    with torch.autocast('cuda', dtype):
        y = pool(x.to(gpu, dtype))
    assert difference(y, judge(x.to(dtype).double())) < {torch.bfloat16: 5e-2, torch.float16: 1e-2}[dtype]


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_every_pooling_in_pure_half(gpu, name, dtype):
    pool, _, x = pool_and_judge(name, gpu)
    pool = pool.to(dtype)
    judge = copy.deepcopy(pool).cpu().double()  # the same rounded weights
    x = x.to(dtype)
    y = pool(x.to(gpu))
    assert y.dtype == dtype
    assert difference(y, judge(x.double())) < {torch.bfloat16: 1e-2, torch.float16: 5e-3}[dtype]


@pytest.mark.parametrize('name', NAMES)
def test_every_pooling_in_channels_last(gpu, name):
    pool, judge, x = pool_and_judge(name, gpu)
    # cuDNN's TF32: 10 bits in each of up to 24 convolutions, then a product of second order; 1.5e-2 seen for 3g_nosqrt
    assert difference(pool(x.to(gpu, memory_format=torch.channels_last)), judge(x.double())) < 3e-2


@pytest.mark.parametrize('name', NAMES)
def test_every_pooling_compiles(gpu, precision, name):
    precision('tf32')  # inductor warns of anything else
    pool, judge, x = pool_and_judge(name, gpu)
    compiled = torch.compile(pool, fullgraph=True)
    a = x.clone().to(gpu).requires_grad_()
    y = compiled(a)
    y.square().sum().backward()
    assert difference(y, judge(x.double())) < 3e-2
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', ['resnet10_mini_3g', 'resnet18_isqrt'])
def test_a_training_step_under_autocast(gpu, name, dtype):
    model = timm.create_model(name, num_classes=10).to(gpu, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler('cuda', enabled=dtype == torch.float16)
    x, y = torch.randn(16, 3, 64, 64, device=gpu), torch.arange(16, device=gpu) % 10
    losses = []
    for _ in range(8):
        with torch.autocast('cuda', dtype):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_network_on_gpu_equals_the_cpu(gpu, precision):
    precision('ieee')
    model = timm.create_model('resnet10_mini_3g.open_cifar10', pretrained=True).eval()
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        expected = copy.deepcopy(model).double()(x.double())
        assert difference(model.to(gpu)(x.to(gpu)), expected) < 1e-4


def test_a_study(gpu, tmp_path, timm_script):
    """The YAML of a CPU with `device: cuda` in it."""
    image_folder(tmp_path / 'data', {'train': 20, 'val': 4, 'test': 4})
    (tmp_path / 'a.yaml').write_text(
        f'options: {{model: {SMALL}, num_classes: 3, img_size: 32, train_split: train, val_split: val, epochs: 1, '
        'device: cuda, batch_size: 8, opt: adamw, lr: 0.001, workers: 0, model_kwargs: {reduce_dim: 8}}\n'
        'arms: {avg: {gp: avg}, 3g: {gp: 3g}}\nseeds: [0]\ncorruptions: [noise-std0.5]\n'
    )
    scripts = str(timm_script('train.py').parent)
    progress = study(tmp_path / 'a.yaml', tmp_path / 'data', output=tmp_path / 'out', timm_scripts=scripts)
    assert [row.figures.device for row in progress.rows] == [torch.cuda.get_device_name()] * 2
    assert all(0 < row.figures.memory_mib < 500 for row in progress.rows)  # a process has more
    assert all(row.figures.test_images == 12 and 'noise-std0.5' in row.figures.corrupted for row in progress.rows)
