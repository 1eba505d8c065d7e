"""Any backbone of timm with our head: maps, methods, options, preprocessing, names."""

import copy
import pickle
import warnings

import pytest
import timm
import torch
from any_backbone import CONV, KINDS, NHWC, STAGE, TOKEN, gcp, images
from common import FLOAT32, slow_unless
from timm.data import resolve_data_config, resolve_model_data_config
from timm.layers import SelectAdaptivePool2d
from timm.models import PretrainedCfg, create_feature_extractor
from timm.optim import create_optimizer_v2

import timm_3g
from timm_3g.checkpoints.function import defaults_of
from timm_3g.layers import WithAverage2d
from timm_3g.models import GCP, EfficientNet3G
from timm_3g.models.backbones import family_of
from timm_3g.models.gcp_models import NAMED

# A model of timm's ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('backbone', KINDS)
def test_the_map_is_the_backbones(backbone):
    """Against timm's network with the same weights: its forward_intermediates, and the plain names."""
    model = gcp(backbone).eval()
    plain = timm.create_model(backbone).eval()
    named = {k: v for k, v in model.state_dict().items() if not k.startswith(('global_pool.', 'classifier.'))}
    missing, unexpected = plain.load_state_dict(named, strict=False)
    assert not unexpected and all(k.split('.')[0] in ('head', 'head_dist', 'classifier', 'conv_head', 'norm') for k in missing)
    x = images(model)
    with torch.no_grad():
        last = len(plain.feature_info) - 1
        expected = plain.forward_intermediates(x, [last], norm=True, output_fmt='NCHW', intermediates_only=True)[0]
        torch.testing.assert_close(model.forward_features(x), expected, **FLOAT32)
    assert expected.shape[1] == model.num_features and isinstance(model, type(plain)) and isinstance(model, GCP)


@pytest.mark.parametrize('backbone', KINDS)
def test_methods_of_timm(backbone):
    model = gcp(backbone, drop_rate=0.5).eval()
    x = images(model)
    features = model.forward_features(x)
    vector = model.forward_head(features, pre_logits=True)
    assert vector.shape == (2, model.head_hidden_size) == (2, 136) and torch.equal(model.forward_head(features), model(x))
    dropped = model.train().forward_head(features, pre_logits=True)[vector != 0] == 0
    assert 0.3 < float(dropped.float().mean()) < 0.7, 'drop_rate must reach the vector'
    assert model.get_classifier() is model.classifier and model.classifier.out_features == 10
    maps = model.eval().forward_intermediates(x, output_fmt='NCHW', intermediates_only=True)
    assert [m.shape[1] for m in maps] == [info['num_chs'] for info in model.feature_info]
    model.reset_classifier(3, 'cov')
    assert model(x).shape == (2, 3) and model.global_pool.pool_type == 'cov'
    model.reset_classifier(0, '')
    assert model(x).shape == features.shape
    if backbone != STAGE:  # timm has none for it
        model.set_grad_checkpointing()
        model.train()(x).sum().backward()


@pytest.mark.parametrize('backbone', [CONV, TOKEN, NHWC])
def test_layer_decay_gives_the_head_the_full_rate(backbone):
    """As train.py --layer-decay does: the groups of the backbone, then all of the head."""
    model = gcp(backbone, global_pool='3g')
    optimizer = create_optimizer_v2(model, 'adamw', lr=1.0, layer_decay=0.5, layer_decay_min_scale=0.01, weight_decay=0.1)
    scale = {id(p): group['lr_scale'] for group in optimizer.param_groups for p in group['params']}
    scales = {name: scale[id(p)] for name, p in model.named_parameters()}
    head = {name: s for name, s in scales.items() if name.startswith(('global_pool.', 'classifier.'))}
    backbone_scales = [s for name, s in scales.items() if name not in head]
    assert set(head.values()) == {1.0} and min(backbone_scales) < max(backbone_scales)
    no_decay = {id(p) for group in optimizer.param_groups if not group['weight_decay'] for p in group['params']}
    assert all(id(model.get_parameter(name)) in no_decay for name in timm.create_model(backbone).no_weight_decay()
               if name in scales) if hasattr(model, 'no_weight_decay') else True  # fmt: skip


def test_options_reach_the_backbone():
    assert gcp('resnet10t', in_chans=1)(torch.randn(2, 1, 64, 64)).shape == (2, 10)
    assert gcp(TOKEN, img_size=64).forward_features(torch.randn(1, 3, 64, 64)).shape[2:] == (4, 4)
    assert gcp(TOKEN, img_size=(32, 64)).forward_features(torch.randn(1, 3, 32, 64)).shape[2:] == (2, 4)
    assert gcp(TOKEN, dynamic_img_size=True).forward_features(torch.randn(1, 3, 48, 80)).shape[2:] == (3, 5)
    dilated = gcp('resnet10t', output_stride=16)
    assert dilated.forward_features(torch.randn(1, 3, 64, 64)).shape[2:] == (4, 4)
    assert any(getattr(m, 'drop_prob', 0) for m in gcp(drop_path_rate=0.2).modules())
    model = gcp(TOKEN)
    model.set_input_size(96)
    assert model.forward_features(torch.randn(1, 3, 96, 96)).shape[2:] == (6, 6)
    with pytest.raises(TypeError, match=r'num_itres.* Did you mean num_iters\?'):
        gcp(num_itres=3)
    with pytest.raises(TypeError, match='output_stride'):
        gcp(TOKEN, output_stride=16)


def test_reduction_by_default():
    """256 where the map has more channels, else none."""
    assert gcp('resnet10t', reduce_dim=None).reduce_dim == 256 and gcp(TOKEN, reduce_dim=None).reduce_dim == 0
    assert gcp('resnet10t', reduce_dim=None, out_index=-2).reduce_dim == 0 and gcp('resnet10t', reduce_dim=0).reduce_dim == 0


@pytest.mark.parametrize('pool', timm_3g.list_pools())
def test_every_pooling(pool):
    model = gcp('resnet10t', global_pool=pool)
    assert model(images(model)).shape == (2, 10)


@pytest.mark.parametrize('backbone', KINDS)
@pytest.mark.parametrize('first_order', [False, True])
def test_a_stage_before_the_last(backbone, first_order):
    """Against timm's forward_intermediates: the covariance of one map, and the average of another beside it."""
    index = 0 if backbone == STAGE else -2
    model = gcp(backbone, out_index=index, first_order=first_order).eval()
    x = images(model)
    plain = timm.create_model(backbone).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith(('global_pool.', 'classifier.'))}, strict=False
    )
    index %= len(plain.feature_info)
    with torch.no_grad():
        tap, last = plain.forward_intermediates(
            x, [index, len(plain.feature_info) - 1], norm=True, output_fmt='NCHW', intermediates_only=True
        )
        assert model.out_index == index and model.num_features == tap.shape[1]
        vector = model.forward_head(model.forward_features(x), pre_logits=True)
        pooled = (model.global_pool.pool if first_order else model.global_pool)(tap)
        expected = torch.cat([last.mean((2, 3)), pooled], 1) if first_order else pooled
    torch.testing.assert_close(vector, expected, **FLOAT32)
    model.train()(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval().reset_classifier(4, 'avg')
    with torch.no_grad():
        vector = model.forward_head(model.forward_features(x), pre_logits=True)
        found = model.forward_features(x)
    maps = found if first_order else (found,)
    torch.testing.assert_close(vector, torch.cat([m.mean((2, 3)) for m in reversed(maps)], 1), **FLOAT32)
    assert model(x).shape == (2, 4)
    model.reset_classifier(0, '')
    assert torch.equal(model(x), maps[0])


@pytest.mark.parametrize(('pool', 'joined'), [('avg', False), ('fastcatavgmax', False), ('max', True), ('fastavgmax', True)])
def test_timms_poolings_of_the_last_map_get_its_average_once(pool, joined):
    model = gcp('resnet10t', global_pool=pool, first_order=True).eval()
    with torch.no_grad():
        features = model.forward_features(images(model))
        vector = model.forward_head(features, pre_logits=True)
    expected = SelectAdaptivePool2d(pool_type=pool, flatten=True)(features)
    expected = torch.cat([features.mean((2, 3)), expected], 1) if joined else expected
    torch.testing.assert_close(vector, expected, **FLOAT32)


def test_first_order_of_the_same_map():
    model = gcp(first_order=True).eval()
    x = images(model)
    features = model.forward_features(x)
    assert isinstance(model.global_pool, WithAverage2d) and model.head_hidden_size == model.num_features + 136
    vector = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(vector[:, : model.num_features], features.mean((2, 3)), **FLOAT32)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.isfinite(model(x)).all()


@pytest.mark.parametrize('out_index', [4, -5, 1.0, True])
def test_stages_that_are_not_there(out_index):
    with pytest.raises(ValueError, match=r'out_index must be an integer from -4 to 3 for ConvNeXt; got'):
        gcp(out_index=out_index)


@pytest.mark.parametrize('pool', ['3g', 'urm_v1', 'urm_v2'])
def test_the_head_starts_open(pool):
    """Every map is one number, and the vector is that of the same pooling without re-weighting."""
    model = gcp('resnet10t', global_pool=pool).eval()
    bare = gcp('resnet10t', global_pool='isqrt', triangle='lower', eps=1e-7).eval()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if 'reweight' not in k})
    bare.global_pool.reduce.bn.weight.data.fill_(1.0)
    x = images(model)
    with timm_3g.record_weights(model) as maps, torch.no_grad():
        vector = model.forward_head(model.forward_features(x), pre_logits=True)
    assert maps and all((w - 0.7310586).abs().max() < 1e-6 for w in maps)
    torch.testing.assert_close(vector, bare.forward_head(bare.forward_features(x), pre_logits=True), rtol=1e-4, atol=1e-5)
    model.train()(x).square().sum().backward()
    assert all(block.squeeze.conv_g.weight.grad.abs().sum() > 0 for block in model.global_pool.reweight)


@pytest.mark.parametrize('backbone', KINDS)
def test_copies_and_pickles(backbone):
    model = gcp(backbone).eval()
    x = images(model, 1)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(again) is type(model) and torch.equal(again(x), model(x))


@pytest.mark.parametrize('backbone', [CONV, slow_unless(False, NHWC), slow_unless(False, TOKEN)])
def test_torch_export_and_features_only(backbone):
    model = gcp(backbone).eval()
    x = images(model)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x), **FLOAT32)
    features = gcp(backbone, features_only=True, out_indices=(0, 1)).eval()(x)
    assert len(features) == 2 and all(f.ndim == 4 for f in features)


@pytest.mark.parametrize(
    ('backbone', 'depth'),
    [
        ('resnet10t', {}),
        slow_unless(False, 'swin_tiny_patch4_window7_224', {'depths': (2, 1, 1, 1)}),
        slow_unless(False, TOKEN, {'depth': 2}),
    ],
)
def test_compiles_in_one_graph(backbone, depth):
    model = gcp(backbone, **depth).eval()
    x = images(model)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(x), model(x), **FLOAT32)


@pytest.mark.parametrize(
    ('backbone', 'depth'),
    [
        ('resnet10t', {}),
        slow_unless(False, 'swin_tiny_patch4_window7_224', {'depths': (2, 1, 1, 1)}),
        slow_unless(False, TOKEN, {'depth': 2}),
    ],
)
def test_onnx(backbone, depth, tmp_path):
    import onnxruntime

    model = gcp(backbone, global_pool='3g', **depth).eval()
    x = images(model)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # timm's patch embedding compares sizes while it is traced
        torch.onnx.export(model, (x,), str(tmp_path / 'net.onnx'), dynamo=False, opset_version=17)
    session = onnxruntime.InferenceSession(str(tmp_path / 'net.onnx'))
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(x).detach(), rtol=1e-3, atol=1e-4)


# Preprocessing ----------------------------------------------------------------------------------------------------------

TAGS = [
    'convnext_atto.d2_in1k',
    'vit_tiny_patch16_224.augreg_in21k_ft_in1k',
    'efficientnet_b0.ra_in1k',
    'mobilenetv3_large_100.miil_in21k_ft_in1k',
    'inception_v3.tv_in1k',
    'eva02_tiny_patch14_224.mim_in22k',
    'resnet10t.c3_in1k',
    'vit_base_patch32_clip_224.laion2b_ft_in1k',
]


def test_images_are_prepared_as_for_the_backbone():
    found = []
    for tag in TAGS:
        ours = resolve_data_config(model=timm.create_model('gcp', backbone=tag, device='meta'))
        theirs = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(tag).to_dict())
        assert ours == theirs
        found.append((ours['mean'], ours['interpolation'], ours['crop_pct'], ours['input_size']))
    assert len(set(found)) >= 5, 'tags that prepare images differently'
    for name, options in NAMED.items():
        ours = timm.get_pretrained_cfg(f'{name}_3g')
        theirs = timm.get_pretrained_cfg(options['backbone'])
        assert (ours.mean, ours.std, ours.crop_pct, ours.input_size) == (
            theirs.mean,
            theirs.std,
            theirs.crop_pct,
            theirs.input_size,
        )


# Named members ----------------------------------------------------------------------------------------------------------


def test_named_members():
    for name, options in NAMED.items():
        for pool in ('3g', 'isqrt'):
            assert defaults_of(f'{name}_{pool}').items() >= {'backbone': options['backbone'], 'global_pool': pool}.items()
    assert timm.get_pretrained_cfg('gcp_vit_small_patch16_224_3g').pool_size == (14, 14)
    model = timm.create_model('convnext_atto_3g', num_classes=3, num_iters=4)
    assert model.global_pool.num_iters == 4 and model.num_classes == 3
    assert timm.create_model('gcp', device='meta').backbone == 'resnet18.a1_in1k'


def test_the_efficientnet_keeps_its_names_and_its_function():
    """Names, shapes and order of commit a9ef2a2, where it had a class of its own."""
    model = timm.create_model('tf_efficientnet_lite0_3g', device='meta')
    theirs = timm.create_model('tf_efficientnet_lite0', num_classes=0, global_pool='', device='meta')
    names = list(model.state_dict())
    assert names[: len(theirs.state_dict())] == list(theirs.state_dict()) and len(names) == 416
    assert names[len(theirs.state_dict())] == 'global_pool.reduce.conv.weight' and names[-2:] == [
        'classifier.weight',
        'classifier.bias',
    ]
    assert {m.eps for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    assert model.reduce_dim == 256 and model.head_hidden_size == 32896
    assert isinstance(model, EfficientNet3G) and type(timm.create_model('gcp', backbone='tinynet_e')) is EfficientNet3G


def test_a_network_that_a_script_registered_is_a_backbone_too(monkeypatch):
    def my_net(pretrained=False, **kwargs):
        return timm.create_model('resnet10t', **kwargs)

    monkeypatch.setattr(my_net, '__module__', '__main__')
    monkeypatch.setitem(timm.models._registry._model_entrypoints, 'my_net', my_net)
    assert family_of('my_net') == '__main__'


@pytest.mark.parametrize('backbone', ['test_byobnet', 'vgg11', 'csatv2', 'mobilevit_xxs', 'halonet26t'])
def test_features_of_networks_whose_pruning_changes_their_head(backbone):
    whole, photo = timm.create_model(backbone).eval(), torch.rand(1, 3, *[256 if backbone == 'halonet26t' else 64] * 2)
    features = timm.create_model('gcp', backbone=backbone, global_pool='isqrt', features_only=True, out_indices=(0, 2)).eval()
    assert features.model.num_classes == 0 and not hasattr(features.model, 'head')
    features.model.load_state_dict(whole.state_dict(), strict=False)
    expected = whole.forward_intermediates(photo, indices=[0, 2], intermediates_only=True)
    assert all(torch.equal(*pair) for pair in zip(features(photo), expected, strict=True))
    assert features.feature_info.channels() == [maps.shape[1] for maps in expected]


def test_rows_of_a_map_of_whole_patches():
    """Twins leaves a part of a patch out, where others make a row of it."""
    model = gcp('twins_svt_small').eval()
    for height, width in ((80, 112), (240, 240)):
        photo = torch.randn(1, 3, height, width)
        with torch.no_grad():
            expected = model.backbone_intermediates(photo, [3], norm=True, output_fmt='NCHW', intermediates_only=True)[0]
            assert expected.shape[2:] == (height // 32, width // 32)
            torch.testing.assert_close(model.forward_features(photo), expected)


def test_a_pretrained_cfg_as_an_object():
    cfg = PretrainedCfg(input_size=(3, 48, 48), mean=(0.1, 0.2, 0.3), num_classes=7)
    model = timm.create_model('gcp', backbone='test_resnet', pretrained_cfg=cfg)
    config = resolve_model_data_config(model)
    assert config['input_size'] == (3, 48, 48) and config['mean'] == (0.1, 0.2, 0.3) and model.num_classes == 7


@pytest.mark.parametrize('options', [{}, {'out_index': -2}, {'out_index': -2, 'first_order': True}])
@pytest.mark.parametrize('backbone', [CONV, NHWC, 'test_vit', STAGE])
def test_the_last_features_of_forward_intermediates_are_those_of_forward_features(backbone, options):
    model = gcp(backbone, **options).eval()
    x = images(model)
    with torch.no_grad():
        features, maps = model.forward_intermediates(x, indices=1)
        expected = model.forward_features(x)
        assert torch.equal(model.forward_head(features), model(x)) and len(maps) == 1
    torch.testing.assert_close(features, expected)
    assert torch.equal(model.forward_intermediates(x, 1, intermediates_only=True)[0], maps[0])


@pytest.mark.parametrize('kind', ['hook', 'dict', 'list', 'fx', 'getter'])
def test_features_by_timms_own_classes(kind):
    """Without out_indices all stages, as timm's own network has them."""
    backbone = 'test_resnet'
    got, whole = (
        timm.create_model(name, features_only=True, feature_cls=kind, **more).eval()
        for name, more in (('gcp', {'backbone': backbone, 'reduce_dim': 16}), (backbone, {}))
    )
    assert got.feature_info.channels() == whole.feature_info.channels()
    found = got(torch.rand(1, 3, 64, 64))
    found = list(found.values()) if isinstance(found, dict) else found
    assert [maps.shape[1] for maps in found] == whole.feature_info.channels()


def test_a_transformer_of_any_size_is_traced_for_its_features():
    """torch.fx looks for the functions that it must not enter where `forward` was defined."""
    extractor = create_feature_extractor(gcp('test_vit', img_size=64), ['blocks.0.mlp'])
    assert [maps.shape for maps in extractor(torch.rand(1, 3, 64, 64)).values()] == [(1, 17, 64)]


def test_initialized_anew_the_head_starts_open_again():
    model = gcp('test_resnet', global_pool='3g').eval()
    model.init_weights()
    with timm_3g.record_weights(model) as maps, torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert len(maps) == 3 and all((w - 0.7310586).abs().max() < 1e-6 for w in maps)
    beit = gcp('beit_base_patch16_224', device='meta')
    beit.init_weights()  # it reaches for a head
    assert not hasattr(beit, 'head') and not hasattr(gcp(CONV), 'init_weights')


def test_stages_behind_the_tap_are_gone():
    tap = {'backbone': 'test_resnet', 'global_pool': 'isqrt', 'reduce_dim': 8, 'features_only': True}
    with pytest.raises(
        ValueError, match=r'out_indices must be below 2: with out_index=1 the later stages are gone; got \(1, 4\)'
    ):
        timm.create_model('gcp', out_index=1, out_indices=(1, 4), **tap)
    assert len(timm.create_model('gcp', out_index=1, out_indices=(0, 1), **tap)(torch.rand(1, 3, 64, 64))) == 2
    kept = timm.create_model('gcp', out_index=1, first_order=True, out_indices=(1, 4), **tap)(torch.rand(1, 3, 64, 64))
    assert [maps.shape[1] for maps in kept] == [32, 96]


def test_an_output_stride_that_no_network_has():
    with pytest.raises(ValueError, match='output_stride must be 8, 16 or 32; got 7'):
        timm.create_model('gcp', backbone='test_resnet', output_stride=7)
