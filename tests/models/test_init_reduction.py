"""The reduction that starts from principal directions, against numpy on all features at once."""

import numpy as np
import pytest
import timm
import torch
from common import SMALL
from torch.utils.data import DataLoader, TensorDataset

import timm_3g
from timm_3g.layers import Reduce2d, second_order_pool_of
from timm_3g.models import init_reduction
from timm_3g.ops import covariance

CUT = 0.1  # of the vector's norm: what ReLU takes from numbers more than three deviations below the mean
SUMS = {'rtol': 1e-4, 'atol': 1e-4}  # float32 parameters, float64 moments


def network(pool='isqrt', **kwargs):
    return timm.create_model(SMALL, global_pool=pool, reduce_dim=8, num_classes=3, **kwargs)


def loader(number=20, seed=0):
    images = torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(images, torch.zeros(number)), batch_size=7)


def reduction_of(model) -> Reduce2d:
    return second_order_pool_of(model)[1].reduce


@pytest.mark.parametrize(('pool', 'scale'), [('isqrt', 1.0), ('3g', (1 + np.exp(-1.0)) ** 3)])
def test_directions_and_scales_are_those_of_numpy(pool, scale):
    model = network(pool)
    assert timm_3g.init_reduction(model, loader()) == 20
    with torch.no_grad():
        maps = torch.cat([model.eval().forward_features(x) for x, _ in loader()])
        features = maps.double().numpy().transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
        values, vectors = np.linalg.eigh(np.cov(features, bias=True))
        values, vectors = values[::-1][:8], vectors[:, ::-1][:, :8]
        reduction = reduction_of(model)
        weight = reduction.conv.weight.flatten(1).double().numpy()
        np.testing.assert_allclose(np.abs(weight @ vectors), np.eye(8), **SUMS)
        assert (weight.max(1) == np.abs(weight).max(1)).all(), 'the largest number of each direction is positive'
        np.testing.assert_allclose(reduction.bn.running_var, values, rtol=1e-4)
        np.testing.assert_allclose(reduction.bn.running_mean, weight @ features.mean(1), **SUMS)
        share = values / values.mean()
        projected = reduction.bn(reduction.conv(maps)).transpose(0, 1).flatten(1)
        np.testing.assert_allclose(np.cov(projected, bias=True), np.diag(share) * scale**2, rtol=1e-3, atol=1e-2 * scale)
        deviations = projected.mean(1) / projected.std(1)
        np.testing.assert_allclose(deviations, 3.0, rtol=1e-2)


def test_the_vector_is_that_of_the_principal_directions_themselves():
    """A centered covariance sees neither the shift nor, but for what lies below three deviations, ReLU."""
    model = network('cov', centered=True).eval()
    timm_3g.init_reduction(model, loader())
    x = next(iter(loader()))[0]
    with torch.no_grad():
        maps = model.forward_features(x)
        vector = model.forward_head(maps, pre_logits=True)
        reduction = reduction_of(model)
        reduction.act = torch.nn.Identity()
        linear = model.forward_head(maps, pre_logits=True)
    assert torch.linalg.norm(vector - linear) < CUT * torch.linalg.norm(linear)


def test_nothing_else_changes():
    model = network()
    model.layer1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    timm_3g.init_reduction(model, (x for x, _ in loader()))  # images alone, from a generator
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {
        f'global_pool.reduce.{k}' for k in ('conv.weight', 'bn.weight', 'bn.bias', 'bn.running_mean', 'bn.running_var')
    }
    assert modes == [module.training for module in model.modules()]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_batches_do_not_matter():
    a, b = network(), network()
    b.load_state_dict(a.state_dict())
    images = torch.cat([x for x, _ in loader()])
    timm_3g.init_reduction(a, [images])
    timm_3g.init_reduction(b, images.split([1, 2, 17]))
    torch.testing.assert_close(a.state_dict(), b.state_dict(), **SUMS)


def test_a_stage_with_the_average_beside_it():
    model = timm.create_model(
        'gcp', backbone='resnet10t', global_pool='3g', reduce_dim=8, out_index=-2, first_order=True, num_classes=3
    )
    timm_3g.init_reduction(model, [torch.randn(4, 3, 64, 64)])
    weight = reduction_of(model).conv.weight.flatten(1)
    torch.testing.assert_close(weight @ weight.T, torch.eye(8), **SUMS)


@pytest.mark.parametrize('model', ['avg', 'none', 'plain'])
def test_a_network_without_a_reduction(model):
    net = {
        'avg': lambda: network('avg'),
        'none': lambda: timm.create_model(SMALL, reduce_dim=0),
        'plain': lambda: timm.create_model('resnet10t'),
    }[model]()
    with pytest.raises(ValueError, match=r'has no channel reduction\. Build it with .*reduce_dim=256'):
        timm_3g.init_reduction(net, loader())


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        ([], '8 principal directions need more positions than that; got 0 from 0 images'),
        ([torch.randn(1, 3, 8, 8)], '8 principal directions need more positions than that; got 4 from 1 images'),
        ([torch.zeros(9, 3, 32, 32)], r'must vary in 8 directions; they vary in \d'),
        ([torch.full((9, 3, 32, 32), float('nan'))], 'moments of the features must be finite'),
    ],
)
def test_images_that_will_not_do(images, message):
    model = network()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        timm_3g.init_reduction(model, images)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize(('batch', 'kind'), [({'image': torch.zeros(1)}, 'dict'), ([], 'list'), (['a.png'], 'list')])
def test_batches_without_images(batch, kind):
    model = network()
    with pytest.raises(TypeError, match=rf'must be a tensor of images, or begin with one; got {kind}\.'):
        timm_3g.init_reduction(model, [torch.randn(4, 3, 32, 32), batch])
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())


def test_under_autocast():
    a, b = network(), network()
    b.load_state_dict(a.state_dict())
    timm_3g.init_reduction(a, loader())
    with torch.autocast('cpu', torch.bfloat16):
        timm_3g.init_reduction(b, loader())
    torch.testing.assert_close(reduction_of(b).bn.running_var, reduction_of(a).bn.running_var, rtol=0.05, atol=1e-3)
    assert reduction_of(b).conv.weight.dtype == torch.float32


@pytest.mark.parametrize('shape', [(3,), (4,)])
def test_moments_of_another_shape(shape):
    with pytest.raises(ValueError, match=r'must have shapes \(4,\) and \(4, 4\)'):
        Reduce2d(4, 2).project(torch.zeros(shape), torch.eye(3))


def test_more_directions_than_channels():
    with pytest.raises(ValueError, match='must vary in 5 directions; they vary in 4'):
        Reduce2d(4, 5).project(torch.zeros(4), torch.eye(4))


def test_small_variances_keep_their_share():
    """BatchNorm divides by the root of variance + eps."""
    reduction = Reduce2d(4, 3).eval()
    sizes = torch.tensor([3.0, 2.0, 1.0, 0.5])[None, :, None, None] * 1e-3  # variances about eps
    x = torch.randn(64, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * sizes
    features = x.transpose(0, 1).flatten(1).double()
    before = covariance(features)
    reduction.project(features.mean(1), before)
    with torch.inference_mode():
        after = covariance(reduction(x).transpose(0, 1).flatten(1).double()).diagonal()
    largest = torch.linalg.eigvalsh(before).flip(0)[:3]
    torch.testing.assert_close(after / after.mean(), largest / largest.mean(), rtol=1e-3, atol=0)


def test_a_batch_without_images_counts_as_none():
    build = {'backbone': 'test_resnet', 'global_pool': 'isqrt', 'reduce_dim': 4}
    torch.manual_seed(0)
    one, other = timm.create_model('gcp', **build), timm.create_model('gcp', **build)
    other.load_state_dict(one.state_dict())
    batch = torch.rand(4, 3, 64, 64)
    assert init_reduction(one, [batch]) == init_reduction(other, [batch, torch.rand(0, 3, 64, 64)]) == 4
    assert all(torch.equal(*pair) for pair in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
