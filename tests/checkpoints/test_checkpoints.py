"""Loading: the authors' files through timm's own path against independent networks, refusals, adaptation, round trips."""

import argparse
import json
import logging

import pytest
import reference
import timm
import torch
from common import LITE, SMALL, slow_unless
from safetensors.torch import save_file

from timm_3g.models import checkpoint_filter_fn
from timm_3g.publishing import export

NETS = {'3g': reference.AuthorsNet3G, 'isqrt': reference.AuthorsNetISQRT}
# Both networks in float64 differ by the order of their sums alone, and by the ill-conditioning of a random network.
FLOAT64 = {'rtol': 1e-7, 'atol': 1e-10}


def authors(kind: str, depth: int, **kwargs) -> torch.nn.Module:
    net = NETS[kind](depth, **kwargs)
    reference.randomize_(net, depth)
    return net


def load(name: str, file, **kwargs) -> torch.nn.Module:
    overlay = {'file': str(file), **kwargs.pop('overlay', {})}
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)


@pytest.fixture(scope='module')
def orig18(tmp_path_factory):
    """The authors' ResNet-18-3G with ten classes, and its file in their format."""
    net = authors('3g', 18, num_classes=10)
    file = tmp_path_factory.mktemp('orig') / 'ResNet18-3G.pth.tar'
    reference.save_legacy(net, file)
    return net, file


def ten(**overlay) -> dict:
    return {'num_classes': 10, 'overlay': {'num_classes': 10, **overlay}}


# The authors' networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('kind', 'depth'),
    [
        slow_unless(depth == 18, kind, depth)
        for kind, depths in (('3g', (18, 23, 50, 101)), ('isqrt', (18, 50, 101)))  # both blocks; numbers of two digits
        for depth in depths
    ],
)
def test_logits_and_gradients_equal_the_authors(kind, depth):
    """Vectors, logits and the gradient of every parameter; vectors too, because a random Linear hides most of the head."""
    theirs = authors(kind, depth, num_classes=5)
    ours = timm.create_model(f'resnet{depth}_{kind}', num_classes=5)
    ours.pretrained_cfg['num_classes'] = 5
    ours.load_state_dict(checkpoint_filter_fn({f'module.{k}': v for k, v in theirs.state_dict().items()}, ours))
    for training in (False, True):
        agree(ours.double().train(training), theirs.double().train(training))


def agree(ours, theirs):
    """Their vectors, logits and gradients, in the mode in which they are."""
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    vectors = []
    ours.zero_grad(), theirs.zero_grad()
    hooks = [net.fc.register_forward_pre_hook(lambda module, args: vectors.append(args[0])) for net in (ours, theirs)]
    logits = ours(x), theirs(x)
    [hook.remove() for hook in hooks]
    torch.testing.assert_close(*logits, **FLOAT64)
    torch.testing.assert_close(vectors[0] / vectors[1].norm(), vectors[1] / vectors[1].norm(), **FLOAT64)
    cotangent = torch.randn_like(logits[0])
    gradients = []
    for output in logits:
        gradients.append((output * cotangent).sum())
    gradients[0].backward()
    gradients[1].backward()
    expected = checkpoint_filter_fn(
        {k: p.grad for k, p in theirs.named_parameters()}
        | {k: b for k, b in theirs.state_dict().items() if k not in dict(theirs.named_parameters())},
        ours,
    )
    for name, parameter in ours.named_parameters():
        scale = float(expected[name].norm()) + 1e-12
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, rtol=1e-6, atol=1e-8, msg=name)


def test_file_in_the_authors_format_loads_through_timms_path(orig18):
    theirs, file = orig18
    ours = load('resnet18_3g', file, **ten()).eval()
    x = torch.randn(2, 3, 96, 64)
    vectors = ours.forward_head(ours.forward_features(x), pre_logits=True)
    theirs = theirs.eval()
    expected = theirs.forward_vector(theirs.forward_reweight(theirs.forward_reduce(theirs.forward_backbone(x))))
    scale = expected.norm().detach()
    torch.testing.assert_close(vectors / scale, expected / scale, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-6)


def test_symmetric_names_are_mapped_one_to_one(orig18):
    """conv_a and conv_b can be exchanged without changing any output: only the names can tell."""
    theirs, file = orig18
    ours, state = load('resnet18_3g', file, **ten()).state_dict(), theirs.state_dict()
    names = ['map1', 'map2', 'map21', 'map3', 'map4', 'atmap1', 'atmap2', 'atmap3']
    convs = ['conv_a', 'conv_b', 'conv_c', 'conv_d', 'conv_e', 'squeeze.conv_f', 'squeeze.conv_g', 'conv_h']
    for t in range(3):
        for name, conv in zip(names, convs, strict=True):
            assert torch.equal(ours[f'global_pool.reweight.{t}.{conv}.weight'], state[f'AtMp{t + 1}.{name}.weight'])
        for name, bn in zip(['bn1', 'bn2', 'bn21', 'bn3', 'bn4', 'bnat1'], 'abcdef', strict=True):
            key = f'global_pool.reweight.{t}.{"squeeze." if bn == "f" else ""}bn_{bn}.running_var'
            assert torch.equal(ours[key], state[f'AtMp{t + 1}.{name}.running_var'])


def test_isqrt_plain_state_dict_and_the_landscape_spelling(tmp_path):
    theirs = authors('isqrt', 18, num_classes=10).eval()
    reference.save_legacy(theirs, tmp_path / 'plain.pth', wrapped=False)
    state = {k.replace('layer_reduce', 'Layer_Reduce'): v for k, v in theirs.state_dict().items()}
    torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, tmp_path / 'landscape.pth.tar')
    x = torch.randn(2, 3, 64, 64)
    for file in ('plain.pth', 'landscape.pth.tar'):
        torch.testing.assert_close(load('resnet18_isqrt', tmp_path / file, **ten()).eval()(x), theirs(x), rtol=1e-4, atol=1e-6)


def test_files_older_than_num_batches_tracked(tmp_path, orig18):
    theirs, _ = orig18
    state = {k: v for k, v in theirs.state_dict().items() if not k.endswith('num_batches_tracked')}
    torch.save(state, tmp_path / 'old.pth')
    load('resnet18_3g', tmp_path / 'old.pth', **ten())


def test_places365(tmp_path):
    theirs = authors('3g', 18, num_classes=365).eval()
    reference.save_legacy(theirs, tmp_path / 'places.pth.tar')
    x = torch.randn(1, 3, 64, 64)
    ours = load('resnet18_3g', tmp_path / 'places.pth.tar', num_classes=365, overlay={'num_classes': 365}).eval()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-6)
    for kwargs in ({'num_classes': 365}, {}):  # never a silently random head
        with pytest.raises(
            ValueError, match=r'fc.weight has 365 rows, .* num_classes=1000; .*overlay=dict\(file=..., num_classes=365'
        ):
            load('resnet18_3g', tmp_path / 'places.pth.tar', **kwargs)


def test_rows_do_not_matter_where_there_is_no_classifier(tmp_path):
    reference.save_legacy(authors('3g', 18, num_classes=365), tmp_path / 'places.pth.tar')
    load('resnet18_3g', tmp_path / 'places.pth.tar', features_only=True)
    load('resnet18_3g', tmp_path / 'places.pth.tar', num_classes=0)


def test_the_places_tag_declares_its_classes():
    for name in ('resnet50_3g.orig_places365', 'resnet101_3g.orig_places365'):
        assert timm.models.get_pretrained_cfg(name).num_classes == 365
        assert timm.create_model(name, device='meta').num_classes == 365


# Refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'triangle': 'upper'}, "the format .3G-Net. says .triangle: weights 'lower', model 'upper'"),
        ({'eps': 0.0}, r'eps: weights 1e-07, model 0.0'),
        ({'num_iters': 7}, r'num_iters: weights 5, model 7'),
        ({'num_reweights': 1}, r'num_reweights: weights 3, model 1'),
        ({'centered': False}, r'centered: weights True, model False'),
        ({'reweight_beta': 0.5}, r'reweight_beta: weights 0.0, model 0.5'),
        ({'global_pool': 'isqrt'}, r"weights are of global_pool='3g', .* the model has 'isqrt'"),
        ({'global_pool': '3g_nosqrt'}, r"weights are of global_pool='3g', .* the model has '3g_nosqrt'"),
    ],
)
def test_another_function_is_refused(orig18, options, message):
    with pytest.raises(ValueError, match=message):
        load('resnet18_3g', orig18[1], **ten(), **options)


def test_isqrt_weights_in_a_3g_model_without_blocks_are_refused(tmp_path):
    """The same shapes, the other triangle."""
    reference.save_legacy(authors('isqrt', 18, num_classes=10), tmp_path / 'isqrt.pth')
    with pytest.raises(ValueError, match=r"weights are of global_pool='isqrt', as the format .fast-MPN-COV"):
        load('resnet18_3g', tmp_path / 'isqrt.pth', num_reweights=0, **ten())


@pytest.mark.parametrize('override', [{'triangle': 'upper'}, {'eps': 1e-3}, {'num_iters': 3}])
def test_recorded_options_are_enforced(tmp_path, override):
    timm.models.save_for_hf(timm.create_model(SMALL), str(tmp_path), safe_serialization=True)
    with pytest.raises(ValueError, match=r'as the header of the file, config.json or the training run says .*wrong logits'):
        timm.create_model(f'local-dir:{tmp_path}', pretrained=True, **override)
    with pytest.raises(
        ValueError, match=r'as the header of the file, config.json or the training run says'
    ):  # beside the file, too
        load(SMALL, tmp_path / 'model.safetensors', **override)


def test_wrong_depth_reduction_or_foreign_weights(tmp_path, orig18):
    with pytest.raises(ValueError, match=r'not weights of this network. Unknown names: none; missing: layer1.2'):
        load('resnet34_3g', orig18[1], **ten())
    with pytest.raises(
        ValueError, match=r'other shapes: .*global_pool.* Name the architecture, global_pool, reduce_dim and head_norm'
    ):
        load('resnet18_3g', orig18[1], reduce_dim=128, **ten())
    save_file({'blocks.0.attn.qkv.weight': torch.zeros(3)}, tmp_path / 'vit.safetensors')
    for overlay in ({}, {'num_classes': -1}):
        with pytest.raises(ValueError, match=r'Unknown names: blocks.0.attn.qkv.weight; missing: .* more'):
            load(SMALL, tmp_path / 'vit.safetensors', overlay=overlay)


@pytest.mark.parametrize('content', ['truncated', 'truncated zip', 'empty', 'page', 'list', 'numbers', 'pickled module'])
def test_unreadable_files(tmp_path, orig18, content):
    file = tmp_path / 'bad.pth.tar'
    whole = tmp_path / 'whole.pth'
    torch.save(timm.create_model(SMALL).state_dict(), whole)
    if content.startswith('truncated'):
        data = (whole if 'zip' in content else orig18[1]).read_bytes()
        file.write_bytes(data[: len(data) // 2])
    elif content in ('empty', 'page'):
        file.write_text('' if content == 'empty' else '<html>Quota exceeded</html>')
    else:
        torch.save({'list': [1, 2], 'numbers': {'a': 1}, 'pickled module': torch.nn.Linear(1, 1)}[content], file)
    with pytest.raises(ValueError, match=r'cannot be read as weights: .*Fetch it again|must be a state dict of tensors; got 1'):
        load(SMALL, file)


def test_truncated_folder_and_folder_as_file(tmp_path):
    timm.models.save_for_hf(timm.create_model(SMALL), str(tmp_path), safe_serialization=True)
    with pytest.raises(FileNotFoundError, match=r"is a folder: load it as 'local-dir:"):
        load(SMALL, tmp_path)
    weights = tmp_path / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ValueError, match='cannot be read as weights: SafetensorError'):
        timm.create_model(f'local-dir:{tmp_path}', pretrained=True)


def test_a_head_is_taken_whole_or_not_at_all(tmp_path, caplog):
    one = timm.create_model(SMALL, num_reweights=1)
    torch.save(one.state_dict(), tmp_path / 'one.pth')
    three = load(SMALL, tmp_path / 'one.pth', overlay={'num_classes': -1})
    assert not torch.equal(three.global_pool.reduce.conv.weight, one.global_pool.reduce.conv.weight)
    assert torch.equal(three.conv1.weight, one.conv1.weight) and 'global_pool.reduce' in caplog.text


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"No weights of resnet18_3g.* at 'gone.pth'"):
        load('resnet18_3g', 'gone.pth')


def test_the_filter_raises_value_errors_only(orig18):
    """timm answers a TypeError by calling the filter again with one argument."""
    model = timm.create_model(SMALL)
    names = ['AtMpX', 'AtMp1.map9.weight', 'AtMp1.', 'layer_reduce', 'layer_reduce.x', 'layer_reduce_bn', 'fc.weight', 0]
    for bad in [{}, [], None, {'fc.weight': 3}, {0: 3, 'a': 4}, *({name: torch.ones(())} for name in names)]:
        with pytest.raises(ValueError):
            checkpoint_filter_fn(bad, model)


@pytest.mark.parametrize('content', ['[1]', '{"architecture": "resnet10_mini_3g", "model_args": null}', '{'])
def test_a_broken_config_beside_the_weights_is_named(tmp_path, content):
    save_file(timm.create_model(SMALL).state_dict(), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text(content)
    with pytest.raises(ValueError, match=r'config.json beside the weights is not a valid timm config.json'):
        load(SMALL, tmp_path / 'model.safetensors')


def test_a_config_of_another_architecture_is_not_believed(tmp_path):
    save_file(timm.create_model(SMALL).state_dict(), tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text('{"architecture": "resnet50", "model_args": {"num_iters": 3}}')
    load(SMALL, tmp_path / 'model.safetensors')


def training_checkpoint(tmp_path, name=SMALL, **model_kwargs):
    """What timm's train.py saves: the arguments are in it."""
    model = timm.create_model(name, **model_kwargs).eval()
    args = argparse.Namespace(model=name, gp=model_kwargs.pop('global_pool', None), model_kwargs=model_kwargs)
    torch.save({'epoch': 0, 'arch': name, 'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    return model, tmp_path / 'last.pth.tar'


def test_arguments_of_train_py_are_a_record(tmp_path):
    """isqrt's and cov's weights have the same names and shapes; only the record tells them apart."""
    _, file = training_checkpoint(tmp_path, num_iters=3, eps=1e-3)
    load(SMALL, file, num_iters=3, eps=1e-3)
    with pytest.raises(
        ValueError, match=r'the training run says \(eps: weights 0.001, model 1e-07; num_iters: weights 3, model 5'
    ):
        load(SMALL, file)
    _, file = training_checkpoint(tmp_path, global_pool='isqrt')
    with pytest.raises(ValueError, match=r"weights are of global_pool='isqrt', .* the model has 'cov'"):
        load(SMALL, file, global_pool='cov')


def test_bn_eps_of_train_py_is_in_the_record(tmp_path):
    model = timm.create_model(SMALL, bn_eps=1e-3)
    args = argparse.Namespace(model=SMALL, gp=None, bn_eps=1e-3, model_kwargs={})
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    load(SMALL, tmp_path / 'last.pth.tar', bn_eps=1e-3)
    with pytest.raises(ValueError, match=r'bn_eps: weights 0.001, model 1e-05'):
        load(SMALL, tmp_path / 'last.pth.tar')
    _, file = training_checkpoint(tmp_path, LITE)  # its default is another one
    load(LITE, file)
    with pytest.raises(ValueError, match=r'bn_eps: weights 0.001, model 1e-05'):
        load(LITE, file, bn_eps=1e-5)


def test_export_takes_the_options_from_the_training_run(tmp_path):
    model, file = training_checkpoint(tmp_path, global_pool='isqrt', num_iters=3, reduce_dim=16)
    again = timm.create_model(f'local-dir:{export(file, SMALL, output=tmp_path / "out").path}', pretrained=True).eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(x), model(x)) and again.global_pool.num_iters == 3
    with pytest.raises(ValueError, match='num_iters: weights 3, model 5'):
        export(file, SMALL, output=tmp_path / 'other', model_kwargs={'num_iters': 5})
    bare = timm.create_model(SMALL, num_reweights=1).eval()
    torch.save(bare.state_dict(), tmp_path / 'bare.pth')
    folder = export(tmp_path / 'bare.pth', SMALL, output=tmp_path / 'bare', model_kwargs={'num_reweights': 1}).path
    assert torch.equal(timm.create_model(f'local-dir:{folder}', pretrained=True).eval()(x), bare(x))


# Adaptation -------------------------------------------------------------------------------------------------------------


PLAIN = [('resnet18_3g', 'resnet18', 'fc', 'layer3'), (LITE, 'tf_efficientnet_lite0', 'classifier', 'blocks.3')]


def plain_weights(tmp_path, name):
    file = tmp_path / f'{name}.pth'
    plain = timm.create_model(name).eval()
    with torch.no_grad():
        reference.randomize_(plain, 0)
    torch.save(plain.state_dict(), file)
    return plain, file


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'of_timm', 'classifier', 'stage'), PLAIN[:1])  # test_gcp_weights.py has the other class
def test_backbone_only_where_timm_asks_for_it(tmp_path, caplog, name, of_timm, classifier, stage):
    plain, file = plain_weights(tmp_path, of_timm)
    with caplog.at_level(logging.INFO, 'timm_3g'):
        ours = load(name, file, num_classes=10, overlay={'num_classes': -1})  # what train.py --pretrained-path does
    backbone = {k: v for k, v in plain.state_dict().items() if not k.startswith(f'{classifier}.')}
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in backbone.items())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and record.getMessage().startswith(f'{len(backbone)} tensors come from')
    random = f'randomly initialised stay: {classifier}.bias, {classifier}.weight, global_pool.reduce.bn.bias'
    assert random in record.getMessage()
    with pytest.raises(
        ValueError, match=r'missing: global_pool.* start from its backbone: .*num_classes=-1.*--pretrained-path'
    ):
        load(name, file)
    few = {**backbone, **{f'{classifier}.{k}': v[:5] for k, v in plain.get_classifier().state_dict().items()}}
    torch.save(few, file)
    with pytest.raises(ValueError, match=r'plain one without its head .*num_classes=-1') as refusal:
        load(name, file)
    assert 'Declare' not in str(refusal.value) and len(str(refusal.value)) < 400
    load(name, file, overlay={'num_classes': -1})
    with pytest.raises(ValueError, match='not weights of this network') as refusal:
        load(SMALL, file)
    assert 'Declare' not in str(refusal.value) and 'backbone' not in str(refusal.value)
    torch.save({k: v for k, v in plain.state_dict().items() if not k.startswith(stage)}, file)
    with pytest.raises(ValueError, match=rf'missing: {stage}'):
        load(name, file, num_classes=10, overlay={'num_classes': -1})


def test_plain_efficientnet_weights_mean_the_same(tmp_path):
    plain, file = plain_weights(tmp_path, 'tf_efficientnet_lite0')
    x = torch.randn(2, 3, 96, 64)
    for options in ({}, {'global_pool': 'isqrt'}, {'global_pool': 'avg'}):
        ours = load(LITE, file, num_classes=10, overlay={'num_classes': -1}, **options).eval()
        assert torch.equal(ours.forward_features(x), plain.forward_features(x))


@pytest.mark.parametrize(('name', 'of_timm', 'first'), [('resnet18_3g', 'resnet18', 'conv1'), (LITE, PLAIN[1][1], 'conv_stem')])
def test_plain_weights_are_adapted_to_in_chans(tmp_path, name, of_timm, first):
    plain, file = plain_weights(tmp_path, of_timm)
    ours = load(name, file, num_classes=10, in_chans=1, overlay={'num_classes': -1})
    expected = plain.state_dict()[f'{first}.weight'].sum(1, keepdim=True)
    torch.testing.assert_close(ours.state_dict()[f'{first}.weight'], expected)


@pytest.mark.parametrize(('name', 'of_timm', 'classifier', 'stage'), PLAIN)
def test_features_only_takes_a_backbone(tmp_path, caplog, name, of_timm, classifier, stage):
    _, file = plain_weights(tmp_path, of_timm)
    features = load(name, file, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = timm.create_model(
        of_timm, features_only=True, pretrained=True, pretrained_cfg_overlay={'file': str(file)}
    ).eval()
    for ours, theirs in list(zip(features(x), expected(x), strict=True))[:-1]:  # the last stage of ResNets has another stride
        assert torch.equal(ours, theirs)
    assert not [r for r in caplog.records if r.name.startswith('timm_3g')]


def test_fine_tuning_keeps_the_pool_and_replaces_the_classifier(orig18, caplog):
    theirs, file = orig18
    with caplog.at_level(logging.INFO, 'timm_3g'):
        ours = load('resnet18_3g', file, num_classes=7, in_chans=1, overlay={'num_classes': 10})
    state = theirs.state_dict()
    assert torch.equal(ours.global_pool.reweight[2].conv_h.weight, state['AtMp3.atmap3.weight'])
    assert ours.fc.weight.shape[0] == 7 and ours.conv1.weight.shape[1] == 1
    assert [r.levelno for r in caplog.records] == [logging.INFO]
    assert load('resnet18_3g', file, num_classes=0, overlay={'num_classes': 10})(torch.randn(2, 3, 32, 32)).shape == (2, 32896)


def test_another_pool_takes_the_backbone_and_says_so(orig18, caplog):
    ours = load('resnet18_3g', orig18[1], num_classes=7, overlay={'num_classes': 10}, global_pool='isqrt')
    assert torch.equal(ours.conv1.weight, orig18[0].conv1.weight)
    assert 'global_pool.reduce' in caplog.text and 'randomly initialised' in caplog.text
    assert not torch.equal(ours.global_pool.reduce.conv.weight, orig18[0].state_dict()['layer_reduce.weight'])


@pytest.mark.parametrize(('name', 'of_timm', 'classifier', 'stage'), PLAIN)
def test_plain_weights_load_whole_with_average_pooling(tmp_path, caplog, name, of_timm, classifier, stage):
    plain, file = plain_weights(tmp_path, of_timm)
    ours = load(name, file, global_pool='avg')
    assert torch.equal(ours.get_classifier().weight, plain.get_classifier().weight)
    with pytest.raises(ValueError, match=rf'{classifier}.weight has 1000 rows, .* num_classes=10; .* num_classes=1000'):
        load(name, file, global_pool='avg', num_classes=10, overlay={'num_classes': 10})
    with caplog.at_level(logging.INFO, 'timm_3g'):
        load(name, file, global_pool='avg', num_classes=10, overlay={'num_classes': -1})
    assert [(r.levelno, r.getMessage().split('stay: ')[1]) for r in caplog.records] == [
        (logging.INFO, f'{classifier}.bias, {classifier}.weight.')
    ]


def test_fine_tuning_an_efficientnet_keeps_the_pool(tmp_path, caplog):
    model = timm.create_model(LITE, num_classes=10, reduce_dim=64)
    torch.save(model.state_dict(), tmp_path / 'ten.pth')
    with caplog.at_level(logging.INFO, 'timm_3g'):
        ours = load(LITE, tmp_path / 'ten.pth', num_classes=7, reduce_dim=64, overlay={'num_classes': 10})
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith('classifier.')}
    assert all(torch.equal(ours.state_dict()[k], v) for k, v in kept.items())
    assert [r.levelno for r in caplog.records] == [logging.INFO] and ours.classifier.weight.shape[0] == 7
    ours = load(LITE, tmp_path / 'ten.pth', num_classes=7, reduce_dim=64, overlay={'num_classes': 10}, global_pool='avg')
    assert torch.equal(ours.conv_head.weight, model.conv_head.weight)


# Round trips ------------------------------------------------------------------------------------------------------------


OPTIONS = (
    [{}, {'global_pool': 'g2de', 'root': 'eigh'}, {'num_reweights': 1, 'num_iters': 3, 'centered': False, 'eps': 1e-5}]
    + [{'global_pool': p} for p in ('isqrt', 'mpn', 'bcnn', 'cov', '3g_nosqrt', 'urm_v1', 'urm_v2', 'cbp', 'dropcov', 'avg')]
    + [{'reduce_dim': 0, 'global_pool': 'isqrt'}, {'global_pool': 'bcnn', 'triangle': 'lower', 'reduce_dim': 16}]
)
OF_LITE = [{}, {'global_pool': 'avg'}, {'global_pool': 'isqrt', 'num_iters': 3, 'reduce_dim': 16, 'bn_eps': 1e-4}]


@pytest.mark.parametrize(('name', 'kwargs'), [*((SMALL, o) for o in OPTIONS), *((LITE, o) for o in OF_LITE)])
@pytest.mark.parametrize('reset', [True, slow_unless(False, False)])
def test_config_json_is_the_whole_model(tmp_path, name, kwargs, reset):
    model = timm.create_model(name, **({} if reset else kwargs)).eval()
    if reset:
        model.reset_classifier(6, kwargs.get('global_pool', '3g'))
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    recorded = json.loads((tmp_path / 'config.json').read_text())['model_args']
    assert recorded.items() >= {'reduce_dim': model.reduce_dim, **model.global_pool.options}.items()
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    assert repr(again) == repr(model)
    # and without its head, which must not trip over the recorded options
    assert timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=0, global_pool='')(x).ndim == 4


@pytest.mark.parametrize(('name', 'bn_eps'), [('resnet18_3g', 1e-5), (LITE, 1e-3)])
def test_defaults_are_recorded_for_3g(tmp_path, name, bn_eps):
    timm.models.save_for_hf(timm.create_model(name, num_classes=3), str(tmp_path), safe_serialization=True)
    tap = {'backbone': 'tf_efficientnet_lite0.in1k', 'out_index': None, 'first_order': False, 'output_stride': None}
    assert json.loads((tmp_path / 'config.json').read_text())['model_args'] == {
        **(tap if name == LITE else {}),
        'global_pool': '3g', 'reduce_dim': 256, 'bn_eps': bn_eps, 'eps': 1e-7, 'triangle': 'lower', 'num_iters': 5,
        'centered': True,
        'num_reweights': 3, 'reweight_beta': 0.0, 'num_classes': 3, 'in_chans': 3,
    }  # fmt: skip


def test_export_gives_a_folder_with_the_same_logits(orig18, tmp_path):
    theirs, file = orig18
    folder = export(file, 'resnet18_3g', output=tmp_path / 'out' / 'resnet18_3g.orig').path
    assert {p.name for p in folder.iterdir()} == {'config.json', 'golden.safetensors', 'model.safetensors', 'README.md'}
    assert [p.name for p in folder.parent.iterdir()] == ['resnet18_3g.orig']
    ours = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs.eval()(x), rtol=1e-4, atol=1e-6)


def test_export_refuses_and_leaves_nothing(orig18, tmp_path, monkeypatch):
    output = tmp_path / 'out'
    for arguments, error, message in [
        ((__file__, 'resnet18_3g', 10), ValueError, 'cannot be read as weights'),
        (('gone.pth', 'resnet18_3g'), FileNotFoundError, 'gone.pth does not exist'),
        ((orig18[1], 'resnet34_3g'), ValueError, 'not weights of this network'),
        ((orig18[1], 'resnet18_3g', 365), ValueError, 'fc.weight has 10 rows'),
    ]:
        with pytest.raises(error, match=message):
            export(tmp_path / arguments[0], *arguments[1:], output=output)
        assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr('timm_3g.publishing.write_folder.torch.equal', lambda a, b: False)
        with pytest.raises(ValueError, match='reads back with other logits'):
            export(orig18[1], 'resnet18_3g', output=output)
        assert not list(tmp_path.iterdir())
    output.mkdir()
    with pytest.raises(FileExistsError, match=r'exists already\. Name another --output'):
        export(orig18[1], 'resnet18_3g', output=output)
