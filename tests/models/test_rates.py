"""The rates of head and backbone, as timm's unmodified train.py gives them to its optimizer."""

import argparse

import pytest
import timm
import torch
from common import LITE, SMALL, slow_unless
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import CosineLRScheduler

from timm_3g.models.backbones import REFUSED
from timm_3g.models.survey import SMALL_MEMBERS

NETWORKS = [
    (SMALL, {}),
    ('resnet50_3g', {}),
    (LITE, {}),
    ('gcp', {'backbone': 'convnext_atto'}),
    ('gcp', {'backbone': 'vit_tiny_patch16_224', 'out_index': -2, 'first_order': True}),
]
HEAD = ('global_pool.', 'fc.', 'classifier.')


def optimizer_of(model: torch.nn.Module, **options: float) -> torch.optim.Optimizer:
    """As train.py makes it of its arguments."""
    args = argparse.Namespace(opt='sgd', lr=1.0, weight_decay=0.05, momentum=0.9, **options)
    return create_optimizer_v2(model, **optimizer_kwargs(cfg=args))


@pytest.mark.parametrize(('name', 'options'), NETWORKS)
@pytest.mark.parametrize('times', [5, 10])
def test_the_head_has_some_times_the_rate_of_the_backbone(name, options, times):
    """--layer-decay 0.2 --layer-decay-min-scale 0.2 is a factor of 5, in every step of the schedule."""
    model = timm.create_model(name, num_classes=3, reduce_dim=16, **options)
    optimizer = optimizer_of(model, layer_decay=1 / times, layer_decay_min_scale=1 / times)
    scheduler = CosineLRScheduler(optimizer, t_initial=4)
    for epoch in range(4):
        scheduler.step(epoch)
        rate = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
        head = {rate[id(p)] for name, p in model.named_parameters() if name.startswith(HEAD)}
        backbone = {rate[id(p)] for name, p in model.named_parameters() if not name.startswith(HEAD)}
        assert len(head) == len(backbone) == 1 and head.pop() == pytest.approx(times * backbone.pop(), rel=1e-9)


# Families without groups in timm, and those that reach for their own classifier when asked for them.
ODD = ['metaformer', 'pit', 'csatv2', 'inception_resnet_v2', 'inception_v3']


@pytest.mark.parametrize('family', [*ODD, *(slow_unless(False, f) for f in SMALL_MEMBERS if f not in {*ODD, *REFUSED})])
def test_the_head_of_every_family_has_the_full_rate(family):
    model = timm.create_model('gcp', backbone=SMALL_MEMBERS[family], num_classes=3, reduce_dim=16, device='meta')
    optimizer = optimizer_of(model, layer_decay=0.2, layer_decay_min_scale=0.2)
    scale = {id(p): group['lr_scale'] for group in optimizer.param_groups for p in group['params']}
    assert {scale[id(p)] for name, p in model.named_parameters() if name.startswith(HEAD)} == {1.0}
    assert 0.2 in (of_backbone := {scale[id(p)] for name, p in model.named_parameters() if not name.startswith(HEAD)})
    assert max(of_backbone) < 1.0, 'what is frozen as the backbone must be all of it'
    steps = {group['lr_scale'] for group in optimizer_of(model, layer_decay=0.9).param_groups}
    assert len(steps) > 3, 'the backbone has groups of its own'
    optimizer_of(model, layer_decay=0.1, layer_decay_no_opt_scale=0.5)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, _ in model.named_parameters() if name.startswith(HEAD)
    }


@pytest.mark.parametrize(('name', 'options'), NETWORKS)
def test_the_head_alone(name, options):
    """--layer-decay 0.1 --layer-decay-no-opt-scale 0.5 freezes the backbone."""
    model = timm.create_model(name, num_classes=3, reduce_dim=16, **options)
    optimizer = optimizer_of(model, layer_decay=0.1, layer_decay_no_opt_scale=0.5)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(HEAD)}
    assert sum(len(group['params']) for group in optimizer.param_groups) == len(trained)
