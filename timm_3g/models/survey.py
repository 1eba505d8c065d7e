"""One network of each family of timm with our head: does it train, and what map does it give?"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torch
from tqdm import tqdm

from timm_3g.checkpoints import is_ours
from timm_3g.layers.create_pool import nearest

from .backbones import REFUSED, family_of
from .gcp import build_gcp

# A small network of each family, to try it.
SMALL_MEMBERS: dict[str, str] = {
    'beit': 'beit_base_patch16_224',
    'byoanet': 'halonet_h1',
    'byobnet': 'mobileone_s1',
    'cait': 'cait_xxs24_224',
    'coat': 'coat_tiny',
    'convit': 'convit_tiny',
    'convmixer': 'convmixer_768_32',
    'convnext': 'convnext_zepto_rms',
    'cpubone': 'cpubone_nano',
    'crossvit': 'crossvit_tiny_240',
    'csatv2': 'csatv2',
    'cspnet': 'cs3darknet_focus_s',
    'cspnext': 'cspnext_tiny',
    'davit': 'davit_tiny',
    'deepseek_vit': 'deepseek_vit_412m',
    'deit': 'deit_tiny_patch16_224',
    'densenet': 'densenet121',
    'dla': 'dla46x_c',
    'dpn': 'dpn48b',
    'edgenext': 'edgenext_xx_small',
    'efficientformer': 'efficientformer_l1',
    'efficientformer_v2': 'efficientformerv2_s0',
    'efficientnet': 'tinynet_e',
    'efficientvim': 'efficientvim_m1',
    'efficientvit_mit': 'efficientvit_b0',
    'efficientvit_msra': 'efficientvit_m0',
    'eva': 'eva02_tiny_patch14_224',
    'fasternet': 'fasternet_t0',
    'fastvit': 'fastvit_t8',
    'focalnet': 'focalnet_tiny_srf',
    'gcvit': 'gcvit_xxtiny',
    'gemma4_vit': 'gemma4_vit_167m',
    'ghostnet': 'ghostnet_050',
    'hardcorenas': 'hardcorenas_b',
    'hgnet': 'hgnetv2_b0',
    'hiera': 'hiera_tiny_224',
    'hieradet_sam2': 'hieradet_small',
    'hrnet': 'hrnet_w18_small',
    'iformer': 'iformer_t',
    'inception_next': 'inception_next_atto',
    'inception_resnet_v2': 'inception_resnet_v2',
    'inception_v3': 'inception_v3',
    'inception_v4': 'inception_v4',
    'lcnetv2': 'lcnetv2_small',
    'levit': 'levit_128s',
    'lowformer': 'lowformer_b0',
    'mambaout': 'mambaout_femto',
    'maxxvit': 'maxvit_pico_rw_256',
    'metaformer': 'poolformerv2_s12',
    'mlp_mixer': 'gmlp_ti16_224',
    'mobilenetv3': 'mobilenetv3_small_050',
    'mobilenetv5': 'mobilenetv5_base',
    'mobilevit': 'mobilevit_xxs',
    'mvitv2': 'mvitv2_tiny',
    'naflexvit': 'naflexvit_base_patch16_parfac_gap',
    'nasnet': 'nasnetalarge',
    'nest': 'nest_tiny',
    'nextvit': 'nextvit_small',
    'nfnet': 'nf_regnet_b0',
    'pit': 'pit_ti_224',
    'pnasnet': 'pnasnet5large',
    'pvt_v2': 'pvt_v2_b0',
    'qwen3_vit': 'qwen3_vit_88m',
    'rdnet': 'rdnet_tiny',
    'regnet': 'regnetx_002',
    'repghost': 'repghostnet_050',
    'repvit': 'repvit_m1',
    'res2net': 'res2next50',
    'resnest': 'resnest14d',
    'resnet': 'resnet10t',
    'resnetv2': 'resnetv2_18',
    'rexnet': 'rexnet_100',
    'selecsls': 'selecsls42',
    'senet': 'legacy_seresnet18',
    'sequencer': 'sequencer2d_s',
    'shvit': 'shvit_s1',
    'sknet': 'skresnet18',
    'starnet': 'starnet_s050',
    'swiftformer': 'swiftformer_xs',
    'swin_transformer': 'swin_tiny_patch4_window7_224',
    'swin_transformer_v2': 'swinv2_tiny_window8_256',
    'swin_transformer_v2_cr': 'swinv2_cr_tiny_224',
    'tiny_vit': 'tiny_vit_5m_224',
    'tnt': 'tnt_s_legacy_patch16_224',
    'tresnet': 'tresnet_m',
    'twins': 'twins_svt_small',
    'vgg': 'vgg11',
    'visformer': 'visformer_tiny',
    'vision_transformer': 'vit_tiny_patch16_224',
    'vision_transformer_hybrid': 'vit_tiny_r_s16_p8_224',
    'vision_transformer_relpos': 'vit_srelpos_small_patch16_224',
    'vision_transformer_sam': 'samvit_base_patch16_224',
    'vitamin': 'vitamin_small_224',
    'volo': 'volo_d1_224',
    'vovnet': 'ese_vovnet19b_slim_dw',
    'xception': 'legacy_xception',
    'xception_aligned': 'xception41p',
    'xcit': 'xcit_nano_12_p8_224',
}
# Their image, where the usual one takes minutes.
SMALL_IMAGES = {'deepseek_vit': 252, 'gemma4_vit': 256, 'qwen3_vit': 256, 'nasnet': 224, 'pnasnet': 224}

POOLS = ('3g', 'isqrt')
COLUMNS = ('family', 'network that was tried', 'image', 'map', 'parameters', 'works')


@dataclass(frozen=True)
class SurveyedFamily:
    """What was found about a family of networks in timm.

    Attributes:
        family: timm's name for the module.
        member: the network that was tried.
        input_size: (channels, height, width) of the image.
        map_size: (channels, height, width) of the map that is pooled. () where the family is refused.
        parameters: of the backbone, without its old head.
        problem: why it is refused, or what went wrong. '' if it works.
    """

    family: str
    member: str
    input_size: tuple[int, ...] = ()
    map_size: tuple[int, ...] = ()
    parameters: int = 0
    problem: str = ''

    @property
    def is_refused(self) -> bool:
        """Whether `create_model('gcp', ...)` refuses the family."""
        return self.family in REFUSED


def survey_backbones(
    families: Sequence[str] | None = None, image_size: int | None = None, pools: Sequence[str] = POOLS
) -> Iterator[SurveyedFamily]:
    """Build a small network of each family with each pooling, and take a step forward and backward in both modes.

    Args:
        families: timm's names of modules. None for all that timm has.
        image_size: side of the images for networks that take any. None for that of their weights.
        pools: the poolings, '3g' and 'isqrt' by default.

    Yields:
        One result per family, in order. `problem` says if logits or gradients are not finite, or a parameter has no gradient.

    Raises:
        ValueError: timm has no such family.

    >>> [found.map_size for found in survey_backbones(['resnet'], image_size=224)]
    [(512, 7, 7)]
    """
    known = sorted({family_of(name) for name in timm.list_models() if _is_timms(name)})
    unknown = sorted(set(families or ()) - set(known))
    if unknown:
        raise ValueError(f'timm has no family {unknown[0]!r}.{nearest(unknown[0], known)} timm.list_modules() has them all.')
    for family in tqdm(list(families or known), desc='families', disable=None):
        member = SMALL_MEMBERS.get(family) or timm.list_models(module=family)[0]
        yield (
            SurveyedFamily(family, member, problem=REFUSED[family])
            if family in REFUSED
            else _tried(family, member, image_size, pools)
        )


def _is_timms(name: str) -> bool:
    """Whether a network has no head of ours and stands in no file of this package. Plugins of others count as timm's."""
    return not is_ours(name) and not timm.models.model_entrypoint(name).__module__.startswith('timm_3g.')


def _tried(family: str, member: str, image_size: int | None, pools: Sequence[str]) -> SurveyedFamily:
    """Build, and take a step forward and backward in training mode and in eval mode."""
    cfg: Any = timm.get_pretrained_cfg(member)
    channels, height, width = cfg.input_size
    side = SMALL_IMAGES.get(family) or (None if cfg.fixed_input_size else image_size)
    size = (channels, side or height, side or width)
    images = torch.randn(2, *size)
    for pool in pools:
        net: Any = build_gcp(member, num_classes=10, global_pool=pool, reduce_dim=16)
        with torch.no_grad():  # what starts at zero, such as the last BatchNorm of a residual unit, hides what is before it
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.01)
        for training in (True, False):  # in training a residual branch may be dropped
            features = net.train(training).forward_features(images)
            net.forward_head(features).square().sum().backward()
        shape = tuple(features.shape[1:])
        lacking = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
        problem = ''
        if shape[0] != net.num_features:
            problem = f'the map has {shape[0]} channels instead of {net.num_features}'
        elif lacking:
            problem = f'{len(lacking)} parameters have no gradient: {", ".join(lacking[:3])}'
        elif not all(torch.isfinite(p.grad).all() for p in net.parameters()):
            problem = 'gradients are not finite'
        if problem:
            break
    head = ('global_pool.', 'classifier.')
    number = sum(p.numel() for name, p in net.named_parameters() if not name.startswith(head))
    return SurveyedFamily(family, member, size, shape, number, problem)


def survey_table(found: Iterable[SurveyedFamily]) -> list[list[str]]:
    """The rows of a table: family, network that was tried, image, map, parameters, whether it works.

    >>> survey_table([SurveyedFamily('resnet', 'resnet18', (3, 224, 224), (512, 7, 7), 11_176_512)])
    [['resnet', 'resnet18', '224 x 224', '512 x 7 x 7', '11.2 M', 'yes']]
    """
    return [
        [
            one.family,
            one.member,
            ' x '.join(map(str, one.input_size[1:])),
            ' x '.join(map(str, one.map_size)),
            f'{one.parameters / 1e6:.1f} M' if one.parameters else '',
            f'no: {one.problem}' if one.problem else 'yes',
        ]
        for one in found
    ]


def backbone_page(found: Iterable[SurveyedFamily]) -> str:
    """The page `docs/guides/backbones-table.md`, in Markdown: how many families work, and the table.

    >>> print(backbone_page([SurveyedFamily('resnet', 'resnet18', (3, 224, 224), (512, 7, 7), 11_176_512)]).splitlines()[-1])
    | resnet | `resnet18` | 224 x 224 | 512 x 7 x 7 | 11.2 M | yes |
    """
    found = list(found)
    works = sum(not one.problem for one in found)
    rows = [[family, f'`{member}`', *rest] for family, member, *rest in survey_table(found)]
    lines = ['| ' + ' | '.join(row) + ' |' for row in [list(COLUMNS), ['---'] * len(COLUMNS), *rows]]
    return '\n'.join(
        [
            '# Every family of timm',
            '',
            f'{works} of {len(found)} families of timm {timm.__version__} work with `3g` and `isqrt`: a small network of each',
            'took two steps forward and backward, and every parameter got a gradient. `timm-3g backbones --output FILE` writes',
            'this page anew. The number of parameters is without the head. [How to use them](backbones.md).',
            '',
            *lines,
            '',
        ]
    )
