"""Private names of other libraries still mean what `timm_3g/compat.py` takes them for."""

import ast
import json
import socket
from pathlib import Path

import pytest
import timm
import torch
import webdataset
from common import SMALL
from huggingface_hub import hf_hub_download
from torch import nn
from torch.distributions import Distribution, Normal

import timm_3g
from timm_3g import compat

PACKAGE = Path(timm_3g.__file__).parent

# torch ----------------------------------------------------------------------------------------------------------------


def test_torch_tells_whether_a_transform_is_active():
    hint = 'torch has changed _C._are_functorch_transforms_active: find its successor and put it into compat.transforms_active.'
    assert hasattr(torch._C, '_are_functorch_transforms_active'), hint
    assert compat.transforms_active() is False, hint
    seen = []

    def look(x):
        seen.append(compat.transforms_active())
        return x.sum()

    for transform in (torch.func.vmap, torch.func.grad):
        transform(look)(torch.ones(2, 2) if transform is torch.func.vmap else torch.ones(2))
    torch.func.jvp(look, (torch.ones(2),), (torch.ones(2),))
    assert seen == [True, True, True], hint
    assert compat.transforms_active() is False, hint


def test_legacy_batches():
    hint = 'torch has changed _C._functorch.is_legacy_batchedtensor: adapt compat.is_legacy_batched.'
    assert hasattr(torch._C._functorch, 'is_legacy_batchedtensor'), hint
    seen = []

    class Identity(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            seen.append(compat.is_legacy_batched(grad))
            return grad

    x = torch.ones(2, requires_grad=True)
    y = Identity.apply(x)
    torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True, retain_graph=True)
    torch.autograd.grad(y, x, torch.ones(2))
    assert seen == [True, False], hint


@pytest.mark.parametrize('register', ['register_forward_hook', 'register_forward_pre_hook'])
def test_torch_lists_forward_hooks(register):
    hint = 'torch has changed Module._forward_hooks or Module._forward_pre_hooks: adapt compat.has_forward_hooks.'
    module = nn.Linear(2, 2)
    assert hasattr(module, '_forward_hooks') and hasattr(module, '_forward_pre_hooks'), hint
    assert not compat.has_forward_hooks(module), hint
    handle = getattr(module, register)(lambda *args: None)
    assert compat.has_forward_hooks(module), hint
    handle.remove()
    assert not compat.has_forward_hooks(module), hint


@pytest.mark.parametrize('name', compat.DISTRIBUTION_PROTOCOL)
def test_torch_distributions_have_the_protocol(name):
    hint = f'torch has changed Distribution.{name}: adapt mggd/distribution.py, and compat.DISTRIBUTION_PROTOCOL.'
    assert hasattr(Distribution, name), hint
    normal = Normal(torch.zeros(2), 1.0, validate_args=True)
    uses = {
        '_get_checked_instance': lambda: isinstance(normal._get_checked_instance(Normal), Normal),
        '_extended_shape': lambda: normal._extended_shape(torch.Size([3])) == (3, 2),
        '_validate_sample': lambda: normal._validate_sample(torch.zeros(2)) is None,
        '_validate_args': lambda: normal._validate_args is True,
    }
    assert uses[name](), hint


# timm -----------------------------------------------------------------------------------------------------------------


def test_feature_take_indices():
    hint = 'timm has changed models._features.feature_take_indices: adapt compat, and what googlenet.py reads of it.'
    taken = [compat.feature_take_indices(5, indices) for indices in (None, 2, [0, -3])]
    assert taken == [([0, 1, 2, 3, 4], 4), ([3, 4], 4), ([0, 2], 2)], hint


def test_search_split(tmp_path):
    (tmp_path / 'val').mkdir()
    assert compat.search_split(str(tmp_path), 'validation') == str(tmp_path / 'val')
    assert compat.search_split(str(tmp_path), 'train') == str(tmp_path)


def test_the_feature_getter_of_timm():
    features = timm.create_model('resnet10t', features_only=True, feature_cls='getter')
    assert type(features) is compat.FeatureGetterNet, 'timm has moved FeatureGetterNet: adapt compat.'


def test_model_args(tmp_path):
    """timm writes what our head adds. Without `num_iters` and `eps` it would be another network."""
    model = timm.create_model(SMALL, num_classes=3, stem_type='deep')
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    written = json.loads((tmp_path / 'config.json').read_text())['model_args']
    assert written | {'stem_type': 'deep', 'num_iters': 5, 'eps': 1e-7, 'reduce_dim': 64} == written


def test_timm_writes_the_config_alone(tmp_path):
    hint = 'timm has changed models._hub.save_config_for_hf: find its successor and put it into compat.write_timm_config.'
    net = timm.create_model(SMALL, num_classes=3)
    timm.models.save_for_hf(net, str(tmp_path / 'public'), safe_serialization=True)
    compat.write_timm_config(net, tmp_path / 'config.json')
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ['config.json'], hint
    written, public = (json.loads((folder / 'config.json').read_text()) for folder in (tmp_path, tmp_path / 'public'))
    assert written == public, hint


def test_a_stream_calls_what_it_is_given_over_a_broken_sample(tmp_path):
    hint = 'timm has changed ReaderWds: adapt compat.set_up_stream.'
    with webdataset.TarWriter(str(tmp_path / 'a.tar')) as tar:
        tar.write({'__key__': 'x', 'jpg': b'no image', 'cls': 0})
    seen = []
    reader = timm.data.create_dataset('wds/x', root=str(tmp_path), split='a.tar', num_samples=1).reader
    compat.set_up_stream(reader, lambda error: seen.append(type(error).__name__) or True)
    assert list(reader) == [] and seen == ['UnidentifiedImageError'], hint
    compat.set_up_stream(object(), print)


# huggingface_hub ------------------------------------------------------------------------------------------------------


def test_http_error(hub, monkeypatch):
    """What the client raises where nobody listens, or the server breaks the rules of HTTP, is one of the two."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    for endpoint in (f'http://127.0.0.1:{port}', hub.url):
        with pytest.raises((OSError, compat.HTTP_ERROR)):
            hf_hub_download(f'acme/{SMALL}', 'config.json', endpoint=endpoint, etag_timeout=1)
    assert issubclass(compat.HTTP_ERROR, Exception) and compat.HTTP_ERROR not in (Exception, OSError)


# The rule -------------------------------------------------------------------------------------------------------------

ROOMS = ['ops', 'mggd', 'layers']


def private_names(file: Path) -> set[str]:
    """Attributes with one leading underscore that a file uses."""
    attributes = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    return {name for name in attributes if name.startswith('_') and not name.startswith('__')}


def own_private_names() -> set[str]:
    """Functions, classes and attributes that the package defines itself."""
    own = set()
    for file in PACKAGE.rglob('*.py'):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own.add(node.attr)
    return own


@pytest.mark.parametrize('room', ROOMS)
def test_no_private_name_outside_compat(room):
    allowed = own_private_names() | set(compat.DISTRIBUTION_PROTOCOL)
    found = {f'{file.name}: {name}' for file in (PACKAGE / room).rglob('*.py') for name in private_names(file) - allowed}
    assert not found, 'use a public name, or give the private one its place and reason in timm_3g/compat.py'


def test_timm_reads_an_image_once(tmp_path):
    hint = 'timm has changed ImageDataset: adapt compat.read_once and compat.is_unreadable.'
    (tmp_path / 'a').mkdir()
    for name in ('0.png', '1.png'):
        (tmp_path / 'a' / name).write_bytes(b'damaged')
    dataset = timm.data.ImageDataset(str(tmp_path))
    assert hasattr(dataset, '_max_retries'), hint
    compat.read_once(dataset)
    with pytest.raises(RuntimeError) as error:
        dataset[0]
    assert compat.is_unreadable(error.value), hint
