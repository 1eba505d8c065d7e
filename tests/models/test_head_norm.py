"""`head_norm=True`: a BatchNorm between the pooling and the classifier of every network with our head."""

import argparse
import copy
import json
import logging
import pickle

import pytest
import timm
import torch
from any_backbone import gcp
from common import FLOAT32
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from timm.models import save_for_hf
from timm.utils import freeze

import timm_3g
from timm_3g.checkpoints import checkpoint_filter_fn
from timm_3g.models.loading import create_loaded
from timm_3g.publishing import export
from timm_3g.training.slow_sgd import slow_sgd

SMALL = 'resnet10_mini_3g'
EPS = 1e-5


def small(pool='3g', **kwargs):
    return timm.create_model(SMALL, global_pool=pool, **{'num_classes': 4, 'reduce_dim': 8, 'head_norm': True, **kwargs})


def trained(model, images):
    """The model after a forward pass in training mode, in eval mode: its running statistics are not those of the start."""
    with torch.no_grad():
        model.train()(images)
        model.head_norm.weight.uniform_(0.5, 1.5)
        model.head_norm.bias.normal_()
    return model.eval()


@pytest.fixture
def images():
    return torch.randn(6, 3, 32, 32)


@pytest.mark.parametrize('pool', ['3g', 'cov', 'bcnn', 'avg', 'catavgmax'])
def test_the_vector_is_normalized_over_the_batch(pool, images):
    model = small(pool)
    vector = model.global_pool(model.forward_features(images)).double()
    mean, var = vector.mean(0), vector.var(0, unbiased=False)
    got = model.forward_head(model.forward_features(images), pre_logits=True)
    torch.testing.assert_close(got.double(), (vector - mean) / (var + EPS).sqrt(), rtol=1e-3, atol=1e-3)
    assert got.shape == (6, model.head_hidden_size)


@pytest.mark.parametrize('build', [small, gcp, lambda **k: gcp(out_index=-2, first_order=True, reduce_dim=8, **k)], ids='abc')
def test_in_eval_mode_it_is_an_affine_function_of_the_vector(build, images):
    model = trained(build(head_norm=True), images)
    features = model.forward_features(images)
    vector = (model.global_pool(*features) if isinstance(features, tuple) else model.global_pool(features)).double()
    norm = model.head_norm.double()
    assert type(norm) is torch.nn.BatchNorm2d  # that timm can freeze and split
    expected = (vector - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    model.head_norm.float()
    torch.testing.assert_close(model.forward_head(features, pre_logits=True).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images), model.get_classifier()(expected.float()), **FLOAT32)


def test_without_it_nothing_changes(images):
    torch.manual_seed(0)
    plain = timm.create_model(SMALL, num_classes=4).eval()
    torch.manual_seed(0)
    off = timm.create_model(SMALL, num_classes=4, head_norm=False).eval()
    assert plain.state_dict().keys() == off.state_dict().keys() and torch.equal(plain(images), off(images))
    assert plain.function_options() == off.function_options() and 'head_norm' not in plain._model_args


def test_dropout_comes_behind_it(images):
    model = small(drop_rate=0.5)
    vector = model.forward_head(model.forward_features(images), pre_logits=True)
    assert 0.4 < (vector == 0).float().mean() < 0.6


def test_a_reset_keeps_it_and_another_pooling_gets_its_own(images):
    model = trained(small(), images)
    norm = model.head_norm
    model.reset_classifier(7)
    assert model.head_norm is norm and model(images).shape == (6, 7)
    model.reset_classifier(3, 'avg')
    assert model.head_norm.num_features == 128 and not model.head_norm.training and model._model_args['head_norm'] is True
    model.reset_classifier(0, '')
    assert model(images).shape == (6, 128, 8, 8)
    model.reset_classifier(5, 'isqrt')
    assert model.head_norm.num_features == 36 and model(images).shape == (6, 5)
    with pytest.raises(ValueError, match="head_norm must be left out for global_pool='fbn': its classifier takes positions"):
        model.reset_classifier(5, 'fbn')


@pytest.mark.parametrize('build', [small, gcp])
def test_other_values_are_refused(build):
    for wrong in ('batchnorm', 1):
        with pytest.raises(
            TypeError, match=f'head_norm must be True, False or a float, where its weights start; got {wrong!r}'
        ):
            build(head_norm=wrong)
    for wrong in (0.0, -0.1, float('nan'), float('inf')):
        with pytest.raises(ValueError, match=f'head_norm must be above 0 and finite, True or False; got {wrong!r}'):
            build(head_norm=wrong)


@pytest.mark.parametrize('build', [small, gcp])
@pytest.mark.parametrize(('head_norm', 'start'), [(True, 1.0), (0.1, 0.1)])
def test_its_weights_start_where_it_says(build, head_norm, start, images):
    model = build(head_norm=head_norm)
    assert model.head_norm.weight.unique().tolist() == pytest.approx([start])
    model.reset_classifier(3, 'avg')
    assert model.head_norm.weight.unique().tolist() == pytest.approx([start])
    torch.nn.init.constant_(model.head_norm.weight, 7.0)
    model.reset_classifier(4)
    assert model.head_norm.weight.unique().tolist() == [7.0]


@pytest.mark.parametrize('build', [small, lambda **k: gcp('resnet10t', **k)], ids='ab')
def test_init_weights_sets_its_start_again(build):
    model = build(head_norm=0.1)
    torch.nn.init.constant_(model.head_norm.weight, 7.0)
    model.init_weights()
    assert model.head_norm.weight.unique().tolist() == pytest.approx([0.1])


def test_learned_weights_of_another_start_are_loaded(images, tmp_path):
    model = trained(small(head_norm=0.1), images)
    save_for_hf(model, tmp_path, model_args=model._model_args)
    assert json.loads((tmp_path / 'config.json').read_text())['model_args']['head_norm'] == 0.1
    loaded = timm.create_model(f'local-dir:{tmp_path}', pretrained=True).eval()
    assert torch.equal(loaded(images), model(images))


def test_momentum_and_eps_are_those_of_every_batch_norm():
    model = small(bn_momentum=0.02, bn_eps=1e-4)
    assert (model.head_norm.momentum, model.head_norm.eps) == (0.02, 1e-4)
    model.reset_classifier(4, 'avg')
    assert (model.head_norm.momentum, model.head_norm.eps) == (0.02, 1e-4)
    assert gcp(head_norm=True, bn_eps=1e-4).head_norm.eps == 1e-4


@pytest.mark.parametrize('pool', ['3g', 'avg'])
def test_a_folder_is_built_with_it(pool, images, tmp_path):
    for number, model in enumerate((small(pool), gcp(global_pool=pool, head_norm=True))):
        trained(model, images)
        folder = tmp_path / str(number)
        save_for_hf(model, folder, model_args=model._model_args)
        assert json.loads((folder / 'config.json').read_text())['model_args']['head_norm'] is True
        loaded = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        assert torch.equal(loaded(images), model(images))


def test_a_checkpoint_of_train_py_is_built_with_it(images, tmp_path):
    model = trained(small(), images)
    args = argparse.Namespace(
        model=SMALL, gp=None, bn_eps=None, num_classes=4, model_kwargs={'reduce_dim': 8, 'head_norm': True}
    )
    torch.save({'state_dict': model.state_dict(), 'arch': SMALL, 'args': args}, tmp_path / 'last.pth.tar')
    loaded = create_loaded(SMALL, tmp_path / 'last.pth.tar').eval()
    assert torch.equal(loaded(images), model(images))
    args.model_kwargs['head_norm'] = 'yes'
    torch.save({'state_dict': model.state_dict(), 'arch': SMALL, 'args': args}, tmp_path / 'last.pth.tar')
    with pytest.raises(ValueError, match='head_norm must be True, False or a float'):
        create_loaded(SMALL, tmp_path / 'last.pth.tar')


def test_weights_of_one_do_not_fit_the_other():
    with_norm, without = small(), small(head_norm=False)
    for weights, model, said in ((with_norm, without, 'Unknown names: head_norm'), (without, with_norm, 'missing: head_norm')):
        model.pretrained_cfg['num_classes'] = 4
        with pytest.raises(ValueError, match=said):
            checkpoint_filter_fn(weights.state_dict(), model)


def test_fine_tuning_keeps_the_learned_pooling_and_what_norm_there_is(images, tmp_path, caplog):
    """A network gets a norm, or loses it, where its weights go on under another classifier."""
    source, without = trained(small(), images), trained_plain(images)
    for weights, options, kept in (
        (source, {'head_norm': True}, ('global_pool.', 'head_norm.')),
        (without, {'head_norm': True}, ('global_pool.',)),
        (source, {'head_norm': False}, ('global_pool.',)),
    ):
        torch.save(weights.state_dict(), tmp_path / 'weights.pth')
        caplog.clear()
        with caplog.at_level(logging.INFO, 'timm_3g'):
            overlay = {'file': str(tmp_path / 'weights.pth'), 'num_classes': -1}
            net = small(num_classes=9, pretrained=True, pretrained_cfg_overlay=overlay, **options)
        for name, tensor in net.state_dict().items():
            if name.startswith(kept):
                assert torch.equal(tensor, weights.state_dict()[name]), name
        said = ' '.join(record.getMessage() for record in caplog.records)
        assert ('head_norm.weight' in said) == (options['head_norm'] and 'head_norm.' not in kept)
        assert ('head_norm of the checkpoint does not fit this model, and is left out' in said) == (not options['head_norm'])


@pytest.mark.parametrize('stated', [{}, {'head_norm': False}], ids=['unstated', 'False'])
def test_a_folder_without_it_is_fine_tuned_with_it(stated, images, tmp_path):
    source = timm.create_model(SMALL, num_classes=4, reduce_dim=8, **stated).eval()
    save_for_hf(source, tmp_path, model_args=source._model_args)
    assert json.loads((tmp_path / 'config.json').read_text())['model_args'].get('head_norm') is stated.get('head_norm')
    net = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=7, head_norm=True)
    assert (
        torch.equal(net.global_pool.reduce.conv.weight, source.global_pool.reduce.conv.weight)
        and net.head_norm.num_features == 36
    )


def test_a_folder_with_it_takes_another_pooling(images, tmp_path):
    source = trained(small(), images)
    save_for_hf(source, tmp_path, model_args=source._model_args)
    net = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=7, global_pool='isqrt')
    assert net.head_norm.num_features == 36
    net = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=7, global_pool='fbn')
    assert not net.has_head_norm and net(images).shape == (6, 7)


def test_timms_tools_for_batch_norms_take_it(images):
    model = convert_splitbn_model(small(), 2)
    assert model(images).isfinite().all() and hasattr(model.head_norm, 'aux_bn')
    model = trained(small(), images)
    freeze(model, ['head_norm'])
    before, after = model.head_norm.running_mean.clone(), model.train()(images)
    assert torch.equal(model.head_norm.running_mean, before) and after.isfinite().all()
    model = convert_sync_batchnorm(small().eval())
    assert type(model.head_norm) is torch.nn.SyncBatchNorm and model(images).isfinite().all()


@pytest.mark.parametrize('build', [small, gcp])
def test_a_model_pickled_before_there_was_one_is_scripted(build, images):
    model = build(head_norm=False).eval()
    expected = model(images)
    del model._modules['head_norm'], model.__dict__['has_head_norm'], model.__dict__['normalizes']
    loaded = pickle.loads(pickle.dumps(model))
    assert torch.equal(loaded(images), expected)
    torch.testing.assert_close(torch.jit.script(loaded)(images), expected, **FLOAT32)


def trained_plain(images):
    model = small(head_norm=False)
    with torch.no_grad():
        model.train()(images)
    return model.eval()


@pytest.mark.parametrize(
    'backbone', ['resnet18', 'efficientnet_lite0']
)  # the second keeps its classifier under timm's poolings
def test_plain_weights_go_under_it(backbone, tmp_path):
    """Those of a whole plain network with timm's pooling: the backbone alone, as its classifier took another vector."""
    plain = timm.create_model(backbone, num_classes=5)
    model = from_file(plain, tmp_path, backbone)
    assert torch.equal(*(next(p for n, p in net.named_parameters() if 'conv' in n) for net in (model, plain)))
    assert not torch.equal(model.classifier.weight, plain.get_classifier().weight)


def from_file(net, folder, backbone):
    torch.save(net.state_dict(), folder / 'weights.pth')
    options = {'backbone': backbone, 'global_pool': 'avg', 'head_norm': True, 'num_classes': 5}
    overlay = {'file': str(folder / 'weights.pth'), 'num_classes': 5}
    return timm.create_model('gcp', True, **options, pretrained_cfg_overlay=overlay)


def test_weights_of_the_whole_network_are_known_by_it(tmp_path, images):
    """Its classifier has timm's name and shape, and the backbone's weights would leave a random one."""
    source = trained(gcp('efficientnet_lite0', global_pool='avg', head_norm=True, num_classes=5), images)
    assert torch.equal(from_file(source, tmp_path, 'efficientnet_lite0').eval()(images), source(images))


def test_plain_weights_are_refused_as_those_of_the_whole(images):
    model = small('avg')
    model.pretrained_cfg['num_classes'] = 4
    with pytest.raises(ValueError, match=r'of the plain one without its head \(missing: head_norm\.\* \(4 tensors\)\)'):
        checkpoint_filter_fn(small('avg', head_norm=False).state_dict(), model)


def test_the_norm_of_another_pooling_is_not_taken(images, tmp_path):
    """That of a covariance would fit its root, and normalize nothing."""
    source = trained(small('cov'), images)
    save_for_hf(source, tmp_path, model_args=source._model_args)
    net = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, num_classes=7, global_pool='isqrt')
    assert net.head_norm.running_mean.eq(0).all() and net.head_norm.weight.eq(1).all()


def test_the_card_names_it(images, tmp_path):
    for head_norm in (True, False):
        model = trained(small(), images) if head_norm else trained_plain(images)
        args = argparse.Namespace(model=SMALL, gp=None, num_classes=4, model_kwargs={'reduce_dim': 8, 'head_norm': head_norm})
        torch.save({'state_dict': model.state_dict(), 'arch': SMALL, 'args': args}, tmp_path / 'last.pth.tar')
        folder = export(tmp_path / 'last.pth.tar', f'{SMALL}.test', output=tmp_path / f'{head_norm}').path
        assert ('36 features' in (text := (folder / 'README.md').read_text())) and (
            '), a BatchNorm behind' in text
        ) == head_norm


def test_the_norm_has_the_rate_of_the_head():
    from timm.optim import param_groups_layer_decay

    for model in (small(), gcp(head_norm=True)):
        groups = param_groups_layer_decay(model, layer_decay=0.1)
        names = {id(p): name for name, p in model.named_parameters()}
        scales = {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}
        assert scales['head_norm.weight'] == scales['head_norm.bias'] == 1.0


@pytest.mark.parametrize('pool', ['3g', 'cov', 'avg'])
def test_precision(pool, images):
    model = trained(small(pool), images)
    expected = model(images)
    for dtype, tolerance in ((torch.bfloat16, 0.15), (torch.float16, 0.05)):
        with torch.autocast('cpu', dtype):
            got = model(images)
        torch.testing.assert_close(got.float(), expected, rtol=tolerance, atol=tolerance * expected.abs().max().item())
        half = copy.deepcopy(model).to(dtype)
        got = half(images.to(dtype))
        assert got.dtype == dtype and got.isfinite().all()
    with torch.autocast('cpu', torch.float16):  # weights in half precision, and features in float32
        half = copy.deepcopy(model).half()
        assert half.forward_head(half.forward_features(images)).isfinite().all()


@pytest.mark.parametrize('build', [small, gcp])
def test_graphs(build, images):
    model = trained(build(head_norm=True), images)
    expected = model(images)
    scripted = torch.jit.script(model)
    for got in (
        scripted,
        torch.export.export(model, (images,)).module(),
        torch.compile(model, backend='eager', fullgraph=True),
    ):
        torch.testing.assert_close(got(images), expected, **FLOAT32)


def test_sgd_is_not_called_slow_with_it():
    """It makes the vector long: at a rate of 0.001 the loss on digits falls to 0.2, or to 2.2 from a start at 0.1."""
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={}, opt='sgd', lr=0.001)
    assert slow_sgd(args, 1)
    for head_norm in (True, 0.1):
        args.model_kwargs = {'head_norm': head_norm}
        assert slow_sgd(args, 1) == ''
    args.lr = 0.0001  # from 0.1 the loss goes from 2.31 to 2.30 then, and from 1 to 1.5
    assert 'Give it --lr 0.001 or more' in slow_sgd(args, 1)
    args.model_kwargs = {'head_norm': True}
    assert slow_sgd(args, 1) == ''
    args.model_kwargs = {'head_norm': 'yes'}  # which the model will refuse
    assert 'Give it --lr 0.005 or more' in slow_sgd(args, 1)


def test_the_maps_are_recorded_with_it(images):
    model = small().eval()
    with timm_3g.record_weights(model) as maps:
        model(images)
    assert len(maps) == 3
