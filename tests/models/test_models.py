"""What timm's own tests (run by tests/timm_contract.py) do not check: counts, resets, dtypes, sizes, conversions, export."""

import subprocess
import sys
from functools import partial

import pytest
import reference
import timm
import torch
from common import FLOAT32, LITE, MODELS, SMALL, shallow, slow_unless
from timm.layers import convert_sync_batchnorm
from timm.layers.split_batchnorm import convert_splitbn_model
from timm.models._manipulate import reinit_non_persistent_buffers
from timm.utils import freeze, unfreeze

import timm_3g
from timm_3g.checkpoints import is_ours
from timm_3g.checkpoints.function import defaults_of, function_of
from timm_3g.layers.create_pool import POOLS, TIMM_POOLS
from timm_3g.models import SecondOrderHead

BACKBONES = [SMALL, LITE]
HEADS = [*((SMALL, pool) for pool in POOLS), (LITE, '3g')]  # every pooling, and every class of models
# The same, where most of the time is the backbone's: by default with and without re-weighting only.
FEW_HEADS = [slow_unless(head in ((SMALL, '3g'), (SMALL, 'isqrt')), *head) for head in HEADS]


def small(backbone: str = SMALL, **kwargs) -> torch.nn.Module:
    return timm.create_model(backbone, **{'num_classes': 10, 'reduce_dim': 64, 'head_init': 'orig', **kwargs})


def images(batch: int = 2, size: tuple[int, int] = (64, 64), channels: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, *size)


# Small ones, but for the maps of a network of stride 32.
SIZES = {SMALL: (32, 32), LITE: (64, 64)}


@pytest.mark.parametrize('depth', [18, 23, 34, 50, 101, 152])
def test_parameter_and_key_counts(depth):
    model = timm.create_model(f'resnet{depth}_3g', device='meta')
    assert sum(p.numel() for p in model.parameters()) == reference.expected_params(depth)
    assert len(model.state_dict()) == reference.expected_keys(depth)


FIRST_ORDER_MINIS = ('resnet10_mini_sort', 'resnet10_mini_a2')  # small networks of `test_rivals.py`, with average pooling


def test_the_registry():
    """Every architecture is named after its pooling, has our head, a default cfg of its own, and the options it is known by."""
    assert {'resnet50_3g', 'resnet101_isqrt', SMALL, LITE} <= set(MODELS) and all(map(is_ours, MODELS))
    for name in MODELS:
        model = timm.create_model(name, device='meta')
        pool, classifier = model.global_pool, model.pretrained_cfg['classifier']
        assert isinstance(model, SecondOrderHead) and model.pretrained_cfg['architecture'] == name
        known = defaults_of(name)
        assert function_of(name, {}, 'x').items() <= model._model_args.items()
        assert getattr(model, 'backbone', None) == known.get('backbone')
        named_after = 'avg' if name in FIRST_ORDER_MINIS else name.rsplit('_', 1)[-1]
        assert pool.pool_type == known['global_pool'] and (name == 'gcp' or pool.pool_type == named_after)
        assert model.reduce_dim == known.get('reduce_dim', 256) and known.items() <= model._model_args.items()
        assert 'bn_eps' not in known or {m.eps for m in batch_norms(model)} == {known['bn_eps']}
        assert model.classifier_name == classifier and model.get_classifier() is getattr(model, classifier)
        assert model.get_submodule(model.pretrained_cfg['first_conv']).in_channels == 3
        assert {'global_pool', 'reduce_dim', 'bn_eps'} <= known.keys() | (
            {'reduce_dim', 'bn_eps'} if 'backbone' in known else set()
        )
        assert timm.list_models(f'{name}.*', include_tags=True)


def batch_norms(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


def test_the_small_member():
    model = small()
    assert sum(p.numel() for p in model.parameters()) < 800_000
    assert SMALL.endswith('_3g') and not SMALL.startswith('test_')
    assert (model.conv1.kernel_size, model.conv1.stride) == ((3, 3), (1, 1)) and isinstance(model.maxpool, torch.nn.Identity)
    for size in (32, 64):
        for feature, info in zip(model.forward_intermediates(images(1, (size, size)))[1], model.feature_info, strict=True):
            assert feature.shape[1:] == (info['num_chs'], size // info['reduction'], size // info['reduction'])
    assert feature.shape[-1] >= 8


@pytest.mark.parametrize('name', ['resnet18_3g', 'resnet50_3g'])
def test_stage4_has_stride_1_without_dilation(name):
    model = timm.create_model(name).eval()
    convs = [m for m in model.layer4.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {(c.stride, c.dilation) for c in convs} == {((1, 1), (1, 1))}
    assert model.forward_features(torch.randn(1, 3, 224, 224)).shape[-2:] == (14, 14)
    assert model.feature_info[-1]['reduction'] == 16


@pytest.mark.parametrize('name', ['resnet18_3g', LITE])
def test_residual_batch_norms_and_head_are_initialised_as_the_authors_do(name):
    model = timm.create_model(name, head_init='orig')
    assert all(bool((m.weight == 1).all()) for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    for conv in (model.global_pool.reduce.conv, model.global_pool.reweight[2].conv_e):
        assert float(conv.weight.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.05)


def test_zero_init_last():
    assert bool((timm.create_model('resnet18_3g', zero_init_last=True).layer1[0].bn2.weight == 0).all())


@pytest.mark.parametrize('name', TIMM_POOLS)
def test_efficientnet_with_timms_pooling_is_timms_own(name):
    ours = small(LITE, global_pool=name).eval()
    theirs = timm.create_model('tf_efficientnet_lite0', num_classes=10, global_pool=name).eval()
    with torch.no_grad():
        reference.randomize_(theirs, 0)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    x = 10 * images(size=(96, 64))  # large enough for ReLU6 to matter
    assert torch.equal(ours(x), theirs(x))


def test_efficientnet_features_are_timms_own():
    ours, theirs = small(LITE, features_only=True).eval(), timm.create_model('tf_efficientnet_lite0', features_only=True).eval()
    theirs.load_state_dict(ours.model.state_dict())
    for info in ('channels', 'reduction', 'module_name'):
        assert getattr(ours.feature_info, info)() == getattr(theirs.feature_info, info)()
    x = images()
    assert all(torch.equal(a, b) for a, b in zip(ours(x), theirs(x), strict=True))
    assert timm.create_model(LITE, global_pool='', num_classes=0).eval()(images(1, (224, 224))).shape == (1, 1280, 7, 7)


@pytest.mark.parametrize('backbone', [slow_unless(backbone == SMALL, backbone) for backbone in BACKBONES])
@pytest.mark.parametrize('name', timm_3g.list_pools())
def test_every_pool_by_keyword_and_by_reset(backbone, name):
    model = small(backbone, global_pool=name).eval()
    features = model.forward_features(images())
    assert model(images()).shape == (2, 10)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    other = small(backbone, global_pool='avg' if name != 'avg' else '3g').eval()
    other.reset_classifier(7, name)
    assert other(images()).shape == (2, 7)
    assert other.head_hidden_size == model.head_hidden_size and other.global_pool.pool_type == name
    assert other._model_args | {'num_classes': 10} == model._model_args | {'num_classes': 10}


@pytest.mark.parametrize(('backbone', 'name'), HEADS)
def test_reset_classifier_keeps_the_learned_head(backbone, name):
    model = small(backbone, global_pool=name).eval()
    x = images()
    before = model.forward_head(model.forward_features(x), pre_logits=True)
    for arguments in ((7,), (5, None), (5, name), (0,)):
        model.reset_classifier(*arguments)
        assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), before)
    assert model(x).shape == (2, model.head_hidden_size)
    assert model.training is False and not any(m.training for m in model.modules())


@pytest.mark.parametrize(('backbone', 'shape'), [(SMALL, (128, 16, 16)), (LITE, (1280, 2, 2))])
def test_reset_classifier_to_another_pool_and_to_none(backbone, shape):
    model = small(backbone).double()
    model.reset_classifier(0, '')
    assert model(images().double()).shape == (2, *shape) and model.head_hidden_size == model.num_features == shape[0]
    model.reset_classifier(4, 'isqrt')
    assert model.global_pool.triangle == 'upper' and model.global_pool.dim == 64 and model.global_pool.eps == 0.0
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert [p is q for p, q in zip([*model.parameters()][-2:], model.get_classifier().parameters(), strict=True)] == [True] * 2
    with pytest.raises(ValueError, match="Unknown global pooling 'nope'"):
        model.reset_classifier(4, 'nope')


@pytest.mark.parametrize('size', [(32, 32), (47, 33), (64, 96), (4, 4), (1, 1)])
@pytest.mark.parametrize(('backbone', 'name'), [(SMALL, '3g'), (SMALL, 'mpn'), (SMALL, 'bcnn'), (LITE, '3g')])
def test_any_input_size_and_batch_of_one(size, backbone, name):
    assert torch.isfinite(small(backbone, global_pool=name).eval()(images(1, size))).all()


@pytest.mark.parametrize(('backbone', 'name'), FEW_HEADS)
@pytest.mark.parametrize('training', [False, True])
def test_hostile_images_give_finite_logits_and_gradients(backbone, name, training):
    for image in (torch.zeros_like, torch.ones_like, lambda x: 1e4 * x, lambda x: 1e-4 * x):
        model = small(backbone, global_pool=name).train(training)
        y = model(image(images(3, SIZES[backbone])))
        assert torch.isfinite(y).all()
        y.square().sum().backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('channels', [1, 4])
def test_in_chans(channels, backbone):
    assert small(backbone, in_chans=channels)(images(channels=channels)).shape == (2, 10)


@pytest.mark.parametrize(('backbone', 'name'), HEADS)
def test_channels_last(backbone, name):
    model = small(backbone, global_pool=name).eval()
    x = images()
    expected = model(x)
    got = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(('backbone', 'name'), FEW_HEADS)
@pytest.mark.parametrize(('autocast', 'out'), [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)])
def test_autocast_trains(backbone, name, autocast, out):
    model = small(backbone, global_pool=name)
    x = images(4, SIZES[backbone])  # float16 is slow on a CPU
    with torch.autocast('cpu', autocast):
        y = model(x)
    assert y.dtype == out
    y.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_fp16_autocast_keeps_logits_of_large_covariances_finite():
    model = small(global_pool='cov').eval()
    with torch.autocast('cpu', torch.float16):
        y = model.forward_head(torch.full((1, 128, 2, 2), 6e4).half() * torch.rand(1, 128, 2, 2).half())
    assert y.dtype == torch.float32 and torch.isfinite(y).all()


@pytest.mark.parametrize(('backbone', 'name'), FEW_HEADS)
def test_model_in_bfloat16(backbone, name):
    model = small(backbone, global_pool=name).to(torch.bfloat16)
    y = model(images(2, SIZES[backbone]).bfloat16())
    assert y.dtype == torch.bfloat16 and torch.isfinite(y).all()
    y.float().sum().backward()


@pytest.mark.parametrize('backbone', BACKBONES)
def test_gradient_checkpointing_changes_nothing(backbone):
    grads = []
    for enable in (False, True):
        torch.manual_seed(1)
        model = small(backbone)
        model.set_grad_checkpointing(enable)
        model(images()).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ('backbone', 'options', 'expected'),
    [
        *((backbone, {'bn_momentum': 0.02, 'bn_eps': 1e-4}, (0.02, 1e-4)) for backbone in BACKBONES),
        (SMALL, {}, (0.1, 1e-5)),
        (LITE, {}, (0.1, 1e-3)),
    ],
)
def test_batch_norm_momentum_and_eps(backbone, options, expected):
    model = small(backbone, **options)
    for _ in range(2):
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        assert {(m.momentum, m.eps) for m in norms} == {expected} and model._model_args['bn_eps'] == expected[1]
        model.reset_classifier(5, 'bcnn')
    assert isinstance(norms[-1], torch.nn.BatchNorm1d)


@pytest.mark.parametrize(('backbone', 'name'), HEADS)
def test_sync_batch_norm(backbone, name):
    model = small(backbone, global_pool=name).eval()
    x = images()
    expected, keys = model(x), model.state_dict().keys()
    model = convert_sync_batchnorm(model)
    assert not [n for n, m in model.named_modules() if type(m) in (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)]
    assert model.state_dict().keys() == keys
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize(('backbone', 'name'), [head for head in HEADS if head[1] != 'bcnn'])  # SplitBatchNorm2d is 2-d only
def test_split_batch_norm(backbone, name):
    model = convert_splitbn_model(small(backbone, global_pool=name), 2)
    assert torch.isfinite(model(images(4))).all()


@pytest.mark.parametrize(('backbone', 'name'), HEADS)
def test_frozen_batch_norm(backbone, name):
    model = small(backbone, global_pool=name)
    stages = 'layer4' if backbone == SMALL else 'blocks'
    freeze(model, ['global_pool', stages])
    frozen = [*model.global_pool.modules(), *model.get_submodule(stages).modules()]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen)
    model.train()
    before = {n: b.clone() for n, b in model.named_buffers() if n.startswith('global_pool') and n.endswith('running_mean')}
    model(images()).sum().backward()
    frozen = {n: b for n, b in before.items() if not n.startswith('global_pool.bn.')}  # BatchNorm1d is not timm's to freeze
    assert all(torch.equal(b, model.get_buffer(n)) for n, b in frozen.items())
    assert all(p.grad is None for p in model.global_pool.parameters())
    unfreeze(model, ['global_pool', stages])
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.get_submodule(stages).modules())


# A network with every kind of layer, and every pooling behind one convolution.
@pytest.mark.slow
@pytest.mark.parametrize('build', [small, *(partial(shallow, name) for name in POOLS)], ids=['network', *POOLS])
def test_compiles_in_one_graph(build):
    model, x = build().eval(), images(2, (32, 32))
    torch.testing.assert_close(torch.compile(model, backend='aot_eager', fullgraph=True)(x), model(x), **FLOAT32)


@pytest.mark.slow
@pytest.mark.parametrize(
    'build', [small, partial(shallow, 'mpn'), partial(shallow, 'dropcov')], ids=['network', 'mpn', 'dropcov']
)
def test_compiles_a_training_step_under_autocast(build):
    model = build()
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    with torch.autocast('cpu', torch.bfloat16):
        compiled(images(2, (32, 32))).float().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    'build', [small, *(slow_unless(False, partial(shallow, name)) for name in POOLS)], ids=['network', *POOLS]
)
def test_torch_export_with_dynamic_batch(build):
    model = build().eval()
    program = torch.export.export(model, (images(),), dynamic_shapes=({0: torch.export.Dim('batch')},))
    x = images(5)
    torch.testing.assert_close(program.module()(x), model(x), **FLOAT32)


@pytest.mark.parametrize('backbone', BACKBONES)
def test_meta_device_to_real_memory(backbone):
    """timm's way: build on meta, to_empty, load, refill what is not in the state dict."""
    source = small(backbone).eval()
    model = small(backbone, device='meta').eval().to_empty(device='cpu')
    model.load_state_dict(source.state_dict())
    reinit_non_persistent_buffers(model)
    x = images()
    assert torch.equal(model(x), source(x))


@pytest.mark.parametrize('stride', [8, 16])
def test_output_stride(stride):
    with pytest.raises(ValueError, match=rf'output_stride must be 32; got {stride}'):
        small(output_stride=stride)
    assert small(LITE, output_stride=stride).forward_features(images(1)).shape[-1] == 64 // stride  # timm dilates


def test_timms_stem_and_downsample_options():
    for kwargs in ({'avg_down': True}, {'stem_type': 'deep'}, {'stem_type': 'deep_tiered'}, {'replace_stem_pool': True}):
        model = timm.create_model('resnet18_3g', num_classes=3, **kwargs).eval()
        assert model(images(1, (64, 64))).shape == (1, 3) and model.forward_features(images(1, (64, 64))).shape[-1] == 4
    with pytest.raises(ValueError, match="stem_type must be one of '', 'deep', 'deep_tiered', 'cifar'; got 'foo'"):
        small(stem_type='foo')
    with pytest.raises(ValueError, match='aa_layer must be None'):
        small(aa_layer='blurpool')


@pytest.mark.parametrize('backbone', BACKBONES)
def test_unknown_arguments(backbone):
    with pytest.raises(TypeError, match='unexpected keyword argument'):
        small(backbone, num_iter=5)
    with pytest.raises(TypeError, match="global_pool='avg' has no option num_iters"):
        small(backbone, global_pool='avg', num_iters=5)
    with pytest.raises(ValueError, match='reduce_dim must be positive'):
        small(backbone, reduce_dim=-3)


def test_pretrained_without_weights_says_where_they_are():
    link = 'drive.google.com/open.id=1hN8Q5rlIOQa0YYkcen9jpN9YatPB1j4D; '
    with pytest.raises(RuntimeError, match=rf'No pretrained weights exist for resnet50_3g.orig_in1k .*{link}'):
        timm.create_model('resnet50_3g', pretrained=True)


@pytest.mark.slow
def test_import_prints_and_warns_nothing():
    done = subprocess.run([sys.executable, '-W', 'error', '-c', 'import timm_3g'], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
