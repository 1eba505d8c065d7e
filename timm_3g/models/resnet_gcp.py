"""The networks that the 3G paper compares with, on the backbone of `resnet_3g.py`: only `global_pool` differs.

iSQRT-COV, MPN-COV, G2DeNet, B-CNN and plain covariance; papers and formulas are with the poolings in `layers/`. The row "GAP"
of the paper's Table 2 is timm's own `resnet50`.
"""

from typing import Any

from timm.models import generate_default_cfgs

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn
from timm_3g.checkpoints.hub import on_hub

from ._register import register_second_order
from .resnet_3g import RESNET18, RESNET34, RESNET50, RESNET101, ResNet3G, _cfg, _drive_cfg, create_resnet_3g

__all__: list[str] = []


_FAST_MPN_COV = 'Their code, https://github.com/jiangtaoxie/fast-MPN-COV, may link other copies (Baidu).'
_GCP_OPTIMIZATION = 'Their code, https://github.com/ZhangLi-CS/GCP_Optimization, may link other copies (Baidu).'


def _mpncov_cfg(file_id: str) -> dict[str, Any]:
    """fast-MPN-COV's weights of January 2020, on its author's Google Drive: the upper triangle."""
    return {**_drive_cfg(file_id, _FAST_MPN_COV), 'license': 'mit'}


def _mpncov_2018_cfg(file: str) -> dict[str, Any]:
    """Its older weights, on his server: the lower triangle (`_known_files.py`). Eight hex digits of the sha256 in the name."""
    return _cfg(origin_url=f'http://jtxie.com/models/{file}', license='mit', notes=(_FAST_MPN_COV,))


default_cfgs = generate_default_cfgs(
    on_hub(
        {
            'resnet18_isqrt.gcpopt_in1k': _drive_cfg('1D4ZmTHJ5dmTTpdL2IA3UJUIm54cF45na', _GCP_OPTIMIZATION),
            'resnet34_isqrt.gcpopt_in1k': _drive_cfg('15k8roxdmpq8iwasi6Piysh8HK4vlsG_m', _GCP_OPTIMIZATION),
            'resnet50_isqrt.gcpopt_in1k': _drive_cfg('1TmnusKSArjKTTb28cnw2OzrUVc_DAi98', _GCP_OPTIMIZATION),
            'resnet50_isqrt.mpncov_in1k': _mpncov_cfg('19TWen7p9UDyM0Ueu9Gb22NtouR109C6j'),
            'resnet50_isqrt.mpncov_2018_in1k': _mpncov_2018_cfg('mpncovresnet50-15991845.pth'),
            'resnet101_isqrt.gcpopt_in1k': _drive_cfg('1y8oI2IodJuG7R_gIdrYoXSTPafmszwMh', _GCP_OPTIMIZATION),
            'resnet101_isqrt.mpncov_in1k': _mpncov_cfg('1riur7v3rZ7vnrdj2UZ7EBaTKEGSccYwg'),
            'resnet101_isqrt.mpncov_2018_in1k': _mpncov_2018_cfg('mpncovresnet101-ade9737a.pth'),
            'resnet50_mpn.untrained': _cfg(),
            'resnet101_mpn.untrained': _cfg(),
            'resnet50_g2de.untrained': _cfg(),
            'resnet101_g2de.untrained': _cfg(),
            'resnet50_bcnn.untrained': _cfg(),
            'resnet101_bcnn.untrained': _cfg(),
            'resnet50_cov.untrained': _cfg(),
            'resnet101_cov.untrained': _cfg(),
        }
    )
)


@register_second_order(global_pool='isqrt')
def resnet18_isqrt(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """iSQRT-COV (fast MPN-COV) on ResNet-18."""
    return create_resnet_3g('resnet18_isqrt', pretrained, **{**RESNET18, **kwargs})


@register_second_order(global_pool='isqrt')
def resnet34_isqrt(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """iSQRT-COV (fast MPN-COV) on ResNet-34."""
    return create_resnet_3g('resnet34_isqrt', pretrained, **{**RESNET34, **kwargs})


@register_second_order(global_pool='isqrt')
def resnet50_isqrt(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """iSQRT-COV (fast MPN-COV) on ResNet-50."""
    return create_resnet_3g('resnet50_isqrt', pretrained, **{**RESNET50, **kwargs})


@register_second_order(global_pool='isqrt')
def resnet101_isqrt(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """iSQRT-COV (fast MPN-COV) on ResNet-101."""
    return create_resnet_3g('resnet101_isqrt', pretrained, **{**RESNET101, **kwargs})


@register_second_order(global_pool='mpn')
def resnet50_mpn(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """MPN-COV (exact root) on ResNet-50."""
    return create_resnet_3g('resnet50_mpn', pretrained, **{**RESNET50, **kwargs})


@register_second_order(global_pool='mpn')
def resnet101_mpn(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """MPN-COV (exact root) on ResNet-101."""
    return create_resnet_3g('resnet101_mpn', pretrained, **{**RESNET101, **kwargs})


@register_second_order(global_pool='g2de')
def resnet50_g2de(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """G2DeNet (Gaussian embedding) on ResNet-50."""
    return create_resnet_3g('resnet50_g2de', pretrained, **{**RESNET50, **kwargs})


@register_second_order(global_pool='g2de')
def resnet101_g2de(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """G2DeNet (Gaussian embedding) on ResNet-101."""
    return create_resnet_3g('resnet101_g2de', pretrained, **{**RESNET101, **kwargs})


@register_second_order(global_pool='bcnn')
def resnet50_bcnn(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """B-CNN with BatchNorm on ResNet-50."""
    return create_resnet_3g('resnet50_bcnn', pretrained, **{**RESNET50, **kwargs})


@register_second_order(global_pool='bcnn')
def resnet101_bcnn(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """B-CNN with BatchNorm on ResNet-101."""
    return create_resnet_3g('resnet101_bcnn', pretrained, **{**RESNET101, **kwargs})


@register_second_order(global_pool='cov')
def resnet50_cov(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """Plain covariance on ResNet-50."""
    return create_resnet_3g('resnet50_cov', pretrained, **{**RESNET50, **kwargs})


@register_second_order(global_pool='cov')
def resnet101_cov(pretrained: bool = False, **kwargs: Any) -> ResNet3G:
    """Plain covariance on ResNet-101."""
    return create_resnet_3g('resnet101_cov', pretrained, **{**RESNET101, **kwargs})
