"""A new pooling in the steps of CONTRIBUTING: a class with its paper, and one line in POOLS. Nothing else is edited."""

import inspect

import pytest
import timm
import torch
from torch import Tensor

import timm_3g
from timm_3g.__main__ import main
from timm_3g.layers import Paper, SecondOrderPool2d, pool_options, pool_paper
from timm_3g.layers.create_pool import POOLS, PoolEntry

SMALL = 'resnet10_mini_3g'

TOY = Paper(
    title='Deviations of Channels',
    authors=('Ada Lovelace', 'Alan Turing'),
    venue='Proceedings of the Toy Conference (TOY)',
    year=2001,
    url='https://example.org/toy',
    where='eq. (1)',
    key='lovelace2001deviations',
)


class ToyPool2d(SecondOrderPool2d):
    """Standard deviation of each channel, times `gain`.

    Source: Lovelace, Turing, "Deviations of Channels", TOY 2001, https://example.org/toy
    """

    def __init__(self, in_features: int, reduce_dim: int | None = None, *, gain: float = 1.0, **dd) -> None:
        super().__init__(in_features, reduce_dim, **dd)
        if gain <= 0:
            raise ValueError(f'gain must be positive; got {gain}.')
        self.gain = gain
        self.out_features = self.dim

    def statistic(self, x: Tensor) -> Tensor:
        return self.gain * (x.var(2, correction=0) + 1e-12).sqrt()


@pytest.fixture(autouse=True)
def _the_line_in_the_table(monkeypatch):
    monkeypatch.setitem(POOLS, 'toy', PoolEntry(ToyPool2d, TOY, {'gain': 1.0}))


def test_by_name():
    pool, x = timm_3g.create_global_pool('toy', 12, 6, gain=2.0).eval(), torch.rand(2, 12, 5, 4)
    torch.testing.assert_close(pool(x), 2 * pool.reduce(x).flatten(2).std(2, correction=0), rtol=1e-4, atol=1e-5)
    assert 'toy' in timm_3g.list_pools() and 'gain' in pool_options() and pool.options == {'gain': 2.0}
    assert "'toy', 12 -> 6 -> 6" in repr(pool)


def test_errors_name_it():
    with pytest.raises(TypeError, match=r"'toy' has no option gian\. Its options are: gain\. Did you mean gain\?"):
        timm_3g.create_global_pool('toy', 12, gian=2.0)
    with pytest.raises(ValueError, match=r"global_pool='toy' takes features \(B, 12, H, W\)"):
        timm_3g.create_global_pool('toy', 12)(torch.rand(2, 11, 5, 4))


def test_its_paper():
    assert pool_paper('toy') is TOY and TOY.url in inspect.getdoc(ToyPool2d)


def test_a_network_trains_and_resets():
    model = timm.create_model(SMALL, global_pool='toy', gain=2.0, num_classes=3)
    assert model.global_pool.gain == 2.0 and model.head_hidden_size == model.reduce_dim
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = model.global_pool.reduce.conv.weight.detach().clone()
    torch.nn.functional.cross_entropy(model(torch.randn(4, 3, 32, 32)), torch.arange(4) % 3).backward()
    optimizer.step()
    assert not torch.equal(before, model.global_pool.reduce.conv.weight)
    model.reset_classifier(2, 'isqrt')
    model.reset_classifier(2, 'toy')
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 2)


def test_export_and_model_card(tmp_path):
    """The folder records the option, and its card cites the paper."""
    model = timm.create_model(SMALL, global_pool='toy', gain=2.0, num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / 'toy.pth')
    folder = tmp_path / 'out'
    options = ['--model', SMALL, '--model-kwargs', 'global_pool=toy', 'gain=2.0', '--license', 'mit', '--output', str(folder)]
    assert main(['export', str(tmp_path / 'toy.pth'), *options]) == 0
    loaded, x = timm.create_model(f'local-dir:{folder}', pretrained=True).eval(), torch.randn(2, 3, 32, 32)
    assert loaded.global_pool.options == {'gain': 2.0} and torch.equal(loaded(x), model(x))
    card = (folder / 'README.md').read_text()
    assert '[Deviations of Channels](https://example.org/toy), eq. (1).' in card and TOY.bibtex() in card
    assert '`toy`, 64 features (gain=2.0)' in card
