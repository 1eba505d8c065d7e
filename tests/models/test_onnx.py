"""ONNX through timm's own onnx_export, both exporters, checked with onnxruntime at another batch size than the exported one."""

from functools import partial

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from common import SMALL, create_global_pool, shallow, slow_unless
from timm.utils.onnx import onnx_export
from torch import nn

from timm_3g.layers.create_pool import POOLS

OBSTACLES = {name: create_global_pool(name, 8).onnx_obstacle for name in POOLS}
EXPORTED = [name for name, obstacle in OBSTACLES.items() if not obstacle]
REFUSED = [*((name, {}) for name, obstacle in OBSTACLES.items() if obstacle), ('g2de', {'root': 'eigh'})]


def export(model, file, dynamo: bool, **kwargs) -> None:
    onnx_export(model, str(file), batch_size=2, use_dynamo=dynamo, **kwargs)


class EveryPooling(nn.Module):
    """The logits of `shallow(name)` for every pooling that exports, side by side: one graph, because exporting it is slow."""

    def __init__(self):
        super().__init__()
        self.networks = nn.ModuleList(shallow(name) for name in EXPORTED)

    def forward(self, x):
        return torch.cat([network(x) for network in self.networks], 1)


@pytest.mark.parametrize('dynamo', [False, slow_unless(False, True)])
@pytest.mark.parametrize(
    ('build', 'names'),
    [(partial(timm.create_model, SMALL, exportable=True, head_norm=True), [SMALL]), (EveryPooling, EXPORTED)],
    ids=['network', 'poolings'],
)
def test_runs_in_onnxruntime_with_any_batch(build, names, dynamo, tmp_path):
    """The network with every kind of layer, and every pooling behind one convolution."""
    model = build().eval()
    export(model, tmp_path / 'model.onnx', dynamo, input_size=(3, 32, 32))
    session = onnxruntime.InferenceSession(tmp_path / 'model.onnx')
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 32, 32)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        expected = model(x).detach().numpy()
        for name, ours, theirs in zip(names, *(np.split(y, len(names), 1) for y in (got, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize('dynamo', [False, slow_unless(False, True)])
@pytest.mark.parametrize(('name', 'options'), REFUSED)
def test_the_rest_refuse(name, options, dynamo, tmp_path):
    model = shallow(name, **options)
    with pytest.raises(
        Exception, match=rf"global_pool='{name}' has no ONNX export: .*3g, isqrt, g2de with root='newton_schulz'"
    ):
        export(model, tmp_path / 'model.onnx', dynamo, input_size=(3, 32, 32))
    assert not (tmp_path / 'model.onnx').exists()


def test_what_exports_goes_on_exporting():
    assert {'3g', 'isqrt', 'cov', '3g_nosqrt', 'urm_v1', 'urm_v2', 'dropcov', 'bcnn', 'g2de'} <= set(EXPORTED)
