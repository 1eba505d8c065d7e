"""Pictures of networks on any backbone, with the map of an earlier stage beside an average."""

import argparse

import pytest
import timm
import torch
from common import image_folder

from timm_3g.__main__ import main


@pytest.fixture(scope='module')
def trained_3g(tmp_path_factory):
    """A checkpoint with re-weighting of an earlier stage beside an average, and a folder of images."""
    root = tmp_path_factory.mktemp('run')
    options = {'backbone': 'convnext_zepto_rms', 'reduce_dim': 16, 'out_index': -2, 'first_order': True}
    model = timm.create_model('gcp', num_classes=3, global_pool='3g', **options)
    args = argparse.Namespace(model='gcp', gp='3g', num_classes=3, model_kwargs=options, img_size=64)
    torch.save({'state_dict': model.state_dict(), 'args': args}, root / 'last.pth.tar')
    return root / 'last.pth.tar', image_folder(root / 'images', {'val': 3}, size=(64, 64))


@pytest.mark.slow
def test_explain_and_figure1(trained_3g, tmp_path, capsys):
    file, folder = trained_3g
    arguments = ['--model', 'gcp', '--checkpoint', str(file), '--explain', str(tmp_path / 'maps'), '--img-size', '64']
    assert main(['predict', str(folder / 'val' / 'class0' / '0.png'), *arguments]) == 0
    assert [f.name for f in (tmp_path / 'maps').iterdir()] == ['0.explain.png']
    assert (
        main(['figure1', 'gcp', str(folder), '--checkpoint', str(file), '--dim', '2', '--output', str(tmp_path / 'out')]) == 0
    )
    assert {'spectra.png', 'chain.png'} <= {f.name for f in (tmp_path / 'out').iterdir()}
    assert 'left out' not in capsys.readouterr().out
