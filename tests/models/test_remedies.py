"""Every remedy that a refusal of weights names, followed to the letter."""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from common import SMALL

from timm_3g.__main__ import main
from timm_3g.checkpoints import known_files as _known_files
from timm_3g.checkpoints import open_weights, sha256_of
from timm_3g.checkpoints import shipped as _shipped
from timm_3g.models import checkpoint_filter_fn
from timm_3g.models.loading import create_loaded
from timm_3g.ops import triangle_index

TAG = f'{SMALL}.cifar10'
SHIPPED = _shipped.FOLDER / TAG


class Pickled:
    """What a .ckpt may hold beside its weights."""


def shipped() -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(SHIPPED / 'model.safetensors')


def state(**options) -> dict[str, torch.Tensor]:
    return timm.create_model(SMALL, **{'num_classes': 10, **options}).state_dict()


def load(file, overlay: dict | None = None, name: str = SMALL, **kwargs) -> Any:
    return timm.create_model(name, pretrained=True, pretrained_cfg_overlay={'file': str(file), **(overlay or {})}, **kwargs)


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises((ValueError, OSError, RuntimeError)) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def overlay_in(message: str, file) -> dict:
    """The dict that a message says to pass as pretrained_cfg_overlay."""
    (said,) = re.findall(r'pretrained_cfg_overlay=(dict\(file=\.\.\.[^)]*\))', message)
    return eval(said, {'dict': dict}) | {'file': str(file)}


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / TAG))


def change(folder: Path, **fields) -> None:
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **fields}))


# Classes, poolings, options -----------------------------------------------------------------------------------------------


def test_declare_the_classes(tmp_path):
    torch.save(state(num_classes=5), tmp_path / 'a.pth')
    message = refusal(load, tmp_path / 'a.pth')
    assert load(tmp_path / 'a.pth', overlay_in(message, tmp_path / 'a.pth')).num_classes == 5
    command = ['export', str(tmp_path / 'a.pth'), '--model', SMALL, '--output', str(tmp_path / 'out')]
    assert 'leave --num-classes out' in message and main([*command, '--num-classes', '7']) == 1 and main(command) == 0


@pytest.mark.parametrize('classes', [5, 1000])
def test_plain_weights(tmp_path, classes):
    plain = {k: v for k, v in shipped().items() if not k.startswith(('global_pool.', 'fc.'))}
    plain |= {'fc.weight': torch.zeros(classes, 128), 'fc.bias': torch.zeros(classes)}
    torch.save(plain, tmp_path / 'a.pth')
    message = refusal(load, tmp_path / 'a.pth')
    model = load(tmp_path / 'a.pth', overlay_in(message, tmp_path / 'a.pth'))
    assert torch.equal(model.conv1.weight, shipped()['conv1.weight'])
    assert '--pretrained --pretrained-path FILE' in message  # its own test trains so


def test_another_network(tmp_path):
    torch.save(state(reduce_dim=16), tmp_path / 'a.pth')
    message = refusal(load, tmp_path / 'a.pth')
    assert 'Name the architecture, global_pool, reduce_dim and head_norm' in message
    load(tmp_path / 'a.pth', reduce_dim=16)


def recorded(file: Path, **options) -> Path:
    args = argparse.Namespace(model=SMALL, gp=options.get('global_pool'), model_kwargs={'num_iters': 3})
    torch.save({'state_dict': state(num_iters=3, **options), 'args': args}, file)
    return file


def test_options_of_the_weights(tmp_path):
    message = refusal(load, recorded(tmp_path / 'a.pth'))
    (theirs,) = re.findall(r'num_iters: weights (\d), model 5', message)
    assert 'Build the model with the options of the weights' in message
    load(tmp_path / 'a.pth', num_iters=int(theirs))


def test_the_pooling_of_the_weights(tmp_path):
    file = recorded(tmp_path / 'a.pth', global_pool='isqrt')
    message = refusal(load, file)
    (theirs,) = re.findall(r"weights are of global_pool='(\w+)'", message)
    assert 'Build it with theirs' in message and load(file, global_pool=theirs, num_iters=3).global_pool.pool_type == 'isqrt'
    assert load(file, overlay_in(message, file)).global_pool.pool_type == '3g'


def test_the_order_of_the_index():
    model = timm.create_model(SMALL, num_classes=10)
    weights = {**state(), 'global_pool.to_vec.index': triangle_index(64, 'upper')}
    (order,) = re.findall(r"reads the matrix in the order '(\w+)'", refusal(checkpoint_filter_fn, weights, model))
    checkpoint_filter_fn(weights, timm.create_model(SMALL, num_classes=10, triangle=order))


# What is no weights -------------------------------------------------------------------------------------------------------


def test_convert_quantised_weights_back():
    model = timm.create_model(SMALL, num_classes=10)
    weights = {**state(), 'fc.weight': (state()['fc.weight'] * 100).to(torch.int8)}
    assert 'convert them back first' in refusal(checkpoint_filter_fn, weights, model)
    checkpoint_filter_fn({**weights, 'fc.weight': weights['fc.weight'].float() / 100}, model)


@pytest.mark.parametrize('key', ['state_dict', 'model'])
def test_pass_the_state_dict(tmp_path, key):
    torch.save({'network': state()}, tmp_path / 'a.pth')
    assert 'that holds it under state_dict or model' in refusal(load, tmp_path / 'a.pth')
    torch.save({key: torch.load(tmp_path / 'a.pth')['network']}, tmp_path / 'a.pth')
    load(tmp_path / 'a.pth')


def test_keep_one_of_two(tmp_path):
    weights = {**state(), 'module.fc.bias': torch.zeros(10)}
    torch.save(weights, tmp_path / 'a.pth')
    (pair,) = re.findall(r'Keep one of each: (.*)\.', refusal(load, tmp_path / 'a.pth'))
    del weights[pair.split(', ')[1]]
    torch.save(weights, tmp_path / 'a.pth')
    load(tmp_path / 'a.pth')


@pytest.mark.parametrize('zipped', [True, False])
def test_take_the_weights_out_of_a_pickle(tmp_path, monkeypatch, zipped):
    file = tmp_path / "it's.ckpt"
    torch.save({'state_dict': state(), 'hyper': Pickled()}, file, _use_new_zipfile_serialization=zipped)
    message = refusal(open_weights, file)
    assert 'Only if you trust the file' in message and 'Pickled' in message
    (line,) = re.findall(r"torch\.save\(.*'weights\.pth'\)", message)
    monkeypatch.chdir(tmp_path)
    exec(line, {'torch': torch})
    load('weights.pth')


def test_take_the_weights_out_of_a_pickled_model(tmp_path, monkeypatch):
    torch.save(timm.create_model(SMALL), tmp_path / 'a.pth')
    message = refusal(open_weights, tmp_path / 'a.pth')
    (line,) = re.findall(r"torch\.save\(.*'weights\.pth'\)", message)
    assert "take .state_dict() in place of ['state_dict']" in message
    monkeypatch.chdir(tmp_path)
    exec(line.replace("['state_dict']", '.state_dict()'), {'torch': torch})
    load('weights.pth')


def test_a_header_that_is_not_ours(tmp_path, monkeypatch):
    safetensors.torch.save_file(state(), tmp_path / 'a.safetensors', metadata={'timm_3g': 'x'})
    message = refusal(load, tmp_path / 'a.safetensors')
    (line,) = re.findall(r'safetensors\.torch\.save_file\(.*\)', message)
    monkeypatch.chdir(tmp_path)
    exec(line, {'safetensors': safetensors})
    load('model.safetensors')


# Folders and files --------------------------------------------------------------------------------------------------------


def test_a_folder_as_file(folder):
    message = refusal(load, folder)
    assert "load it as 'local-dir:...'" in message
    timm.create_model(f'local-dir:{folder}', pretrained=True)


def test_a_folder_without_known_names(folder):
    config = json.loads((folder / 'config.json').read_text())
    for file in folder.iterdir():
        file.unlink()
    del config['sha256']
    (folder / 'config.json').write_text(json.dumps(config))
    for name in ('a.pth', 'b.pth'):
        torch.save(shipped(), folder / name)
    message = refusal(timm.create_model, f'local-dir:{folder}', pretrained=True)
    (named,) = re.findall(r'Rename the right one to (\S+)\.$', message)
    (folder / 'b.pth').rename(folder / named)
    timm.create_model(f'local-dir:{folder}', pretrained=True)


def test_a_config_that_contradicts_the_weights(folder):
    config = json.loads((folder / 'config.json').read_text())
    change(folder, model_args={**config['model_args'], 'num_iters': 3})
    message = refusal(timm.create_model, f'local-dir:{folder}', pretrained=True)
    assert 'Move it, and export the file again' in message
    (folder / 'config.json').unlink()
    assert main(['export', str(folder / 'model.safetensors'), '--output', str(folder / 'again')]) == 0


def test_a_config_that_is_none(folder):
    (folder / 'config.json').write_text('[]')
    assert 'Fix or move it' in refusal(create_loaded, SMALL, folder / 'model.safetensors')
    (folder / 'config.json').unlink()
    create_loaded(SMALL, folder / 'model.safetensors')


def test_a_config_that_names_other_weights(folder):
    config = json.loads((folder / 'config.json').read_text())
    change(folder, pretrained_cfg={**config['pretrained_cfg'], 'url': 'http://127.0.0.1:1/x'})
    assert 'Remove it from config.json' in refusal(timm.create_model, f'local-dir:{folder}', pretrained=True)
    (folder / 'config.json').write_text(json.dumps(config))
    timm.create_model(f'local-dir:{folder}', pretrained=True)


def test_a_key_that_timm_does_not_know(folder):
    message = refusal(load, folder / 'model.safetensors', {'colour': 'x'})
    assert 'pretrained_cfg_overlay has keys that timm does not know: colour. Remove them' in message
    load(folder / 'model.safetensors')


def test_an_option_that_the_network_does_not_take(folder):
    config = json.loads((folder / 'config.json').read_text())
    change(folder, model_args={**config['model_args'], 'heads': 3})
    assert 'Remove it from config.json' in refusal(timm.create_model, f'local-dir:{folder}')
    (folder / 'config.json').write_text(json.dumps(config))
    timm.create_model(f'local-dir:{folder}')


def test_no_weights_of_a_tag(tmp_path):
    message = refusal(timm.create_model, 'resnet18_3g', pretrained=True)
    assert '`pretrained=False` for random init' in message
    torch.save(timm.create_model('resnet18_3g').state_dict(), tmp_path / 'a.pth')
    timm.create_model('resnet18_3g', pretrained=True, pretrained_cfg_overlay=overlay_in(message, tmp_path / 'a.pth'))
    assert '--checkpoint FILE' in message and create_loaded('resnet18_3g', tmp_path / 'a.pth')
    timm.create_model('resnet18_3g', pretrained=False)


def test_the_key_of_a_known_file(tmp_path, monkeypatch, capsys):
    torch.save(state(), tmp_path / 'a.pth')
    digits = sha256_of(tmp_path / 'a.pth')[:8]
    file = (tmp_path / 'a.pth').rename(tmp_path / f'a-{digits}.pth')
    known = _known_files.KnownFile(f'{SMALL}.old', digits, {'num_iters': 5})
    monkeypatch.setattr(_known_files, 'KNOWN_FILES', (known,))
    command = ['export', str(file), '--output', str(tmp_path / 'out'), '--model']
    assert main([*command, TAG]) == 1
    (key,) = re.findall(r'Name (\S+)\.\n', capsys.readouterr().err)
    assert key == known.key and main([*command, key]) == 0


def test_a_known_name_of_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(_known_files, 'KNOWN_FILES', (_known_files.KnownFile(f'{SMALL}.old', '0' * 8, {}),))
    torch.save(state(), tmp_path / 'a-00000000.pth')
    assert 'rename it' in refusal(load, tmp_path / 'a-00000000.pth')
    load((tmp_path / 'a-00000000.pth').rename(tmp_path / 'a.pth'))


def test_options_that_only_networks_on_any_backbone_have():
    with pytest.raises(TypeError, match=r"'out_index'\. Networks on any backbone have it: create_model\('gcp', backbone="):
        timm.create_model(SMALL, out_index=-2)


def test_a_reset_that_is_refused_changes_nothing():
    model = timm.create_model(SMALL, num_classes=5)
    with pytest.raises(ValueError, match='foo'):
        model.reset_classifier(3, 'foo')
    assert model.num_classes == model.fc.out_features == 5
