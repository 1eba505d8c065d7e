"""The families of timm: which work, which refuse, and the stages that each one has."""

import pytest
import timm
import torch
from any_backbone import gcp
from common import REGISTERED, slow_unless

import timm_3g
from timm_3g.models.backbones import INTERMEDIATES, LAST_STAGE_ALONE, REFUSED, TOKENS, WITHOUT_NORM, family_of, takes_norm
from timm_3g.models.survey import SMALL_MEMBERS, survey_backbones, survey_table

# Every form of features, and 33 of the 98 families. The others take longer.
FAST = """
    byobnet convit convnext cpubone cspnet cspnext deit dla edgenext efficientformer_v2 efficientnet
    efficientvit_mit efficientvit_msra fasternet hgnet iformer inception_next lcnetv2 levit mambaout
    mobilenetv3 pit pvt_v2 regnet repghost resnet rexnet shvit starnet swiftformer vision_transformer
    vision_transformer_hybrid vovnet
""".split()  # noqa: SIM905
WITH_STAGES = [*FAST, 'hiera', 'hieradet_sam2', 'xcit']


@pytest.mark.parametrize(
    'family', [*FAST, *(slow_unless(False, family) for family in ('cait', 'efficientvim', 'volo', 'xcit'))]
)
def test_a_family(family):
    """Two steps: logits and gradients are finite, every parameter has a gradient, and the map has `num_features` channels.

    The test of a stage has isqrt on the families that it takes.
    """
    pools = ['3g'] if family in WITH_STAGES else ['3g', 'isqrt']
    (found,) = survey_backbones([family], image_size=96, pools=pools)
    assert not found.problem and len(found.map_size) == 3


def test_the_families():
    known = {family_of(name) for name in timm.list_models() if name not in REGISTERED}
    assert set(SMALL_MEMBERS) <= known, 'timm has dropped families: take them out of SMALL_MEMBERS'
    assert known <= set(SMALL_MEMBERS), 'timm has new families: try them with `timm-3g backbones`, and add them'
    assert (
        TOKENS | INTERMEDIATES | WITHOUT_NORM | set(REFUSED) | set(LAST_STAGE_ALONE) <= known
        and len(known) - len(REFUSED) >= 90
        and len(FAST) >= 30
    )
    assert {family_of(member) for member in SMALL_MEMBERS.values()} == known


def test_a_network_of_this_package_is_no_family_of_timms():
    with pytest.raises(ValueError, match="timm has no family 'googlenet'"):
        next(iter(survey_backbones(['googlenet'])))


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


@pytest.mark.parametrize('family', [slow_unless(family in ('hiera', 'resnet'), family) for family in WITH_STAGES])
@pytest.mark.parametrize('first_order', [False, True])
def test_a_stage_of_a_family(family, first_order):
    """The map is that of timm's forward_intermediates, and no parameter is idle."""
    backbone = SMALL_MEMBERS[family]
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


@pytest.mark.parametrize('first_order', [False, True])
@pytest.mark.parametrize('family', LAST_STAGE_ALONE)
def test_families_without_earlier_stages(family, first_order):
    backbone = SMALL_MEMBERS[family]
    with pytest.raises(ValueError, match=f'out_index must be left out for {backbone}: {LAST_STAGE_ALONE[family]}'):
        gcp(backbone, out_index=-2, first_order=first_order)
