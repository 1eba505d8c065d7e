"""Any backbone of timm with our head: maps, methods, options, weights, records. `timm-3g backbones` tries every family."""

import argparse
import copy
import json
import logging
import pickle
import warnings

import pytest
import timm
import torch
from common import FLOAT32, slow_unless
from timm.data import resolve_data_config
from timm.optim import create_optimizer_v2

import timm_3g
from timm_3g.__main__ import main
from timm_3g.layers import WithAverage2d
from timm_3g.models import GCP, EfficientNet3G
from timm_3g.models.backbones import INTERMEDIATES, LAST_STAGE_ALONE, REFUSED, TOKENS, WITHOUT_NORM, family_of, takes_norm
from timm_3g.models.gcp_models import NAMED
from timm_3g.models.loading import create_loaded
from timm_3g.models.survey import SMALL_MEMBERS, survey_backbones, survey_table

CONV, NHWC, TOKEN, STAGE = 'convnext_zepto_rms', 'mambaout_femto', 'vit_tiny_patch16_224', 'pit_ti_224'
ONE_OF_THREE = [
    slow_unless(backbone == 'resnet10t', backbone) for backbone in ('resnet10t', 'swin_tiny_patch4_window7_224', TOKEN)
]
KINDS = [CONV, 'mobilenetv3_small_050', NHWC, TOKEN, 'deit_tiny_distilled_patch16_224', STAGE]


def gcp(backbone: str = CONV, **kwargs) -> torch.nn.Module:
    return timm.create_model(
        'gcp', **{'backbone': backbone, 'num_classes': 10, 'global_pool': 'isqrt', 'reduce_dim': 16, **kwargs}
    )


def images(model: torch.nn.Module, batch: int = 2) -> torch.Tensor:
    cfg = model.pretrained_cfg
    return torch.randn(batch, *(cfg['input_size'] if cfg.get('fixed_input_size') else (cfg['input_size'][0], 64, 64)))


# Families ---------------------------------------------------------------------------------------------------------------

# Every form of features, and 33 of the 98 families. The others take longer.
FAST = """
    byobnet convit convnext cpubone cspnet cspnext deit dla edgenext efficientformer_v2 efficientnet
    efficientvit_mit efficientvit_msra fasternet hgnet iformer inception_next lcnetv2 levit mambaout
    mobilenetv3 pit pvt_v2 regnet repghost resnet rexnet shvit starnet swiftformer vision_transformer
    vision_transformer_hybrid vovnet
""".split()  # noqa: SIM905


@pytest.mark.parametrize(
    'family', [*FAST, *(slow_unless(False, family) for family in ('cait', 'efficientvim', 'volo', 'xcit'))]
)
def test_a_family(family):
    """Two steps: logits and gradients are finite, every parameter has a gradient, and the map has `num_features` channels."""
    (found,) = survey_backbones([family], image_size=96)
    assert not found.problem and len(found.map_size) == 3


def test_the_families():
    known = {family_of(name) for name in timm.list_models() if not timm_3g.models.loading.is_ours(name)}
    assert set(SMALL_MEMBERS) <= known, 'timm has dropped families: take them out of SMALL_MEMBERS'
    assert known <= set(SMALL_MEMBERS), 'timm has new families: try them with `timm-3g backbones`, and add them'
    assert (
        TOKENS | INTERMEDIATES | WITHOUT_NORM | set(REFUSED) | set(LAST_STAGE_ALONE) <= known
        and len(known) - len(REFUSED) >= 90
        and len(FAST) >= 30
    )
    assert {family_of(member) for member in SMALL_MEMBERS.values()} == known


def test_list_backbones():
    names = timm_3g.list_backbones()
    assert len(names) > 1300 and 'resnet50' in names
    assert not {'resnet50_3g', 'gcp', 'coat_tiny', 'crossvit_9_240'} & set(names)
    assert timm_3g.list_backbones('vit_tiny_patch16_?*4') == ['vit_tiny_patch16_224', 'vit_tiny_patch16_384']


def test_an_unknown_family():
    with pytest.raises(ValueError, match=r"timm has no family 'convnex'\. Did you mean convnext\?"):
        next(survey_backbones(['convnex']))
    with pytest.raises(ValueError, match="timm has no family 'gcp_models'"):
        next(survey_backbones(['gcp_models']))


def test_the_table_says_what_was_refused():
    rows = survey_table(survey_backbones(['crossvit', 'starnet'], image_size=64))
    assert rows[0][-1] == f'no: {REFUSED["crossvit"]}' and rows[1] == [
        'starnet',
        'starnet_s050',
        '64 x 64',
        '128 x 2 x 2',
        *rows[1][4:],
    ]


@pytest.mark.parametrize(
    ('backbone', 'message'),
    [
        ('coat_tiny', r"backbone='coat_tiny' cannot have a second-order head: the maps of its parallel stages"),
        ('convnext_ato', r"backbone='convnext_ato' is no network of timm\. Nearest: convnext_atto"),
        ('resnet50_3g', 'has a head of this package already'),
        ('hf-hub:timm/resnet18.a1_in1k', r'must be the name of a network in timm; .*pretrained_cfg_overlay'),
        ('local-dir:/etc', 'must be the name of a network in timm'),
        ('resnet18.a9_in1k', r"resnet18 has no tag 'a9_in1k'\. Its tags: a1_in1k, "),
    ],
)
def test_backbones_that_are_refused(backbone, message):
    with pytest.raises(ValueError, match=message):
        gcp(backbone)


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
    model.reset_classifier(4, 'avg')
    assert model(x).shape == (2, 4)


@pytest.mark.parametrize(
    'family',
    [
        slow_unless(family in ('hiera', 'resnet', 'hrnet'), family)
        for family in (*FAST, 'efficientvim', 'hiera', 'hieradet_sam2', 'hrnet', 'xcit')
    ],
)
@pytest.mark.parametrize('first_order', [False, True])
def test_a_stage_of_a_family(family, first_order):
    """The map is that of timm's forward_intermediates, and no parameter is idle."""
    backbone = SMALL_MEMBERS[family]
    if family in LAST_STAGE_ALONE:
        with pytest.raises(ValueError, match=f'out_index must be left out for {backbone}: {LAST_STAGE_ALONE[family]}'):
            gcp(backbone, out_index=-2, first_order=first_order)
        return
    model = gcp(backbone, out_index=-2, first_order=first_order)
    cfg = model.pretrained_cfg
    x = torch.randn(2, *(cfg['input_size'] if cfg.get('fixed_input_size') else (3, 128, 128)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    for training in (True, False):
        model.train(training)(x).square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    plain = timm.create_model(backbone).eval()
    plain.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith(('global_pool.', 'classifier.'))}, strict=False
    )
    with torch.no_grad():
        found = model.forward_features(x)
        (expected,) = plain.forward_intermediates(
            x, indices=[model.out_index], norm=takes_norm(family), output_fmt='NCHW', intermediates_only=True
        )
    torch.testing.assert_close(found[0] if first_order else found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('backbone', ['hrnet_w18_small', 'efficientvim_m1'])
def test_families_without_earlier_stages(backbone):
    with pytest.raises(ValueError, match=f'out_index must be left out for {backbone}: '):
        gcp(backbone, out_index=-2)


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
    """Every map is 1/2 everywhere, and the vector is that of the same pooling without re-weighting."""
    model = gcp('resnet10t', global_pool=pool).eval()
    bare = gcp('resnet10t', global_pool='isqrt', triangle='lower', eps=1e-7).eval()
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if 'reweight' not in k})
    bare.global_pool.reduce.bn.weight.data.fill_(1.0)
    x = images(model)
    with timm_3g.record_weights(model) as maps, torch.no_grad():
        vector = model.forward_head(model.forward_features(x), pre_logits=True)
    assert maps and all((w == 0.5).all() for w in maps)
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


# Weights ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A file of a plain ConvNeXt with seven classes."""
    torch.manual_seed(3)
    net = timm.create_model(CONV, num_classes=7).eval()
    file = tmp_path_factory.mktemp('plain') / 'convnext.pth'
    torch.save({'state_dict': net.state_dict()}, file)
    return net, file


@pytest.mark.parametrize('declared', [{}, {'num_classes': -1}], ids=['python', 'train.py'])
def test_weights_of_the_backbone_go_under_a_random_head(plain, caplog, declared):
    net, file = plain
    with caplog.at_level(logging.INFO, 'timm_3g'):
        model = gcp(pretrained=True, pretrained_cfg_overlay={'file': str(file), **declared}).eval()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f'gcp: the weights of {CONV} are loaded under a random head. Train it before use.'
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.forward_features(x), net.forward_features(x)) and model.num_classes == 10
    assert 'file' not in model._model_args and not model.pretrained_cfg.get('state_dict')


def test_features_of_the_backbone_come_without_a_warning(plain, caplog):
    model = gcp(pretrained=True, pretrained_cfg_overlay={'file': str(plain[1])}, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = plain[0].forward_intermediates(x, intermediates_only=True, norm=False)
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True)) and not caplog.records


def test_weights_of_the_backbones_tag_take_timms_own_path(plain, monkeypatch):
    """What timm asks its Hub for is the backbone's repository, once; without network the error says what to do."""
    asked = []

    def download(repo_id, *args, **kwargs):
        asked.append(repo_id)
        return str(plain[1])

    monkeypatch.setattr('timm.models._hub.hf_hub_download', download)
    with pytest.raises(ValueError, match=r'These are no weights for the backbone convnext_atto\.d2_in1k: '):
        gcp('convnext_atto.d2_in1k', pretrained=True)
    assert set(asked) == {'timm/convnext_atto.d2_in1k'}

    def offline(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('timm.models._hub.hf_hub_download', offline)
    with pytest.raises(
        RuntimeError, match=r'of the backbone convnext_atto\.d2_in1k cannot be fetched: no network.*dict\(file='
    ):
        gcp('convnext_atto.d2_in1k', pretrained=True)


def test_foreign_weights_are_refused(plain, tmp_path):
    with pytest.raises(ValueError, match='These are no weights for the backbone resnet10t: '):
        gcp('resnet10t', pretrained=True, pretrained_cfg_overlay={'file': str(plain[1])})
    part = {k: v for k, v in plain[0].state_dict().items() if not k.startswith('stages.3')}
    torch.save(part, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'no weights for the backbone .*Missing key.*stages\.3'):
        gcp(pretrained=True, pretrained_cfg_overlay={'file': str(tmp_path / 'part.pth')})


def test_a_bare_state_dict_of_the_whole_network(tmp_path):
    """Without a reduction the pooling has no tensors: what tells it is the name of the classifier."""
    model = gcp(reduce_dim=0).eval()
    torch.save(model.state_dict(), tmp_path / 'bare.pth')
    overlay = {'file': str(tmp_path / 'bare.pth'), 'num_classes': 10}
    again = gcp(reduce_dim=0, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))


@pytest.mark.parametrize('img_size', [96, (64, 96)])
def test_a_run_at_another_image_size_is_known(tmp_path, capsys, img_size):
    options = {'backbone': TOKEN, 'reduce_dim': 8, 'img_size': img_size}
    model = timm.create_model('gcp', num_classes=3, global_pool='isqrt', **options).eval()
    args = argparse.Namespace(model='gcp', gp='isqrt', num_classes=3, model_kwargs=options)
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    x = torch.randn(1, 3, *([img_size] * 2 if isinstance(img_size, int) else img_size))
    assert torch.equal(create_loaded('gcp', tmp_path / 'last.pth.tar').eval()(x), model(x))
    assert main(['export', str(tmp_path / 'last.pth.tar'), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    assert torch.equal(timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()(x), model(x))
    args.model_kwargs['img_size'] = 'large'
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    with pytest.raises(ValueError, match='img_size must be a finite int'):
        create_loaded('gcp', tmp_path / 'last.pth.tar')
    capsys.readouterr()


def test_a_random_head_is_never_evaluated():
    with pytest.raises(ValueError, match='convnext_atto_3g names no weights of its own'):
        create_loaded('convnext_atto_3g')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint as timm's train.py writes it, and its model."""
    options = {'backbone': CONV, 'reduce_dim': 16, 'num_iters': 3, 'out_index': -2, 'first_order': True}
    model = timm.create_model('gcp', num_classes=5, global_pool='isqrt', **options).eval()
    args = argparse.Namespace(model='gcp', gp='isqrt', num_classes=5, model_kwargs=options, bn_eps=None)
    file = tmp_path_factory.mktemp('run') / 'model_best.pth.tar'
    torch.save({'state_dict': model.state_dict(), 'args': args, 'epoch': 3}, file)
    return model, file


def test_from_training_to_a_folder_and_back(trained, tmp_path, monkeypatch, capsys):
    """No request for the backbone's weights, equal logits, sha256 and refusals as for other models."""
    model, file = trained
    monkeypatch.setattr('timm.models._hub.hf_hub_download', lambda *a, **k: pytest.fail('asked the Hub'))
    assert main(['export', str(file), '--output', str(tmp_path / 'out'), '--license', 'mit', '--model', 'gcp.toy']) == 0
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert config['architecture'] == 'gcp' and len(config['sha256']) == 64
    assert config['model_args'].items() >= {'backbone': CONV, 'out_index': -2, 'first_order': True, 'num_iters': 3}.items()
    folder = f'local-dir:{tmp_path / "out"}'
    again = timm.create_model(folder, pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and tuple(again.pretrained_cfg['mean']) == model.pretrained_cfg['mean']
    assert torch.equal(create_loaded(folder).eval()(x), model(x)) and torch.equal(
        create_loaded('gcp', file).eval()(x), model(x)
    )
    for options, message in (
        ({'backbone': 'convnext_atto'}, f"backbone: weights '{CONV}', model 'convnext_atto'"),
        ({'global_pool': 'cov'}, "weights are of global_pool='isqrt'.*the model has 'cov'"),
        ({'num_iters': 5}, 'num_iters: weights 3, model 5'),
        ({'triangle': 'lower'}, "triangle: weights 'upper', model 'lower'"),
        ({'out_index': 3}, 'out_index: weights 2, model 3'),
        ({'first_order': False}, 'first_order: weights True, model False'),
        ({'output_stride': 16}, 'output_stride: weights None, model 16'),
    ):
        with pytest.raises(ValueError, match=message):
            timm.create_model(folder, pretrained=True, **options)
    damaged = bytearray((tmp_path / 'out' / 'model.safetensors').read_bytes())
    damaged[-5] ^= 1
    (tmp_path / 'out' / 'model.safetensors').write_bytes(damaged)
    with pytest.raises(ValueError, match='is not the published file'):
        timm.create_model(folder, pretrained=True)
    capsys.readouterr()


@pytest.mark.parametrize('key', ['checkpoint_path', 'backbone_weights'])
def test_a_config_names_no_other_file(trained, tmp_path, capsys, key):
    """What would reach timm.create_model of the backbone."""
    assert main(['export', str(trained[1]), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    capsys.readouterr()
    file = tmp_path / 'out' / 'config.json'
    config = json.loads(file.read_text())
    config['model_args'][key] = {'url': 'http://127.0.0.1/other.pth'}
    file.write_text(json.dumps(config))
    with pytest.raises((TypeError, ValueError), match=key):
        timm.create_model(f'local-dir:{tmp_path / "out"}')
    with pytest.raises((TypeError, ValueError), match=key):
        timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True)


def test_to_the_hub_and_back(trained, hub, capsys):
    """Nothing but its own repository is asked for."""
    model, file = trained
    assert main(['publish', str(file), '--model', 'gcp.toy', '--license', 'mit', '--repo', 'acme/gcp.toy']) == 0
    capsys.readouterr()
    hub.requests.clear()
    again = timm.create_model('hf-hub:acme/gcp.toy', pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and again.pretrained_cfg['tag'] == 'toy'
    assert all('acme/gcp.toy' in path or 'lfs' in path for _, path, *_ in hub.requests) and hub.requests


def test_a_checkpoint_of_train_is_known_by_its_arguments(trained):
    model, file = trained
    options = {'reduce_dim': 16, 'num_iters': 3, 'out_index': 2, 'first_order': True, 'num_classes': 5}
    overlay = {'file': str(file), 'num_classes': 5}
    again = gcp(pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match='first_order: weights True, model False'):
        gcp(pretrained=True, pretrained_cfg_overlay=overlay, **{**options, 'first_order': False})
    with pytest.raises(ValueError, match='output_stride: weights None, model 16'):
        gcp(pretrained=True, pretrained_cfg_overlay=overlay, output_stride=16, **options)


@pytest.mark.slow
def test_through_the_wrapper_of_transformers(trained, tmp_path, capsys):
    from transformers import TimmWrapperForImageClassification

    model, file = trained
    assert main(['export', str(file), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    wrapped = TimmWrapperForImageClassification.from_pretrained(tmp_path / 'out').eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(wrapped(x).logits, model(x), **FLOAT32)
    capsys.readouterr()


# Named members ----------------------------------------------------------------------------------------------------------


def test_named_members():
    for name, options in NAMED.items():
        for pool in ('3g', 'isqrt'):
            model = timm.create_model(f'{name}_{pool}', device='meta')
            assert model.backbone == options['backbone'] and model.global_pool.pool_type == pool
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
