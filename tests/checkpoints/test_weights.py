"""A weights file is hashed once and decoded once, whoever loads it, and what was verified is what is loaded."""

import argparse
import builtins
import hashlib
import io
import json
import os
import shutil
import threading
from collections import Counter
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from common import SMALL
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

from timm_3g.checkpoints import fetched, open_weights, sha256_of, weights
from timm_3g.checkpoints.decode import tensors_in
from timm_3g.models.loading import create_loaded

SHIPPED = Path(timm.get_pretrained_cfg(f'{SMALL}.cifar10').file).parent
STATE = load_file(SHIPPED / 'model.safetensors')
REPO = f'acme/{SMALL}.cifar10'


# Counts -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    """How often a weights file was opened, decoded and hashed (in bytes), and config.json opened, from here on."""
    counts = Counter()

    def count(module, name, key):
        original = getattr(module, name)

        def call(*args, **kwargs):
            counts[key] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, call)

    class Digest:
        def __init__(self, start=b''):
            self.digest = sha256(start)
            counts['hashed bytes'] += len(start)

        def update(self, block):
            self.digest.update(block)
            counts['hashed bytes'] += len(block)

        def hexdigest(self):
            return self.digest.hexdigest()

    def opened(file, *args, **kwargs):
        name = os.path.basename(os.fspath(file)) if isinstance(file, str | os.PathLike) else ''
        real = os.path.basename(os.path.realpath(file)) if name else ''
        counts['config.json opened'] += name == 'config.json'
        counts['weights opened'] += name.endswith(('.safetensors', '.pth')) or len(real) == 64
        return open_(file, *args, **kwargs)

    sha256, open_ = hashlib.sha256, io.open
    for module, name in (
        (weights, 'tensors_in'),
        (weights, 'load_pickle'),
        (safetensors.torch, 'load'),
        (safetensors.torch, 'load_file'),
        (safetensors, 'safe_open'),
        (safetensors, 'deserialize'),
    ):
        count(module, name, 'decoded')
    monkeypatch.setattr(hashlib, 'sha256', Digest)
    monkeypatch.setattr(io, 'open', opened)
    monkeypatch.setattr(builtins, 'open', opened)
    return counts


def by_file(file, **overlay):
    return timm.create_model(SMALL, pretrained=True, num_classes=10, pretrained_cfg_overlay={'file': str(file), **overlay})


def train_checkpoint(folder):
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={})
    torch.save({'state_dict': STATE, 'args': args, 'epoch': 3}, folder / 'last.pth')
    return folder / 'last.pth'


def published(folder):
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=SHIPPED)
    timm.create_model(f'hf-hub:{REPO}', pretrained=True)
    return f'hf-hub:{REPO}'


SOURCES = {
    'shipped': (lambda folder: None, lambda _: timm.create_model(f'{SMALL}.cifar10', pretrained=True), 1),
    'fetched': (lambda folder: None, lambda _: timm.create_model(f'{SMALL}.cifar10', pretrained=True), 1),
    'local-dir': (lambda folder: SHIPPED, lambda path: timm.create_model(f'local-dir:{path}', pretrained=True), 2),
    'hf-hub': (published, lambda name: timm.create_model(name, pretrained=True), 2),
    'file': (lambda folder: shutil.copy(SHIPPED / 'model.safetensors', folder), by_file, 0),
    'train.py': (train_checkpoint, by_file, 0),
}


@pytest.mark.parametrize('source', SOURCES)
def test_one_hash_and_one_decode(source, hub, counted, tmp_path, monkeypatch):
    make, create, configs = SOURCES[source]
    if source == 'fetched':
        monkeypatch.setattr(fetched, 'cache_root', lambda: tmp_path)
        shutil.copytree(SHIPPED, fetched.fetched_folder(f'{SMALL}.cifar10'))
        cfg = timm.get_pretrained_cfg(f'{SMALL}.cifar10')
        monkeypatch.setattr('timm_3g.checkpoints.source.resolve_pretrained_cfg', lambda *_: cfg.__class__(tag='cifar10'))
    made = make(tmp_path)
    size = os.path.getsize(made if source == 'train.py' else SHIPPED / 'model.safetensors')
    counted.clear()
    model = create(made)
    assert counted['decoded'] == 1 and counted['weights opened'] == 1
    assert counted['hashed bytes'] == size
    assert counted['config.json opened'] == configs
    assert all(torch.equal(value, STATE[name]) for name, value in model.state_dict().items())


# What was verified is what is loaded -----------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['model.safetensors', 'other.safetensors'])
def test_a_file_that_is_changed_after_it_was_read(tmp_path, name):
    """In place, as another process may do: the tensors are not views of the file."""
    file = Path(shutil.copy(SHIPPED / 'model.safetensors', tmp_path / name))
    opened = open_weights(file)
    opened.verify()
    with open(file, 'r+b') as stream:
        stream.seek(-4000, os.SEEK_END)
        stream.write(b'\0' * 4000)
    assert all(torch.equal(value, STATE[key]) for key, value in opened.tensors.items())
    assert opened.sha256 == sha256_of(SHIPPED / 'model.safetensors') != sha256_of(file)


def test_a_damaged_file_is_named_whatever_else_is_wrong(tmp_path):
    """The model is built while the file is read: what goes wrong meanwhile is not the reason."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'folder'))
    with open(folder / 'model.safetensors', 'r+b') as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b'\x7f')
    with pytest.raises(ValueError, match='is not the published file: its sha256 is'):
        timm.create_model(f'local-dir:{folder}', pretrained=True, no_such_option=1)


def test_no_thread_and_no_file_stays(tmp_path):
    before, files = threading.active_count(), len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
    for _ in range(3):
        open_weights(SHIPPED / 'model.safetensors').verify()
    (tmp_path / 'model.safetensors').write_bytes(b'x')
    with pytest.raises(ValueError, match='cannot be read as weights'):
        open_weights(tmp_path / 'model.safetensors').verify()
    for thread in threading.enumerate():
        if thread.name.startswith('ThreadPoolExecutor'):
            thread.join(5)
    assert threading.active_count() <= before
    assert not files or len(os.listdir('/proc/self/fd')) <= files


# The decoder, against safetensors' own ----------------------------------------------------------------------------------


def as_tensor(content):
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool, torch.complex64)


def test_every_type_and_shape(tmp_path):
    tensors = {str(dtype): (torch.randn(2, 3) * 5).to(dtype) for dtype in DTYPES}
    tensors |= {'scalar': torch.tensor(3.5), 'empty': torch.empty(2, 0, 3), 'float8': torch.randn(5).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / 'a.safetensors', metadata={'format': 'pt'})
    ours = tensors_in(as_tensor((tmp_path / 'a.safetensors').read_bytes()))
    assert ours.keys() == tensors.keys()
    for name, value in tensors.items():
        assert ours[name].dtype == value.dtype and ours[name].shape == value.shape
        assert torch.equal(ours[name].float(), value.float()) if value.dtype != torch.complex64 else (ours[name] == value).all()


def test_tensors_that_are_not_aligned():
    header = json.dumps({'a': {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}}).encode()
    for pad in range(4):
        text = header + b' ' * pad
        content = len(text).to_bytes(8, 'little') + text + torch.tensor([1.5, -2.0]).numpy().tobytes()
        assert tensors_in(as_tensor(content))['a'].tolist() == [1.5, -2.0]


ENTRY = {'dtype': 'F32', 'shape': [2], 'data_offsets': [0, 8]}


@pytest.mark.parametrize(
    'header',
    [
        {'a': ENTRY | {'data_offsets': [0, 4]}},
        {'a': ENTRY | {'data_offsets': [0, 16]}},
        {'a': ENTRY | {'data_offsets': [4, 12]}},
        {'a': ENTRY | {'data_offsets': [8, 0]}},
        {'a': ENTRY | {'data_offsets': [0.0, 8.0]}},
        {'a': ENTRY | {'data_offsets': [0]}},
        {'a': ENTRY | {'shape': [-2]}},
        {'a': ENTRY | {'shape': [2.0]}},
        {'a': ENTRY | {'shape': [1 << 62, 1 << 62]}},
        {'a': ENTRY | {'shape': 2}},
        {'a': ENTRY | {'dtype': 'F33'}},
        {'a': ENTRY | {'dtype': None}},
        {'a': ENTRY, 'b': ENTRY},
        {'a': {'shape': [2], 'data_offsets': [0, 8]}},
        {'a': 5},
        {},
        [],
        5,
        '{"a": ',
        '[' * 100_000,
    ],
)
def test_a_header_that_safetensors_refuses(tmp_path, header):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    content = len(text).to_bytes(8, 'little') + text + b'\0' * 8
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load(content)
    (tmp_path / 'a.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read as weights: '):
        open_weights(tmp_path / 'a.safetensors').verify()


@pytest.mark.parametrize('length', [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_length_that_safetensors_refuses(tmp_path, length):
    content = length.to_bytes(8, 'little') + b'{}'
    with pytest.raises(safetensors.SafetensorError):
        safetensors.torch.load(content)
    (tmp_path / 'a.safetensors').write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read as weights: '):
        open_weights(tmp_path / 'a.safetensors').verify()


def test_damage_anywhere_in_the_header(tmp_path):
    """Whatever byte of the header is another one, ours and safetensors' reader agree on the tensors, or ours refuses."""
    save_file({'a': torch.arange(6.0).reshape(2, 3), 'b': torch.tensor([1, 2])}, tmp_path / 'a.safetensors')
    content = (tmp_path / 'a.safetensors').read_bytes()
    for place in range(int.from_bytes(content[:8], 'little') + 8):
        for byte in (content[place] ^ 1, content[place] ^ 16, ord('9'), ord('}')):
            damaged = bytearray(content)
            damaged[place] = byte
            try:
                ours = tensors_in(as_tensor(damaged))
            except Exception:
                continue
            theirs = safetensors.torch.load(bytes(damaged))
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(value.nan_to_num(), theirs[name].nan_to_num()) for name, value in ours.items())


def test_the_ending_of_a_name_in_capitals(tmp_path):
    shutil.copy(SHIPPED / 'model.safetensors', tmp_path / 'M.SAFETENSORS')
    assert open_weights(tmp_path / 'M.SAFETENSORS').tensors.keys() == load_file(SHIPPED / 'model.safetensors').keys()


def test_a_file_under_the_name_of_another_format(tmp_path):
    shutil.copy(SHIPPED / 'model.safetensors', tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r'it is no plain pickle\. .* under a name that ends in \.safetensors') as error:
        open_weights(tmp_path / 'x.pth')
    assert 'weights_only' not in str(error.value)


def test_features_of_a_file_with_a_classifier():
    with pytest.raises(
        ValueError, match=r'fc\.weight has 10 rows, .* declared to have num_classes=0.* leave --num-classes out'
    ):
        create_loaded(SMALL, SHIPPED / 'model.safetensors', num_classes=0)
