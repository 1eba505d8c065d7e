"""BatchNorms of the head: folded by timm's convention, and otherwise called as modules, whatever stands in their place."""

import copy

import pytest
import timm
import torch
from common import EXACT, SMALL, create_global_pool
from timm.layers import convert_splitbn_model, freeze_batch_norm_2d
from timm.utils import reparameterize_model
from torch import nn

NAMES = ['3g', 'urm_v1', 'urm_v2', 'isqrt']
BATCH_NORMS = {'3g': 19, 'urm_v1': 2, 'urm_v2': 4, 'isqrt': 1}  # of the reduction, and 6 in each of three blocks


class MyBatchNorm(nn.BatchNorm2d):
    """A subclass: what it computes is its own affair."""


def subclass(module):
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                replaced = MyBatchNorm(child.num_features).to(child.weight.dtype)
                replaced.load_state_dict(child.state_dict())
                setattr(parent, name, replaced)
    return module


# What timm's options and users put in the place of a BatchNorm2d: --sync-bn, --split-bn, freezing, a class of their own.
VARIANTS = {
    'sync': nn.SyncBatchNorm.convert_sync_batchnorm,
    'split': lambda module: convert_splitbn_model(module, 2),
    'frozen': lambda module: freeze_batch_norm_2d(module),
    'subclass': subclass,
}


def pool(name, dtype=torch.float64):
    """With running statistics that are not 0 and 1."""
    built = create_global_pool(name, 12, 8).to(dtype)
    for _ in range(3):
        built(torch.randn(6, 12, 4, 4, dtype=dtype))
    return built


@pytest.mark.parametrize('mode', [True, False])  # timm's scripts fold before they call eval()
@pytest.mark.parametrize('name', NAMES)
def test_reparameterized_is_the_same_function(name, mode):
    original = pool(name).train(mode)
    state = copy.deepcopy(original.state_dict())
    folded = reparameterize_model(original).eval()
    x = torch.randn(3, 12, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(folded(x), original.eval()(x), **EXACT)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in original.modules()) == BATCH_NORMS[name]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(value, state[key]) for key, value in original.state_dict().items())
    torch.testing.assert_close(reparameterize_model(folded)(x), folded(x), rtol=0, atol=0)  # nothing left to fold


def test_whole_model_reparameterized():
    model = timm.create_model(SMALL, num_classes=5).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(reparameterize_model(model)(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('variant', VARIANTS)
@pytest.mark.parametrize('name', ['3g', 'urm_v2'])
def test_folding_steps_aside(name, variant):
    changed = VARIANTS[variant](pool(name)).eval()
    before = [type(m) for m in changed.modules()]
    folded = reparameterize_model(changed)
    assert [type(m) for m in folded.modules()] == before and nn.Identity not in before
    x = torch.randn(4, 12, 4, 4, dtype=torch.float64)
    if variant != 'sync':  # which runs on a GPU alone
        torch.testing.assert_close(folded(x), changed(x), rtol=0, atol=0)


def test_a_batch_norm_without_statistics_is_not_folded():
    built = pool('3g')
    block = built.reweight[0]
    block.bn_a = nn.BatchNorm2d(8, track_running_stats=False).double()
    folded = reparameterize_model(built)
    assert type(folded.reweight[0].bn_a) is nn.BatchNorm2d and type(folded.reweight[0].bn_b) is nn.Identity


def test_a_hooked_pair_is_not_folded():
    built = pool('3g')
    hook = built.reweight[0].bn_a.register_forward_hook(lambda *_: None)
    block = reparameterize_model(built).reweight[0]
    hook.remove()
    assert type(block.bn_a) is nn.BatchNorm2d and type(block.bn_b) is nn.Identity


@pytest.mark.parametrize('variant', ['plain', 'split', 'frozen', 'subclass'])
@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('name', NAMES)
def test_every_batch_norm_is_called_once(name, training, variant):
    """None is bypassed: so that hooks, sync-bn, split-bn, frozen statistics and bn_momentum mean what they mean elsewhere."""
    built = pool(name)
    built = VARIANTS.get(variant, lambda module: module)(built).train(training)
    calls = []
    norms = [m for n, m in built.named_modules() if n.split('.')[-1].startswith('bn')]
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: calls.append(module))
    built(torch.randn(4, 12, 4, 4, dtype=torch.float64)).sum().backward()
    assert len(calls) == len(norms) == BATCH_NORMS[name] and {*map(id, calls)} == {*map(id, norms)}


@pytest.mark.parametrize('momentum', [0.1, 0.25, None])
def test_running_statistics_move_by_the_momentum(momentum):
    built = pool('3g')
    bn = built.reweight[0].bn_a
    bn.momentum = momentum
    bn.reset_running_stats()
    seen = []
    bn.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    for _ in range(2):
        built(torch.randn(4, 12, 4, 4, dtype=torch.float64))
    means = [x.mean((0, 2, 3)) for x in seen]
    expected = sum(means) / 2 if momentum is None else momentum * (1 - momentum) * means[0] + momentum * means[1]
    torch.testing.assert_close(bn.running_mean, expected, **EXACT)
    assert bn.num_batches_tracked == 2


@pytest.mark.parametrize('name', NAMES)
def test_layout_of_the_features_does_not_matter(name):
    built = pool(name)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        x = torch.randn(4, 12, 4, 4, dtype=torch.float64).contiguous(memory_format=memory_format).requires_grad_()
        out = copy.deepcopy(built)(x)
        results.append((out.detach(), torch.autograd.grad(out.square().sum(), x)[0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, **EXACT)
