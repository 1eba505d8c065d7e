"""A folder that commit 6eff44d exported loads, and gives the logits that it gave then.

The folder lacks model.safetensors: its header is kept as text, and its tensors are those of a formula.
"""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from formula_weights import formula_weights
from safetensors.torch import load_file

from timm_3g.__main__ import main
from timm_3g.checkpoints import open_weights, sha256_of

KEPT = Path(__file__).parent / 'exported_by_6eff44d'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The whole folder, with model.safetensors as it was written, byte for byte."""
    folder = Path(shutil.copytree(KEPT, tmp_path_factory.mktemp('old') / 'resnet10_mini_3g.toy'))
    text = (folder / 'header.json').read_bytes().rstrip()
    (folder / 'header.json').unlink()
    text += b' ' * (-len(text) % 8)
    entries = {name: entry for name, entry in json.loads(text).items() if name != '__metadata__'}
    weights = formula_weights({name: tuple(entry['shape']) for name, entry in entries.items()})
    with open(folder / 'model.safetensors', 'wb') as stream:
        stream.write(len(text).to_bytes(8, 'little') + text)
        for name in sorted(entries, key=lambda name: entries[name]['data_offsets']):
            stream.write(weights[name].numpy().tobytes())
    return folder


def test_it_is_the_file_of_then(folder):
    stated = json.loads((folder / 'config.json').read_text())['sha256']
    assert sha256_of(folder / 'model.safetensors') == stated
    weights = open_weights(folder / 'model.safetensors')
    assert weights.sha256 == stated and weights.record.key == 'resnet10_mini_3g.toy'


def test_it_loads_and_gives_the_logits_of_then(folder):
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    golden = load_file(folder / 'golden.safetensors')
    with torch.no_grad():
        torch.testing.assert_close(model(golden['input']), golden['logits'], rtol=1e-4, atol=1e-4)
    assert list(model.pretrained_cfg['label_names']) == ['cat', 'dog']
    assert model.global_pool.options['num_iters'] == 3 and model.reduce_dim == 8


def test_it_can_be_published(folder, capsys):
    assert main(['publish', str(folder), '--repo', 'acme/resnet10_mini_3g.toy', '--dry-run']) == 0
    assert 'Nothing was pushed.' in capsys.readouterr().out
