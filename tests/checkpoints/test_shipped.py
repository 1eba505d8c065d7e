"""The weights inside the package: whole, described, golden, and found by timm without network."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from common import FLOAT32, ROOT
from PIL import Image
from safetensors.torch import load_file
from skimage.data import astronaut, chelsea, coffee

import timm_3g
from timm_3g.checkpoints import SHA256, sha256_of
from timm_3g.checkpoints import shipped as _shipped
from timm_3g.publishing import export
from timm_3g.publishing.card import make_card
from timm_3g.publishing.folder import FILES
from timm_3g.publishing.run_files import RUN_FILES

MAX_BYTES = 4_000_000
ALIVE = 1e-2  # standard deviation of a map within an image. Two maps of the older weights have less than 1e-3
KEY, BEFORE = 'resnet10_mini_3g.open_cifar10', 'resnet10_mini_3g.cifar10'

KEYS = sorted(f.name for f in _shipped.FOLDER.iterdir())
every_set = pytest.mark.parametrize('key', KEYS)


def folder(key: str) -> Path:
    return _shipped.FOLDER / key


def test_folders_and_registry_name_the_same_keys():
    registered = {key: timm.get_pretrained_cfg(key).file for key in timm.list_models(include_tags=True)}
    assert {key for key, file in registered.items() if file} == set(KEYS)
    assert all(registered[key] == _shipped.shipped_file(key) for key in KEYS)
    assert set(KEYS) <= set(timm.list_pretrained())
    assert timm.list_pretrained('*cifar10*') == ['resnet10_mini_3g.cifar10', 'resnet10_mini_3g.open_cifar10']


@every_set
def test_files(key):
    names = {f.name for f in folder(key).iterdir()}
    of_run = set() if key == BEFORE else set(RUN_FILES)  # the older run was not kept
    assert names == {*FILES, *of_run}
    weights = folder(key) / 'model.safetensors'
    assert weights.stat().st_size <= MAX_BYTES
    assert sha256_of(weights) == json.loads((folder(key) / 'config.json').read_text())[SHA256]


@every_set
def test_card_is_what_its_source_gives(key):
    assert make_card(folder(key), ROOT / 'hub' / f'{key}.md') == (folder(key) / 'README.md').read_text()


def test_the_run_that_ships_is_that_of_the_recipe():
    ran = yaml.safe_load((folder(KEY) / 'args.yaml').read_text())
    recipe = yaml.safe_load((ROOT / 'train_configs' / f'{KEY}.yaml').read_text())
    assert {name: ran[name] for name in recipe} == recipe
    epochs = list(csv.DictReader((folder(KEY) / 'summary.csv').open()))
    assert [int(epoch['epoch']) for epoch in epochs] == list(range(recipe['epochs']))


@every_set
def test_the_same_file_comes_out_again(key, tmp_path):
    """What `publish` sends is byte for byte what ships."""
    again = export(folder(key) / 'model.safetensors', key, output=tmp_path / key, with_card=False).path
    for name in ('model.safetensors', 'config.json'):
        assert (again / name).read_bytes() == (folder(key) / name).read_bytes()


@every_set
def test_config_agrees_with_the_registry(key):
    config = json.loads((folder(key) / 'config.json').read_text())
    model = timm.create_model(key, device='meta')
    assert config['architecture'] == key.split('.')[0] and config['num_classes'] == model.num_classes
    assert config['model_args'] == model._model_args
    assert config['pretrained_cfg']['label_names'] == [*model.pretrained_cfg['label_names']]
    assert config['pretrained_cfg']['license'] == model.pretrained_cfg['license']
    for name in ('mean', 'std', 'input_size', 'crop_pct', 'interpolation'):
        own = model.pretrained_cfg[name]
        assert config['pretrained_cfg'][name] == ([*own] if isinstance(own, tuple) else own)


@every_set
@pytest.mark.parametrize('source', ['registry', 'local-dir'])
def test_golden_logits(key, source):
    name = key if source == 'registry' else f'local-dir:{folder(key)}'
    golden = load_file(folder(key) / 'golden.safetensors')
    with torch.no_grad():
        logits = timm.create_model(name, pretrained=True).eval()(golden['input'])
    torch.testing.assert_close(logits, golden['logits'], **FLOAT32)


def test_every_gate_of_the_default_weights_tells_positions_apart():
    model = timm.create_model('resnet10_mini_3g', pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    photographs = torch.stack([transform(Image.fromarray(photo())) for photo in (chelsea, astronaut, coffee)])
    with timm_3g.record_weights(model) as maps, torch.inference_mode():
        model(photographs)
    for block in maps:
        assert block.flatten(1).std(dim=1).min() > ALIVE


def test_the_default_tag_is_the_one_with_weights():
    model = timm.create_model('resnet10_mini_3g', pretrained=True)
    assert model.pretrained_cfg['tag'] == 'open_cifar10'


@pytest.mark.slow
def test_offline_in_a_fresh_process():
    code = (
        'import socket\n'
        'def no_network(*args, **kwargs): raise RuntimeError("network")\n'
        'socket.socket.connect = no_network\n'
        'import timm, timm_3g\n'
        'print(timm.create_model("resnet10_mini_3g", pretrained=True).num_classes)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '10', done.stderr


@every_set
@pytest.mark.parametrize('change', [{'num_classes': 3}, {'in_chans': 1}, {'num_classes': 0}, {'features_only': True}])
def test_timms_adaptations(change, key):
    model = timm.create_model(key, pretrained=True, **change).eval()
    weights = load_file(folder(key) / 'model.safetensors')
    state = model.state_dict()
    torch.testing.assert_close(state['layer4.0.conv2.weight'], weights['layer4.0.conv2.weight'])


@every_set
def test_a_flipped_byte_is_an_error(key, tmp_path):
    weights = shutil.copytree(folder(key), tmp_path / key) / 'model.safetensors'
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(
        ValueError, match=r'is not the published file: its sha256 is \w{64}, and config.json beside it says \w{64}'
    ):
        timm.create_model(key, pretrained=True, pretrained_cfg_overlay={'file': str(weights)})


def test_the_package_data_of_the_wheel_covers_the_folders():
    """`.ci/run` installs the wheel and loads from it; here, that no file is outside the patterns."""
    patterns = re.search(r'^timm_3g = \[(.*)\]$', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)[1]
    package = Path(timm_3g.__file__).parent
    covered = {f for pattern in re.findall(r'"(.*?)"', patterns) for f in package.glob(pattern)}
    assert {f for f in _shipped.FOLDER.rglob('*') if f.is_file()} <= covered
