"""Every pooling under the tools of PyTorch: torch.func, torch.fx, fake and meta tensors, half precision, quantization."""

import copy

import pytest
import timm
import torch
from common import EXACT, LITE, MODELS, SMALL, assert_agree, create_global_pool, features, shallow, slow_unless
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.ao.quantization import get_default_qconfig_mapping, quantize_dynamic
from torch.ao.quantization.quantize_fx import prepare_fx
from torch.func import functional_call, grad, hessian, jvp, vmap
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import timm_3g
from timm_3g.layers import classify, record_weights
from timm_3g.layers.create_pool import POOLS

ONCE = ['mpn', 'mggd']  # the poolings without a second derivative


def small(name: str = SMALL, **kwargs) -> nn.Module:
    return timm.create_model(name, **{'num_classes': 4, 'reduce_dim': 16, 'head_init': 'orig', **kwargs}).eval()


# torch.func -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', [slow_unless(name in ('3g', 'bcnn', 'mggd'), name) for name in POOLS])
def test_per_sample_gradients_are_those_of_each_image(name):
    model = small(global_pool=name).double()
    images = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    params = {k: p.detach() for k, p in model.named_parameters()}

    def loss(params, image):
        return functional_call(model, params, (image[None],)).square().sum()

    per_sample = vmap(grad(loss), (None, 0))(params, images)
    for i, image in enumerate(images):
        expected = torch.autograd.grad(model(image[None]).square().sum(), [*model.parameters()], materialize_grads=True)
        torch.testing.assert_close([per_sample[k][i] for k in params], list(expected), **EXACT)


@pytest.mark.parametrize('name', POOLS)
def test_forward_mode_is_the_transpose_of_reverse_mode(name):
    pool = create_global_pool(name, 12, 6).double().eval()
    x, direction = features(dtype=torch.float64), torch.randn(2, 12, 5, 4, dtype=torch.float64)
    cotangent = torch.randn(2, pool.out_features, dtype=torch.float64)
    _, forward = jvp(pool, (x,), (direction,))
    reverse = grad(lambda x: (pool(x) * cotangent).sum())(x)
    torch.testing.assert_close((forward * cotangent).sum(), (direction * reverse).sum(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize('strategy', ['reverse-mode', 'forward-mode'])
@pytest.mark.parametrize('name', POOLS)
def test_vectorized_jacobian(name, strategy):
    """torch.autograd has a vmap of its own, which the transforms of torch.func do not see."""
    pool = create_global_pool(name, 4, 3).double().eval()
    x = features(1, 4, 2, 3, dtype=torch.float64)
    expected = torch.autograd.functional.jacobian(pool, x)
    got = torch.autograd.functional.jacobian(pool, x, strategy=strategy, vectorize=True)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('name', [name for name in POOLS if name not in ONCE])
def test_hessian(name):
    """Against double backward through the eager forms, which have their own derivatives."""
    pool = create_global_pool(name, 4, 3).double().eval()
    x = features(1, 4, 2, 3, dtype=torch.float64)
    weight = torch.randn(1, pool.out_features, dtype=torch.float64)

    def loss(flat):
        return (pool(flat.view_as(x)) * weight).sum()

    flat = x.flatten().requires_grad_()
    expected = torch.autograd.functional.hessian(loss, flat.detach())
    torch.testing.assert_close(hessian(loss)(flat.detach()), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('name', ONCE)
def test_the_rest_refuses_second_derivatives(name):
    pool = create_global_pool(name, 4, 3).double().eval()
    with pytest.raises(RuntimeError, match='has no second derivative'):
        hessian(lambda x: pool(x).sum())(features(1, 4, 2, 3, dtype=torch.float64))


# torch.fx -------------------------------------------------------------------------------------------------------------


# torch keeps it, and says that torchao will have it.
IGNORE_QUANTIZATION = pytest.mark.filterwarnings(
    'ignore:torch.(ao.quantization|quantize_per_tensor)', 'ignore:Please use quant_min and quant_max'
)


@IGNORE_QUANTIZATION
@pytest.mark.filterwarnings('ignore:The TorchScript type system')  # of torch's own GraphModule
@pytest.mark.parametrize(
    ('backbone', 'name'),
    [
        *(slow_unless(name in ('3g', 'cbp'), SMALL, name) for name in ('3g', 'cbp', 'avg', 'catavgmax')),
        slow_unless(False, LITE, '3g'),
    ],
)
def test_symbolic_trace_and_feature_extraction(backbone, name):
    model, x = small(backbone, global_pool=name), torch.randn(2, 3, 64, 64)
    traced = torch.fx.symbolic_trace(model)
    torch.fx.symbolic_trace(copy.deepcopy(model).train())
    nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]  # those of dropcov differ in train mode
    nodes = [node for node in nodes if node.startswith('global_pool.')]
    wanted = {nodes[0]: 'first', nodes[-1]: 'last', 'layer3' if backbone == SMALL else 'blocks.3': 'stage'}
    if name in POOLS:
        wanted |= {'global_pool.reduce': 'reduced'}
    if len(getattr(model.global_pool, 'reweight', ())) > 0:
        wanted |= {'global_pool.reweight.0': 'reweighted'}
    with torch.no_grad():
        got = create_feature_extractor(model, wanted, suppress_diff_warning=True)(x)
        assert torch.equal(traced(x), model(x))
        assert torch.equal(got['last'], model.forward_head(model.forward_features(x), pre_logits=True))
        if name in POOLS:
            assert torch.equal(got['reduced'], model.global_pool.reduce(model.forward_features(x)))
    torch.testing.assert_close(torch.jit.script(traced)(x), model(x), rtol=1e-4, atol=1e-5)
    prepare_fx(model, get_default_qconfig_mapping(), (x,))(x)


@IGNORE_QUANTIZATION
@pytest.mark.filterwarnings('ignore:The TorchScript type system')  # of torch's own GraphModule
@pytest.mark.parametrize('name', [slow_unless(name in ('isqrt', 'dropcov'), name) for name in timm_3g.list_pools()])
def test_symbolic_trace_of_every_pooling(name):
    model, x = shallow(name).eval(), torch.randn(2, 3, 32, 32)
    pool = model[1]
    traced = torch.fx.symbolic_trace(model)
    torch.fx.symbolic_trace(copy.deepcopy(model).train())
    nodes = get_graph_node_names(model, suppress_diff_warning=True)[1]  # those of dropcov differ in train mode
    nodes = [node for node in nodes if node.startswith('1.')]
    wanted = {nodes[0]: 'first', nodes[-1]: 'last'}
    if name in POOLS:
        wanted |= {'1.reduce': 'reduced'}
    if len(getattr(pool, 'reweight', ())) > 0:
        wanted |= {'1.reweight.0': 'reweighted'}
    with torch.no_grad():
        got = create_feature_extractor(model, wanted, suppress_diff_warning=True)(x)
        assert torch.equal(traced(x), model(x))
        assert torch.equal(got['last'], pool(model[0](x)))
        if name in POOLS:
            assert torch.equal(got['reduced'], pool.reduce(model[0](x)))
    torch.testing.assert_close(torch.jit.script(traced)(x), model(x), rtol=1e-4, atol=1e-5)
    prepare_fx(model, get_default_qconfig_mapping(), (x,))(x)


@pytest.mark.parametrize(
    'name', [slow_unless(name in (SMALL, LITE, 'resnet18_bcnn', 'resnet50_isqrt'), name) for name in MODELS]
)
def test_every_network_is_traced(name):
    with torch.device('meta'):
        torch.fx.symbolic_trace(timm.create_model(name, num_classes=2))


@pytest.mark.parametrize('name', ['3g', 'cov'])
def test_a_traced_network_still_refuses_other_channels_and_keeps_float32_under_autocast(name):
    pool = torch.fx.symbolic_trace(create_global_pool(name, 12, 0).eval())
    with pytest.raises(ValueError, match=r'takes features \(B, 12, H, W\); got \(2, 11, 5, 4\)'):
        pool(features(channels=11))
    x = features()
    if name == 'cov':  # the re-weighting's convolutions follow autocast
        with torch.autocast('cpu', torch.bfloat16):
            assert torch.equal(pool(x), create_global_pool(name, 12, 0)(x))


# Fake and meta tensors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', POOLS)
def test_meta_device_and_assign(name):
    """No buffer stands outside the state dict, so that nothing stays behind on the meta device."""
    source, x = small(global_pool=name), torch.randn(2, 3, 32, 32)
    with torch.device('meta'):
        model = small(global_pool=name)
    assert model.load_state_dict(source.state_dict(), assign=True).missing_keys == []
    assert {t.device.type for t in (*model.parameters(), *model.buffers())} == {'cpu'}
    assert {k for k, _ in (*model.named_parameters(), *model.named_buffers())} == set(model.state_dict())
    assert torch.equal(model(x), source(x))


@pytest.mark.parametrize('name', [slow_unless(name in ('3g', 'cbp', 'mggd'), name) for name in POOLS])
def test_built_and_run_with_fake_tensors(name):
    with FakeTensorMode():
        assert small(global_pool=name)(torch.empty(2, 3, 64, 64)).shape == (2, 4)


# Half precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', POOLS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('channels', 'dim', 'side'), [(12, 6, 5), (64, 32, 7)])
def test_weights_in_half_precision(name, dtype, channels, dim, side):
    """Within 5e-3 of float32 with the same weights and features: what is left is the rounding of the result."""
    pool = create_global_pool(name, channels, dim).to(dtype).eval()
    x = features(3, channels, side, side).to(dtype)
    with torch.no_grad():
        got, expected = pool(x), copy.deepcopy(pool).float()(x.float())
    assert got.dtype == dtype
    assert float((got.float() - expected).norm() / expected.norm()) < 5e-3


@pytest.mark.parametrize('name', POOLS)
@pytest.mark.parametrize('scale', [1e-7, 1.0, 1e3, 6e4])
@pytest.mark.parametrize('training', [False, True])
def test_finite_in_finite_out_in_float16(name, scale, training):
    for reduce_dim in (6, 0):
        pool = create_global_pool(name, 12, reduce_dim).half().train(training)
        x = (torch.rand(3, 12, 5, 4) * scale).half().requires_grad_()
        y = pool(x)
        assert y.isfinite().all()
        y.float().mean().backward()
        assert not x.grad.isnan().any()


@pytest.mark.parametrize('name', POOLS)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('of_features', [torch.float32, torch.float16])
def test_weights_in_half_precision_under_fp16_autocast(name, dtype, of_features):
    """As without weights in half precision: the head computes and returns float32."""
    pool, classifier = create_global_pool(name, 12, 6, input_fmt='NHWC').to(dtype).eval(), nn.Linear(5, 2).to(dtype)
    x = features(3, 12, 4, 4).to(of_features).permute(0, 2, 3, 1)
    with torch.autocast('cpu', torch.float16):
        got, scores = pool(x), classify(classifier, torch.ones(1, 5, dtype=of_features))
    with torch.no_grad():
        expected = copy.deepcopy(pool).float()(x.float())
    assert got.dtype == scores.dtype == torch.float32
    torch.testing.assert_close(got, expected)
    scores.sum().backward()
    assert classifier.weight.grad is not None


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore:The .grad attribute of a Tensor that is not a leaf')  # dynamo reads it at its graph break
def test_hooks_run_once_under_compile():
    """functional_call ran them again in the graph."""
    pool = create_global_pool('cov', 8, 4).bfloat16().eval()
    model, x = nn.Sequential(pool), torch.rand(2, 8, 3, 3).bfloat16()
    plain = model(x)
    pool.register_forward_hook(lambda module, inputs, output: 2 * output)
    assert torch.equal(model(x), 2 * plain) and torch.equal(torch.compile(model, backend='eager')(x), 2 * plain)


@pytest.mark.filterwarnings('ignore:`torch.jit.trace:FutureWarning')
@pytest.mark.slow
@pytest.mark.parametrize(('name', 'options'), [('3g', {'num_reweights': 1}), ('bcnn', {})])
def test_half_precision_trains(name, options):
    """Running statistics are kept, gradients arrive, hooks run once, and a compiled or traced model agrees."""
    model, x = small(global_pool=name, **options).half(), torch.randn(2, 3, 16, 16).half()  # float16 is slow on a CPU
    calls = []
    hook = model.global_pool.register_forward_hook(lambda *_: calls.append(1))
    before = {k: b.clone() for k, b in model.named_buffers() if 'running' in k}
    model.train()(x).float().square().sum().backward()
    hook.remove()
    assert calls == [1]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(not torch.equal(b, model.get_buffer(k)) for k, b in before.items())
    model.eval()
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')(x)
    traced = torch.jit.trace(model, (x,), check_trace=False)(x)  # in float16, where the check would be in float32
    for got in (compiled, torch.export.export(model, (x,)).module()(x), torch.jit.script(model)(x), traced):
        torch.testing.assert_close(got, expected, rtol=0.02, atol=0.02 * float(expected.detach().abs().max()))


def test_maps_are_recorded_in_half_precision():
    model = small(global_pool='3g').half()
    with record_weights(model) as maps, torch.no_grad():
        model(torch.randn(2, 3, 32, 32).half())
    assert [m.shape[:2] for m in maps] == [(2, 1)] * 3


# Layouts, pruning, quantization ---------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', POOLS)
def test_input_formats(name):
    pool, x = create_global_pool(name, 12, 6).eval(), features()
    layouts = {'NHWC': x.permute(0, 2, 3, 1), 'NLC': x.flatten(2).transpose(1, 2), 'NCL': x.flatten(2)}
    for fmt, given in layouts.items():
        other = create_global_pool(name, 12, 6, input_fmt=fmt).eval()
        other.load_state_dict(pool.state_dict())
        assert_agree(name, other(given), pool(x), rtol=1e-5, atol=1e-6)
        with pytest.raises(ValueError, match=rf"They look like {fmt}: build the pooling with input_fmt='{fmt}'"):
            pool(given)
    assert timm_3g.create_global_pool('avg', 12, input_fmt='NHWC')(layouts['NHWC']).shape == (2, 12)


def test_maps_of_an_nhwc_pooling_lie_as_the_features_do():
    with record_weights(pool := create_global_pool('3g', 12, 6, input_fmt='NHWC')) as maps:
        pool(features().permute(0, 2, 3, 1))
    assert [m.shape for m in maps] == [(2, 1, 5, 4)] * 3


def test_unknown_formats():
    with pytest.raises(ValueError, match="input_fmt of global_pool='3g' must be one of NCHW, NHWC, NLC, NCL; got 'BCHW'"):
        create_global_pool('3g', 12, input_fmt='BCHW')
    with pytest.raises(ValueError, match="input_fmt of global_pool='avg' must be one of NCHW, NHWC; got 'NLC'"):
        create_global_pool('avg', 12, input_fmt='NLC')


def test_a_misspelt_option_or_name_gets_the_nearest():
    with pytest.raises(TypeError, match=r"'3g' has no option num_iter\. .*\. Did you mean num_iters\?"):
        create_global_pool('3g', 12, num_iter=3)
    with pytest.raises(ValueError, match=r"Unknown global pooling 'isqr'\. .*\. Did you mean isqrt\?"):
        create_global_pool('isqr', 12)


@pytest.mark.filterwarnings('ignore:`torch.jit.trace:FutureWarning')
def test_the_pooling_follows_a_pruned_reduction():
    """Structured pruning takes channels off the convolution, in front and behind, and does not know of the pooling."""
    pool, x = create_global_pool('isqrt', 12, 6).eval(), features(channels=12)
    pruned = copy.deepcopy(pool)
    pruned.reduce.conv = nn.Conv2d(9, 4, 1, bias=False)
    pruned.reduce.conv.weight.data = pool.reduce.conv.weight.data[:4, :9]
    pruned.reduce.bn = nn.BatchNorm2d(4).eval()
    expected = create_global_pool('isqrt', 9, 4).eval()
    expected.load_state_dict(pruned.state_dict())
    assert torch.equal(pruned(x[:, :9]), expected(x[:, :9]))
    traced = torch.jit.trace(pruned, x[:, :9])
    torch.testing.assert_close(traced(x[:, :9]), expected(x[:, :9]))
    with pytest.raises(ValueError, match=r'takes features \(B, 9, H, W\); got \(2, 12, 5, 4\)'):
        pruned(x)


@IGNORE_QUANTIZATION
@pytest.mark.parametrize('backbone', [SMALL, LITE])
def test_the_classifier_is_exactly_a_linear(backbone):
    """Tools look it up by its type: quantize_dynamic, thop, LoRA."""
    model = small(backbone)
    assert type(model.get_classifier()) is nn.Linear
    quantized = quantize_dynamic(copy.deepcopy(model), {nn.Linear})
    x = torch.randn(2, 3, 64, 64)
    assert type(quantized.get_classifier()).__name__ == 'Linear' and type(quantized.get_classifier()) is not nn.Linear
    torch.testing.assert_close(quantized(x), model(x), rtol=0.1, atol=0.05 * float(model(x).detach().abs().max()))
