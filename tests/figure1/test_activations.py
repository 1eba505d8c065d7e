"""What the recorder keeps, against the model run by hand, and that no hook stays behind."""

from pathlib import Path

import pytest
import torch
from activations_by_hand import DIM, LAYERS, by_hand, tiny

from timm_3g.figure1.activations import Recorder, default_layers


def no_hooks(model):
    return not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize('pool, blocks', [('3g', 3), ('urm_v2', 1), ('isqrt', 0)])
def test_recorder_keeps_what_the_modules_give(pool, blocks):
    model, pixels = tiny(reduce_dim=DIM, global_pool=pool), torch.randn(5, 3, 32, 32)
    assert default_layers(model) == LAYERS
    with torch.no_grad(), Recorder(model, [*LAYERS, 'forward_features', 'layer2']) as recorder:
        model(pixels[:3])
        model(pixels[3:])
    assert no_hooks(model)
    found = recorder.activations([Path(str(i)) for i in range(5)])
    features, before, after, weights = by_hand(model, pixels)
    expected = dict(zip([*LAYERS, 'forward_features'], (before, after, features), strict=True))
    for name, x in expected.items():
        torch.testing.assert_close(found.layers[name], x, rtol=1e-4, atol=1e-5)
    assert bool((found.layers[LAYERS[0]] < 0).any()), 'before the ReLU, which works in place'
    assert found.layers['layer2'].shape[0] == 5
    torch.testing.assert_close(found.reduced, after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.maps, weights, rtol=1e-4, atol=1e-5)
    assert found.maps.shape == (5, blocks, 64) and found.spectrum.shape == (5, DIM)


@pytest.mark.parametrize('name', ['test_resnet', 'test_convnext'])
def test_recorder_looks_in_front_of_the_pooling_of_any_model(name):
    model, pixels = tiny(name), torch.randn(2, 3, 96, 64)
    assert default_layers(model) == ['forward_features']
    with torch.no_grad(), Recorder(model, ['forward_features']) as recorder:
        model(pixels)
        expected = model.forward_features(pixels).flatten(2)
    assert no_hooks(model)
    found = recorder.activations([Path('a'), Path('b')])
    torch.testing.assert_close(found.layers, {'forward_features': expected})
    assert found.reduced.numel() == found.maps.numel() == found.spectrum.numel() == 0


def test_hooks_are_removed_after_an_error():
    model = tiny('test_vit')
    with pytest.raises(ValueError, match='no global_pool'):
        Recorder(model, ['patch_embed', 'forward_features']).__enter__()
    assert no_hooks(model)
    model = tiny(reduce_dim=DIM)
    with (
        pytest.raises(ValueError, match=r'^The layer fc must return feature maps \(B, C, H, W\); got \(2, 3\)'),
        Recorder(model, ['fc', *LAYERS]),
    ):
        model(torch.randn(2, 3, 32, 32))
    assert no_hooks(model)


@pytest.mark.parametrize('layer, times', [('layer1.0.shared', '2'), ('global_pool.reweight', '0')])
def test_a_layer_must_run_once(layer, times):
    model = tiny(reduce_dim=DIM)
    model.layer1[0].shared = torch.nn.Identity()
    model.layer1[0].conv1.register_forward_pre_hook(lambda module, inputs: model.layer1[0].shared(inputs[0]))
    model.layer1[0].conv1.register_forward_hook(lambda module, inputs, output: model.layer1[0].shared(output))
    with torch.no_grad(), Recorder(model, [layer, layer, *LAYERS]) as recorder:
        model(torch.randn(4, 3, 32, 32))
    with pytest.raises(ValueError, match=rf'^The layer {layer} must run once per forward pass; it ran {times} times'):
        recorder.require(4)


def test_a_layer_named_twice_is_one():
    model = tiny(reduce_dim=DIM)
    with torch.no_grad(), Recorder(model, ['layer1', 'layer1']) as recorder:
        model(torch.randn(4, 3, 32, 32))
    recorder.require(4)
    assert {name: len(x) for name, x in recorder.activations([Path('a')] * 4).layers.items()} == {'layer1': 4}


def test_recorder_refuses():
    with pytest.raises(
        ValueError, match=r"^layers must name modules of the model; got 'layer9'. Its top modules are conv1, .*global_pool"
    ):
        Recorder(tiny(reduce_dim=DIM), ['layer1', 'layer9'])
    model = tiny('test_vit')
    assert default_layers(model) == ['forward_features']
    with pytest.raises(ValueError, match='no global_pool, whose input would be recorded'):
        Recorder(model, ['forward_features']).__enter__()
