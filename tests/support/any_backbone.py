"""Shared by the tests of any backbone: one backbone of each kind, `gcp` on it, and images for it."""

import timm
import torch
from common import slow_unless

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
