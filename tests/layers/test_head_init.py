"""Where re-weighting starts: open by default, as if it were not there, or as the authors start it."""

import argparse
import json

import numpy as np
import pytest
import timm
import torch
from common import LITE, SMALL

import timm_3g
from timm_3g.layers import Reweight2d, open_gates
from timm_3g.publishing import export

REWEIGHTED = ('3g', '3g_nosqrt', 'urm_v1', 'urm_v2')
SEEDS = range(5)
# Vectors of float32, through a network, covariance and root, in units of their length.
ROUNDING = {'rtol': 1e-3, 'atol': 1e-5}


def maps_and_vector(model: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with timm_3g.record_weights(model) as maps, torch.no_grad():
        vector = model.forward_head(model.forward_features(x), pre_logits=True)
    return torch.stack(maps) if maps else torch.empty(0), vector


@pytest.mark.parametrize(('name', 'reduce_dim'), [(SMALL, 64), (SMALL, 0), ('resnet50_3g', 256)])
def test_a_new_network_is_the_one_without_reweighting(name, reduce_dim):
    """Each map is one number. Behind a reduction the vector is that of T = 0, else 0.953^3 times that."""
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = timm.create_model(name, num_classes=2, reduce_dim=reduce_dim).eval()
        bare = timm.create_model(name, num_classes=2, reduce_dim=reduce_dim, num_reweights=0).eval()
        bare.load_state_dict({k: v for k, v in model.state_dict().items() if 'reweight' not in k})
        if reduce_dim:
            bare.global_pool.reduce.bn.weight.data.fill_(1.0)
        x = torch.randn(2, 3, 64, 64)
        maps, vector = maps_and_vector(model, x)
        expected = maps_and_vector(bare, x)[1]
        w, length = (1 / (1 + np.exp(-1.0)), 1.0) if reduce_dim else (1 / (1 + np.exp(-3.0)), 0.8644)
        assert maps.shape[:2] == (3, 2) and bool(((maps - w).abs() < 1e-6).all())
        torch.testing.assert_close(vector / expected.norm(), length * expected / expected.norm(), **ROUNDING)


@pytest.mark.parametrize('reduce_dim', [8, 0])
@pytest.mark.parametrize('name', REWEIGHTED)
def test_gates_leave_their_start_in_the_first_step(name, reduce_dim):
    pool = timm_3g.create_global_pool(name, 16, reduce_dim)
    x, cotangent = torch.rand(4, 16, 6, 6), torch.randn(4, pool.out_features)
    before = maps_of(pool, x)
    optimizer = torch.optim.SGD(pool.parameters(), lr=0.1)
    (pool(x) * cotangent).sum().backward()
    optimizer.step()
    assert len(before) == pool.num_reweights and all(float(w.std((2, 3)).max()) < 1e-6 for w in before)
    assert all(float(w.std((2, 3)).min()) > 1e-6 for w in maps_of(pool, x)), 'a map is still constant'


def maps_of(pool: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    with timm_3g.record_weights(pool) as maps, torch.no_grad():
        pool(x)
    return maps


@pytest.mark.parametrize('name', REWEIGHTED)
@pytest.mark.parametrize('reduce_dim', [8, 0])
def test_the_authors_start_differs_in_gates_and_scale_alone(name, reduce_dim):
    """The same random numbers: a seed gives the network that it gave before there was a choice."""
    states = []
    for head_init in ('open', 'orig'):
        torch.manual_seed(0)
        states.append(timm_3g.create_global_pool(name, 16, reduce_dim, head_init=head_init).state_dict())
    opened, orig = states
    differing = {
        key.split('.', 2)[-1] if key.startswith('reweight') else key for key in orig if not torch.equal(opened[key], orig[key])
    }
    gates = {'squeeze.conv_g.weight', 'squeeze.bn_f.weight', 'squeeze.bn_f.bias'}
    assert differing == gates | ({'conv_h.weight'} if name.startswith('3g') else set()) | (
        {'reduce.bn.weight'} if reduce_dim else set()
    )
    assert 'reduce.bn.weight' not in orig or bool((orig['reduce.bn.weight'] == 1).all())


def test_what_the_choice_is_for():
    """The authors' start shortens the vector, so that a classifier learns slowly. The open one does not."""
    lengths = {'orig': [], 'open': []}
    for seed in SEEDS:
        x = torch.randn(8, 3, 32, 32)
        for head_init, found in lengths.items():
            norms = []
            for options in ({}, {'num_reweights': 0}):
                torch.manual_seed(seed)
                model = timm.create_model(SMALL, head_init=head_init, **options)
                norms.append(float(maps_and_vector(model, x)[1].norm()))
            found.append(norms[0] / norms[1])
    assert max(lengths['orig']) < 0.8 and sorted(lengths['orig'])[2] < 0.5, lengths['orig']
    assert lengths['open'] == pytest.approx([1.0] * 5, rel=1e-3)


@pytest.mark.parametrize('name', [SMALL, LITE])
def test_networks_start_open_and_stay_so(name):
    model = timm.create_model(name, num_classes=2, device='meta')
    assert model.head_init == 'open'
    model = timm.create_model(name, num_classes=2, reduce_dim=16)
    if name == SMALL:
        model.init_weights()  # kaiming for every convolution, and the gates open again
    assert all(not block.squeeze.bn_f.weight.any() for block in model.global_pool.reweight)
    model.reset_classifier(3, 'urm_v1')
    assert all(not block.squeeze.bn_f.weight.any() for block in model.global_pool.reweight)
    model = timm.create_model(name, num_classes=2, reduce_dim=16, head_init='orig')
    if name == SMALL:
        model.init_weights()
    assert all(block.squeeze.bn_f.weight.all() for block in model.global_pool.reweight)
    model.reset_classifier(3, 'urm_v1')
    assert all(block.squeeze.bn_f.weight.all() for block in model.global_pool.reweight)


def test_opening_twice_is_opening_once():
    pool = timm_3g.create_global_pool('3g', 16, 8, head_init='orig')
    open_gates(pool)
    open_gates(pool)
    assert pool.reduce.bn.weight.tolist() == pytest.approx([(1 + np.exp(-1.0)) ** 3] * 8)


def test_another_pooling_is_left_alone():
    pool = timm_3g.create_global_pool('isqrt', 16, 8)
    assert bool((pool.reduce.bn.weight == 1).all())


@pytest.mark.parametrize('create', [timm_3g.create_global_pool, lambda *_, **kw: timm.create_model(SMALL, **kw)])
@pytest.mark.parametrize('pool', ['3g', 'isqrt', 'avg'])
def test_an_unknown_start_is_refused(create, pool):
    options = {'global_pool': pool} if create is not timm_3g.create_global_pool else {}
    with pytest.raises(ValueError, match="head_init must be one of 'open', 'orig'; got 'authors'"):
        create(pool, 16, head_init='authors', **options)


def test_the_start_is_recorded(tmp_path):
    """As it was given: by train.py, in config.json, and when that is loaded."""
    model = timm.create_model(SMALL, num_classes=3)
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={'head_init': 'orig'})
    file = tmp_path / 'last.pth.tar'
    torch.save({'epoch': 0, 'arch': SMALL, 'state_dict': model.state_dict(), 'args': args}, file)
    folder = tmp_path / 'folder'
    export(file, SMALL, output=folder, license='apache-2.0')
    assert json.loads((folder / 'config.json').read_text())['model_args']['head_init'] == 'orig'
    loaded = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert loaded.head_init == 'orig'
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())
    config = json.loads((folder / 'config.json').read_text())
    config['model_args']['head_init'] = ['orig']
    (folder / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r'head_init must be a finite str|contradicts the weights'):
        timm.create_model(f'local-dir:{folder}', pretrained=True)


def test_blocks_alone_start_as_the_authors_do():
    assert Reweight2d(8).squeeze.conv_g.weight.all()
