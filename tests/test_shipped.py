"""The weights inside the package: whole, described, golden, and found by timm without network."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from conftest import FLOAT32
from safetensors.torch import load_file

import timm_3g
from timm_3g.models import _shipped

ROOT = Path(__file__).parent.parent
MAX_BYTES = 4_000_000

every_set = pytest.mark.parametrize('key', _shipped.SHA256)


def folder(key: str) -> Path:
    return _shipped.FOLDER / key


def test_folders_table_and_registry_name_the_same_keys():
    assert {f.name for f in _shipped.FOLDER.iterdir()} == set(_shipped.SHA256)
    cfgs = {key: timm.get_pretrained_cfg(key) for key in _shipped.SHA256}
    assert all(cfg.file == _shipped.shipped_file(key) for key, cfg in cfgs.items())
    assert set(_shipped.SHA256) <= set(timm.list_pretrained())
    assert 'resnet10_mini_3g.cifar10' in timm.list_pretrained('*cifar10*')


@every_set
def test_files(key):
    names = {f.name for f in folder(key).iterdir()}
    assert names == {'model.safetensors', 'config.json', 'golden.safetensors', 'README.md'}
    weights = folder(key) / 'model.safetensors'
    assert weights.stat().st_size <= MAX_BYTES
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == _shipped.SHA256[key]


@every_set
def test_card_states_licence_data_hash_and_recipe(key):
    card = (folder(key) / 'README.md').read_text()
    assert re.search(r'^license: \S+', card, re.MULTILINE) and _shipped.SHA256[key] in card
    assert f'train_configs/{key}.yaml' in card and (ROOT / 'train_configs' / f'{key}.yaml').is_file()


@every_set
def test_config_agrees_with_the_registry(key):
    config = json.loads((folder(key) / 'config.json').read_text())
    model = timm.create_model(key, device='meta')
    assert config['architecture'] == key.split('.')[0] and config['num_classes'] == model.num_classes
    assert {name: config['model_args'][name] for name in model._model_args} == model._model_args
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


def test_the_default_tag_is_the_one_with_weights():
    model = timm.create_model('resnet10_mini_3g', pretrained=True)
    assert model.pretrained_cfg['tag'] == 'cifar10'


def test_offline_in_a_fresh_process():
    code = (
        'import socket\n'
        'def no_network(*args, **kwargs): raise RuntimeError("network")\n'
        'socket.socket.connect = no_network\n'
        'import timm, timm_3g\n'
        'print(timm.create_model("resnet10_mini_3g.cifar10", pretrained=True).num_classes)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '10', done.stderr


@pytest.mark.parametrize('change', [{'num_classes': 3}, {'in_chans': 1}, {'num_classes': 0}, {'features_only': True}])
def test_timms_adaptations(change):
    key = 'resnet10_mini_3g.cifar10'
    model = timm.create_model(key, pretrained=True, **change).eval()
    weights = load_file(folder(key) / 'model.safetensors')
    state = model.state_dict()
    torch.testing.assert_close(state['layer4.0.conv2.weight'], weights['layer4.0.conv2.weight'])


def test_a_flipped_byte_is_an_error(tmp_path, monkeypatch):
    key = 'resnet10_mini_3g.cifar10'
    (tmp_path / key).mkdir()
    damaged = bytearray((folder(key) / 'model.safetensors').read_bytes())
    damaged[-1] ^= 1
    (tmp_path / key / 'model.safetensors').write_bytes(damaged)
    monkeypatch.setattr(_shipped, 'FOLDER', tmp_path)
    with pytest.raises(ValueError, match='is damaged: its sha256 is not the published'):
        timm.create_model(key, pretrained=True, pretrained_cfg_overlay={'file': _shipped.shipped_file(key)})


def test_the_package_data_of_the_wheel_covers_the_folders():
    """`.ci/run` installs the wheel and loads from it; here, that no file is outside the patterns."""
    patterns = re.search(r'^timm_3g = \[(.*)\]$', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)[1]
    package = Path(timm_3g.__file__).parent
    covered = {f for pattern in re.findall(r'"(.*?)"', patterns) for f in package.glob(pattern)}
    assert {f for f in _shipped.FOLDER.rglob('*') if f.is_file()} <= covered
