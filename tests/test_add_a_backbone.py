"""A new backbone and a new checkpoint format, in exactly the steps of CONTRIBUTING.md: one file and one import, one entry."""

import argparse
import importlib.util
import re
import sys

import pytest
import timm
import torch

from timm_3g.__main__ import main
from timm_3g.checkpoints import is_ours, open_weights
from timm_3g.checkpoints.formats import FORMATS, CheckpointFormat
from timm_3g.checkpoints.function import DEFAULTS
from timm_3g.models.loading import create_loaded

# Step 1: timm_3g/models/toynet_3g.py. `ToyNet` stands for a network that timm has.
FILE = '''
"""ToyNet with a pooling of second order in place of the average."""

from typing import Any

import torch
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn
from timm_3g.checkpoints.hub import on_hub
from timm_3g.layers import classify

from ._build import build_with_filter
from ._head import SecondOrderHead, pop_pool_options
from ._register import register_second_order


class ToyNet(nn.Module):
    """Three convolutions with timm's conventions."""

    def __init__(self, num_classes=1000, in_chans=3, global_pool='avg', drop_rate=0.0, width=8, device=None, dtype=None):
        super().__init__()
        dd = {'device': device, 'dtype': dtype}
        self.num_features, self.drop_rate = 4 * width, drop_rate
        self.stem = nn.Conv2d(in_chans, width, 3, 2, 1, **dd)
        self.mid = nn.Conv2d(width, 2 * width, 3, 2, 1, **dd)
        self.last = nn.Conv2d(2 * width, 4 * width, 3, 1, 1, **dd)
        self.norm = nn.BatchNorm2d(4 * width, **dd)
        self.feature_info = [{'num_chs': 4 * width, 'reduction': 4, 'module': 'norm'}]

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.last(self.mid(self.stem(x).relu()).relu())).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


class ToyNet3G(SecondOrderHead, ToyNet):
    """ToyNet with a pooling of `timm_3g.list_pools()`."""

    classifier_name = 'fc'

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = '3g', reduce_dim: int = 256,
        bn_momentum: float | None = None, bn_eps: float | None = None, device: Any = None, dtype: Any = None, **kwargs: Any,
    ) -> None:
        pool_options = pop_pool_options(kwargs)
        super().__init__(num_classes=0, in_chans=in_chans, global_pool='', device=device, dtype=dtype, **kwargs)
        self._set_head(num_classes, global_pool, pool_options, reduce_dim, bn_momentum, bn_eps, device=device, dtype=dtype)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def classify(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.fc(x)
        return classify(self.fc, x)


default_cfgs = generate_default_cfgs(on_hub({
    'toynet_3g.untrained': {
        'num_classes': 1000, 'input_size': (3, 32, 32), 'pool_size': (8, 8), 'crop_pct': 1.0, 'interpolation': 'bilinear',
        'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5), 'first_conv': 'stem', 'classifier': 'fc', 'license': 'apache-2.0',
    },
}))


@register_second_order(reduce_dim=8)
def toynet_3g(pretrained: bool = False, **kwargs: Any) -> ToyNet3G:
    """3G pooling on ToyNet."""
    return build_with_filter(ToyNet3G, 'toynet_3g', pretrained, **{'width': 4, **kwargs})
'''


@pytest.fixture(autouse=True, scope='module')
def _the_file_and_its_import(tmp_path_factory):
    """Step 2 is the import of the file in timm_3g/models/__init__.py."""
    file = tmp_path_factory.mktemp('models') / 'toynet_3g.py'
    file.write_text(FILE)
    spec = importlib.util.spec_from_file_location('timm_3g.models.toynet_3g', file)
    sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[spec.name])
    yield
    DEFAULTS.pop('toynet_3g')
    sys.modules.pop(spec.name)


def images(batch=2):
    return torch.randn(batch, 3, 32, 32)


def test_it_is_a_model_of_timm_and_of_ours():
    model = timm.create_model('toynet_3g', num_classes=5)
    assert is_ours('toynet_3g') and 'toynet_3g' in timm.list_models()
    assert model.global_pool.pool_type == '3g' and model.reduce_dim == 8
    assert model(images()).shape == (2, 5)
    model(images()).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.reset_classifier(7, 'isqrt')
    assert model(images()).shape == (2, 7) and model.global_pool.pool_type == 'isqrt'
    with pytest.raises(TypeError, match=r'num_itres.* Did you mean num_iters\?'):
        timm.create_model('toynet_3g', num_itres=3)


def test_its_checkpoints_export_load_and_are_told_apart(tmp_path, capsys):
    model = timm.create_model('toynet_3g', num_classes=5, num_iters=3).eval()
    args = argparse.Namespace(model='toynet_3g', gp=None, model_kwargs={'num_iters': 3}, num_classes=5)
    torch.save({'state_dict': model.state_dict(), 'args': args, 'epoch': 1}, tmp_path / 'last.pth.tar')
    assert main(['export', str(tmp_path / 'last.pth.tar'), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    x = images()
    loaded = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(ValueError, match='num_iters: weights 3, model 5'):
        timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True, num_iters=5)
    capsys.readouterr()


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    """Their names: squeeze.* for the reduction, out.* for the classifier, body.0 to body.3 for the rest, behind 'model.'."""
    parts = dict(enumerate(('stem', 'mid', 'last', 'norm')))

    def rename(key):
        match = re.fullmatch(r'body\.(\d)\.(\w+)', key)
        if match:
            return f'{parts[int(match[1])]}.{match[2]}'
        match = re.fullmatch(r'squeeze\.(conv|bn)\.(\w+)', key)
        return f'global_pool.reduce.{match[1]}.{match[2]}' if match else key.replace('out.', 'fc.')

    monkeypatch.setitem(
        FORMATS,
        'ToyNet authors',
        CheckpointFormat(re.compile(r'squeeze\.'), {'global_pool': 'isqrt', 'triangle': 'lower', 'eps': 0.0}, rename=rename),
    )
    model = timm.create_model('toynet_3g', num_classes=5, global_pool='isqrt', triangle='lower', eps=0.0).eval()
    theirs = {}
    for key, value in model.state_dict().items():
        for number, name in parts.items():
            key = re.sub(rf'^{name}\.', f'body.{number}.', key)
        key = re.sub('^fc', 'out', key.replace('global_pool.reduce.', 'squeeze.'))
        theirs[f'model.{key}'] = value
    torch.save({'state_dict': {**theirs, 'criterion.scale': torch.ones(1)}}, tmp_path / 'theirs.pth')
    assert any('squeeze.conv.weight' in key for key in theirs)
    assert 'model.squeeze.conv.weight' in open_weights(tmp_path / 'theirs.pth').tensors
    options = {'global_pool': 'isqrt', 'triangle': 'lower', 'eps': 0.0}
    loaded = create_loaded('toynet_3g', tmp_path / 'theirs.pth', options=options).eval()
    x = images()
    assert torch.equal(loaded(x), model(x))
    with pytest.raises(ValueError, match=r"triangle: weights 'lower', model 'upper'"):
        create_loaded('toynet_3g', tmp_path / 'theirs.pth', options={**options, 'triangle': 'upper'})
