"""Re-weighting against the authors' block, its symmetric power option, and DropCov's training branch against its definition."""

from copy import deepcopy

import pytest
import reference
import torch
from common import EXACT, create_global_pool, features
from timm.utils import reparameterize_model
from torch.nn import functional as F

import timm_3g
from timm_3g.checkpoints.formats import _ATMP
from timm_3g.layers import DropCovPool2d, Reweight2d, ReweightURMv1, ReweightURMv2, record_weights
from timm_3g.layers.reweight import bounded_relu


@pytest.mark.parametrize('training', [True, False])
def test_equals_the_authors_block(training):
    theirs = reference.AuthorsReweight()
    reference.randomize_(theirs, 1)
    theirs = theirs.double().train(training)
    ours = Reweight2d(256).double().train(training)
    names = {ours_: theirs_ for theirs_, ours_ in _ATMP.items()}
    state = theirs.state_dict()
    ours.load_state_dict({k: state[f'{names[k.rsplit(".", 1)[0]]}.{k.rsplit(".", 1)[1]}'] for k in ours.state_dict()})
    x, x_hat = features(2, 256, 4, 3, dtype=torch.float64), features(2, 256, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x_hat, x), theirs(x_hat, x), **EXACT)
    assert sum(p.numel() for p in ours.parameters()) == 346_817


def _conv_bn(block, letter, x):
    return getattr(block, f'bn_{letter}')(getattr(block, f'conv_{letter}')(x))


def test_unit_variants_follow_their_formulas():
    x = features(3, 8)
    v1, v2 = ReweightURMv1(8).eval(), ReweightURMv2(8).eval()
    squeeze = v1.squeeze
    w1 = torch.sigmoid(squeeze.conv_g(F.relu(_conv_bn(squeeze, 'f', x))))
    torch.testing.assert_close(v1(x, x), w1 * x)
    product = F.relu(_conv_bn(v2, 'd', x)) * F.relu(_conv_bn(v2, 'e', x))
    w2 = torch.sigmoid(v2.squeeze.conv_g(F.relu(_conv_bn(v2.squeeze, 'f', product))))
    torch.testing.assert_close(v2(x, x), w2 * x)
    assert squeeze.conv_f.out_channels == 2


def test_blocks_chain_on_x_hat_and_keep_x():
    pool = create_global_pool('3g', 8, 0, num_reweights=2).eval()
    x = features(2, 8)
    first, second = pool.reweight
    torch.testing.assert_close(pool.refine(x), second(first(x, x), x))


def test_power_is_off_at_zero_and_signed():
    block = Reweight2d(8).eval()
    x = features(2, 8)
    plain = block.weight(x, x).detach()
    assert float(plain.min()) >= 0 and float(plain.max()) <= 1
    block.beta = 0.5
    z = F.relu(_conv_bn(block, 'a', x) * _conv_bn(block, 'b', x) + _conv_bn(block, 'c', x))
    a = block.squeeze(F.relu(_conv_bn(block, 'd', z)) * F.relu(_conv_bn(block, 'e', z)))
    assert bool((a < 0).any())  # the power of a negative number is the case in point
    expected = torch.sigmoid(a + block.conv_h(a.sign() * a.abs().sqrt()))
    torch.testing.assert_close(block.weight(x, x), expected, rtol=1e-2, atol=1e-3)  # the 1e-5 inside the power
    with torch.no_grad():
        block.squeeze.conv_g.weight.zero_()  # a = 0: the power's derivative must stay finite
    block.weight(x.requires_grad_(), x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in block.parameters())


def in_own_memory(x):
    return bounded_relu(x.clone())  # it works in place, which a leaf forbids


def test_bounded_relu_is_hardtanh_with_its_gradient():
    at = [-1.0, 0.0, 2.0, 9e14, 1e15, 2e15, float('inf'), -float('inf'), float('nan')]
    results = []
    for function in (in_own_memory, lambda x: F.hardtanh(x, 0.0, 1e15)):
        x = torch.tensor(at, requires_grad=True)
        y = function(x)
        results.append((y.detach(), torch.autograd.grad(y, x, torch.arange(1.0, 10.0))[0]))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)
    x = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(in_own_memory, x)
    per_sample = torch.func.vmap(torch.func.grad(lambda row: in_own_memory(row).sum()))(x.detach().view(2, 3))
    torch.testing.assert_close(per_sample, (x.detach().view(2, 3) > 0).double())


def test_a_block_keeps_twelve_and_a_half_maps_for_the_backward():
    block, x = Reweight2d(64), features(4, 64, 8, 8).requires_grad_()
    own = {t.untyped_storage().data_ptr() for t in (*block.parameters(), *block.buffers())}
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = block(x, x)
    maps = sum(size for pointer, size in kept.items() if pointer not in own) / x.untyped_storage().nbytes()
    # x; a, b, c, d, e in front of their BatchNorms; a, b behind; z; d, e, both bounded; their product; twice 1/4 in the squeeze
    assert out.requires_grad and 12.5 <= maps < 13


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_blocks_run_in_channels_last_on_a_cpu(memory_format):
    pool = create_global_pool('3g', 8, 0)
    layouts = []
    for module in pool.reweight.modules():
        if isinstance(module, torch.nn.Conv2d) and module.in_channels == 8:
            module.register_forward_pre_hook(
                lambda _, inputs: layouts.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    x = features(2, 8).contiguous(memory_format=memory_format)
    assert pool.refine(x).is_contiguous(memory_format=torch.channels_last)
    assert layouts == [True] * 18
    assert create_global_pool('isqrt', 8, 0).refine(x) is x  # nothing to re-weight, nothing to copy


@pytest.mark.parametrize('name', ['3g', 'urm_v1', 'urm_v2'])
def test_reparameterized_records_the_same_maps_and_scripts(name):
    pool = create_global_pool(name, 8, 0).double()
    x = features(3, 8, dtype=torch.float64)
    pool(x)  # running statistics other than 0 and 1
    folded = reparameterize_model(pool.eval())
    with record_weights(pool) as expected, record_weights(folded) as maps, torch.no_grad():
        pool(x), folded(x)
    assert len(maps) == pool.num_reweights
    torch.testing.assert_close(maps, expected, **EXACT)
    torch.testing.assert_close(torch.jit.script(folded)(x), folded(x), **EXACT)


def test_convolutions_have_the_authors_initialisation():
    pool = create_global_pool('3g', 512, 256)
    for conv in (m for m in pool.modules() if isinstance(m, torch.nn.Conv2d)):
        expected = (2 / conv.out_channels) ** 0.5  # fan_out of a 1x1 convolution
        if conv.weight.numel() >= 64:
            assert float(conv.weight.detach().std()) == pytest.approx(expected, rel=0.3)
    std = torch.tensor([Reweight2d(4).conv_h.weight.item() for _ in range(300)]).std()
    assert float(std) == pytest.approx(2**0.5, rel=0.15)


def test_dropcov_in_training():
    pool = DropCovPool2d(16).double().train()
    # Channel means against the covariance: the similarity is small and the rate well inside (0, 1).
    x = features(4, 16, dtype=torch.float64).flatten(2)
    x = x - x.mean(2, keepdim=True) + 0.1 * torch.randn(4, 16, 1, dtype=torch.float64)
    pool.rate_scale = 0.5
    importance = pool.conv(x.mean(2).unsqueeze(1)).squeeze(1).softmax(1)
    row_sums = torch.stack([torch.from_numpy(reference.covariance(i.numpy()).sum(1)) for i in x])
    rate = (1 - 0.5 * F.cosine_similarity(importance, row_sums).mean()).clamp(0, 1 - 1 / 16)
    assert 0.1 < rate < 0.9 and DropCovPool2d(16).rate_scale == 10 / 4
    torch.manual_seed(3)
    got = pool.drop_channels(x)
    torch.manual_seed(3)
    keep = (torch.rand(4, 16, dtype=torch.float64) >= rate).double() / (1 - rate)
    torch.testing.assert_close(got, x * (1 + importance).unsqueeze(2) * keep.unsqueeze(2))
    pool(x.unsqueeze(3)).sum().backward()
    assert pool.conv.weight.grad.abs().sum() > 0


def test_dropcov_never_drops_everything():
    pool = DropCovPool2d(4).train()
    kept = sum(bool(pool.drop_channels(torch.zeros(64, 4, 5) + torch.eye(4, 5)).any()) for _ in range(5))
    assert kept == 5
    assert torch.isfinite(pool(torch.zeros(2, 4, 2, 2))).all()


@pytest.mark.parametrize('name', ['3g', 'urm_v1', 'urm_v2'])
def test_recording_changes_nothing(name):
    """What the forward computes is recorded: a training step updates each statistic once. Contexts may be nested."""
    pool = create_global_pool(name, 8, 4)
    x = torch.rand(2, 8, 5, 5)
    with timm_3g.record_weights(pool) as outer, timm_3g.record_weights(pool) as inner:
        pool(x)
    assert {int(v) for k, v in pool.state_dict().items() if k.endswith('num_batches_tracked')} == {1}
    assert len(outer) == len(inner) == pool.num_reweights and all(map(torch.equal, outer, inner))
    assert not any(w.requires_grad for w in outer)
    pool(x)
    assert len(outer) == pool.num_reweights and not any('weight' in vars(m) for m in pool.reweight)


def test_a_copy_that_is_made_while_weights_are_recorded_is_one():
    pool, x = create_global_pool('3g', 8, 4).eval(), torch.rand(2, 8, 5, 5)
    with record_weights(pool) as outer, record_weights(pool) as maps:
        copied = deepcopy(pool)
        with record_weights(copied) as own:
            copied(x)
        assert len(own) == 3 and not maps and not outer
        pool(x)
    assert len(maps) == len(outer) == 3
    for parameter in copied.reweight.parameters():
        torch.nn.init.constant_(parameter, 0.3)
    again = create_global_pool('3g', 8, 4).eval()
    again.load_state_dict(copied.state_dict())
    assert torch.equal(copied(x), again(x)) and not torch.equal(copied(x), pool(x))
    assert len(maps) == len(own) == 3
