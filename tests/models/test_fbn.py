"""FBN as the pooling and classifier of a network."""

import logging

import onnxruntime
import pytest
import timm
import torch
from common import EXACT, FLOAT32, SMALL
from timm.utils.onnx import onnx_export
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import timm_3g
from timm_3g.__main__ import main
from timm_3g.compat import count_graph_breaks
from timm_3g.layers import FactorizedBilinear
from timm_3g.layers.factorized_bilinear import moments


def small(name: str = SMALL, **options) -> nn.Module:
    return timm.create_model(name, **{'global_pool': 'fbn', 'num_classes': 10, 'reduce_dim': 8, 'num_factors': 3, **options})


def on_a_backbone(**options) -> nn.Module:
    return small('gcp', backbone='resnet10t', **options)


BOTH = pytest.mark.parametrize('build', [small, on_a_backbone])


def test_parameters_and_multiply_adds():
    """Those of timm's ResNet-50, and 50 factors of 2,048 numbers for each of 1,000 classes, at 7 x 7 positions."""
    model = timm.create_model('resnet50_fbn', device='meta').eval()
    assert sum(p.numel() for p in model.parameters()) == 25_557_032 + 1000 * 50 * 2048
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device='meta'))
    assert round(counter.get_total_flops() / 2e9, 2) == round(4.09 + 1000 * 50 * 2048 * 49 / 1e9, 2)


def test_the_backbone_is_timms():
    model = timm.create_model('resnet50_fbn', num_classes=2, num_factors=1).eval()
    plain = timm.create_model('resnet50').eval()
    shared = {k: v for k, v in model.state_dict().items() if not k.startswith('classifier.')}
    assert not plain.load_state_dict(shared, strict=False).unexpected_keys
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.forward_features(x), plain.forward_features(x))


@BOTH
def test_the_classifier_scores_positions_and_their_moments_alike(build):
    model, x = build().double().eval(), torch.randn(2, 3, 64, 64, dtype=torch.float64)
    features = model.forward_features(x)
    vector = model.forward_head(features, pre_logits=True)
    assert vector.shape == (2, model.head_hidden_size) == (2, 8 + 8 * 8)
    torch.testing.assert_close(vector, moments(model.global_pool.reduce(features).flatten(2)), **EXACT)
    torch.testing.assert_close(model.get_classifier()(vector), model(x), **EXACT)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    torch.testing.assert_close(model(x), vector, **EXACT)
    model.reset_classifier(3)
    assert isinstance(model.get_classifier(), FactorizedBilinear) and model.double()(x).shape == (2, 3)


@BOTH
def test_another_pooling_and_back(build):
    model, x = build(), torch.randn(2, 3, 64, 64)
    model.reset_classifier(4, 'isqrt')
    assert type(model.get_classifier()) is nn.Linear and model(x).shape == (2, 4)
    model.reset_classifier(4, 'avg')
    assert type(model.get_classifier()) is nn.Linear and model(x).shape == (2, 4)
    model.reset_classifier(5, 'fbn')
    assert isinstance(model.get_classifier(), FactorizedBilinear) and model(x).shape == (2, 5)


def test_options_of_its_own_pooling_alone():
    """`resnet50_fbn` names num_factors, which no other pooling takes."""
    assert timm.create_model('resnet50_fbn', device='meta').get_classifier().factors.shape == (1000, 50, 2048)
    model = timm.create_model('resnet50_fbn', global_pool='isqrt', device='meta')
    assert model.global_pool.pool_type == 'isqrt' and 'num_factors' not in model.function_options()
    with pytest.raises(TypeError, match='has no option num_factors'):
        timm.create_model('resnet50_fbn', global_pool='isqrt', num_factors=3, device='meta')


@BOTH
def test_drop_rate_is_that_of_its_factors(build):
    model, x = build(drop_rate=0.5), torch.randn(2, 3, 64, 64)
    assert model.get_classifier().drop_rate == 0.5
    model.eval()
    features = model.forward_features(x)
    fixed = model.global_pool(features)
    model.get_classifier().train()  # the rest of the network has nothing to drop
    model.training = True
    assert not torch.equal(model.forward_head(features), model.forward_head(features))
    with torch.no_grad():
        model.get_classifier().factors.zero_()
    torch.testing.assert_close(model.forward_head(features), model.get_classifier()(fixed), **FLOAT32)


def test_an_average_beside_it_is_refused():
    with pytest.raises(ValueError, match="first_order must be left out for global_pool='fbn'"):
        on_a_backbone(out_index=-2, first_order=True)


def test_weights_load_whole_or_without_their_classifier(tmp_path, caplog):
    source = small()
    file = tmp_path / 'fbn.pth'
    torch.save(source.state_dict(), file)
    same = small(pretrained=True, pretrained_cfg_overlay={'file': str(file), 'num_classes': 10})
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in same.state_dict().items())
    with caplog.at_level(logging.INFO):
        other = small(pretrained=True, pretrained_cfg_overlay={'file': str(file), 'num_classes': 10}, num_classes=4)
    assert 'randomly initialised stay: fc.bias, fc.factors, fc.weight' in caplog.text
    assert torch.equal(other.global_pool.reduce.conv.weight, source.global_pool.reduce.conv.weight)
    with pytest.raises(ValueError, match=r'other shapes: fc.factors \(10, 3, 8\) for \(10, 2, 8\)'):
        small(pretrained=True, pretrained_cfg_overlay={'file': str(file), 'num_classes': 10}, num_factors=2)


def test_a_folder_brings_its_factors(tmp_path):
    model = small(num_factors=4).eval()
    torch.save({'state_dict': model.state_dict(), 'arch': SMALL}, tmp_path / 'fbn.pth')
    options = ['--model', SMALL, '--model-kwargs', 'global_pool=fbn', 'reduce_dim=8', 'num_factors=4']
    assert main(['export', str(tmp_path / 'fbn.pth'), '--output', str(tmp_path / 'out'), *options]) == 0
    loaded = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32)
    assert loaded.get_classifier().factors.shape == (10, 4, 8) and torch.equal(loaded(x), model(x))


@BOTH
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(build, dtype):
    model, x = build(), torch.randn(2, 3, 64, 64)
    with torch.autocast('cpu', dtype):
        logits = model(x)
    assert logits.dtype == (torch.float32 if dtype == torch.float16 else dtype)
    logits.float().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@BOTH
def test_onnx_torchscript_and_one_graph(build, tmp_path):
    x = torch.randn(2, 3, 64, 64)
    model = build(exportable=True).eval()
    expected = model(x).detach()
    assert count_graph_breaks(model, x) == 0
    torch.testing.assert_close(torch.jit.script(model)(x), expected, **FLOAT32)
    for dynamo in (False, True):
        onnx_export(model, str(tmp_path / 'model.onnx'), batch_size=2, input_size=(3, 64, 64), use_dynamo=dynamo)
        session = onnxruntime.InferenceSession(str(tmp_path / 'model.onnx'))
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-3, atol=1e-4)


def test_the_pooling_alone_gives_a_vector():
    assert timm_3g.create_global_pool('fbn', 16, 8)(torch.randn(2, 16, 5, 5)).shape == (2, 72)
