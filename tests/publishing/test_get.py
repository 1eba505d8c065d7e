"""`timm-3g get`: the real clients against the authors' servers on this machine; then `pretrained=True` without network."""

import argparse
import hashlib
import importlib
import io
import os
import pickle
import re
import shutil
import socket
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import reference
import timm
import torch
from authors_server import CUT, DROP, NO_RANGE, QUOTA, QUOTA_REASON, AuthorsServer
from common import SMALL
from safetensors.torch import load_file
from timm.models import _registry

from timm_3g.__main__ import main
from timm_3g.checkpoints import fetched_folder
from timm_3g.checkpoints import formats as _formats
from timm_3g.publishing import get as fetch
from timm_3g.publishing.authors import arriving_file

DRIVE, PLAIN, UNNAMED = f'{SMALL}.drive', f'{SMALL}.plain', f'{SMALL}.unnamed'  # UNNAMED: no sha256 in its name
DRIVE_URL = 'https://drive.google.com/open?id=TOY'
PAGE = 'Their code, https://example.com/toy, may link other copies (Baidu).'
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
FILES = {'model.safetensors', 'config.json', 'golden.safetensors'}

both = pytest.mark.parametrize('key', [DRIVE, PLAIN])


def in_their_names(net):
    """The inverse of the renaming: the authors' state dict of a network of ours."""
    theirs = {ours: name for name, ours in _formats._ATMP.items()}

    def rename(key):
        key = re.sub(r'^global_pool\.reduce\.(conv|bn)', lambda m: f'layer_reduce{"_bn" if m[1] == "bn" else ""}', key)
        match = re.fullmatch(r'global_pool\.reweight\.(\d+)\.(.*)\.(\w+)', key)
        return f'AtMp{int(match[1]) + 1}.{theirs[match[2]]}.{match[3]}' if match else key

    return OrderedDict((f'module.{rename(key)}', value) for key, value in net.state_dict().items())


def file_of(content):
    """As a PyTorch of their time saved it."""
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.fixture(autouse=True, scope='module')
def _one_thread():
    """For small networks two threads are no faster, and where others use the machine, several times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def theirs():
    """A small network, and its file in the format of 3G-Net."""
    torch.manual_seed(3)
    net = timm.create_model(SMALL, num_classes=4).eval()
    reference.randomize_(net, 0)
    net.fc.weight.data *= 100  # logits of the size that trained networks give, far above all tolerances
    state = in_their_names(net)
    assert {'module.AtMp1.map1.weight', 'module.layer_reduce_bn.bias', 'module.AtMp3.atmap3.weight'} <= state.keys()
    return net, file_of({'epoch': 115, 'arch': 'resnet50', 'state_dict': state, 'best_prec1': torch.tensor(78.66)})


def register(monkeypatch, key, url):
    """A tag of the small network in timm's registry, as if the package knew its weights."""
    shipped = timm.get_pretrained_cfg(f'{SMALL}.cifar10')
    cfg = replace(shipped, file=None, num_classes=4, label_names=None, tag=key.split('.')[1], license='unknown')
    monkeypatch.setitem(_registry._model_pretrained_cfgs, key, replace(cfg, origin_url=url, notes=(PAGE,)))
    monkeypatch.setitem(_registry._model_with_tags, SMALL, list({*_registry._model_with_tags[SMALL], key}))


@pytest.fixture
def server(theirs, cache, monkeypatch):
    data = theirs[1]
    plain = f'/models/toy-{hashlib.sha256(data).hexdigest()[:8]}.pth'
    with AuthorsServer() as server:
        server.route(monkeypatch)
        server.files |= {'TOY': data, plain: data, '/models/toy.pth': data}
        register(monkeypatch, DRIVE, DRIVE_URL)
        register(monkeypatch, PLAIN, server.url + plain)
        register(monkeypatch, UNNAMED, f'{server.url}/models/toy.pth')
        monkeypatch.setattr('huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE', 100_000)  # 10 MB; what is smaller arrives or not
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr('timm_3g.checkpoints.fetched.cache_root', lambda: tmp_path / 'cache')
    return tmp_path / 'cache'


@pytest.fixture
def impatient(monkeypatch):
    """The client does not sleep between its retries."""
    monkeypatch.setattr('huggingface_hub.file_download.time.sleep', lambda seconds: None)


@pytest.fixture
def file(theirs, tmp_path):
    """The authors' file, in the user's hands."""
    (tmp_path / 'Toy-3G.pth.tar').write_bytes(theirs[1])
    return tmp_path / 'Toy-3G.pth.tar'


def get(key, *options):
    return main(['get', key, *map(str, options)])


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def inside(cache):
    """What the cache holds, by its path; locks stay, which is how file locks work."""
    found = (f for f in cache.rglob('*') if f.is_file() and f.suffix != '.lock')
    return {str(f.relative_to(cache)): f.read_bytes() for f in found}


def ranges(server):
    """Of the requests for the file itself: where each began, None for a whole one. gdown first asks for the page."""
    return [
        r.range and int(r.range.removeprefix('bytes=').removesuffix('-'))
        for r in server.requests
        if '/models/' in r.path or 'confirm=t' in r.path
    ]


def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('a connection')

    monkeypatch.setattr(socket.socket, 'connect', refuse)


@torch.inference_mode()
def check_loads(key, theirs):
    assert torch.equal(timm.create_model(key, pretrained=True).eval()(X), theirs[0](X))


# From the server to pretrained=True ------------------------------------------------------------------------------------


@both
def test_get_brings_weights_that_pretrained_finds_without_network(server, cache, theirs, key, monkeypatch, capsys):
    assert get(key) == 0
    out = capsys.readouterr().out
    assert f'{key}, checked and converted (their authors have granted no licence)' in out
    assert f"timm.create_model('{key}', pretrained=True)" in out
    assert inside(cache).keys() == {f'weights/{key}/{name}' for name in FILES}
    no_network(monkeypatch)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    check_loads(key, theirs)


def test_a_large_file_of_drive_comes_after_its_page(server, cache):
    assert get(DRIVE) == 0
    first, page, data = (r.path for r in server.requests)
    assert first == '/drive.google.com/uc?id=TOY'
    assert page == '/drive.usercontent.google.com/download?id=TOY&export=download'
    assert data.startswith('/drive.usercontent.google.com/download?') and 'confirm=t&uuid=1f-2e' in data


@both
def test_before_get_pretrained_names_the_command_at_once(server, cache, key, monkeypatch):
    no_network(monkeypatch)
    with pytest.raises(RuntimeError, match=rf'`timm-3g get {key}` fetches them from their authors') as raised:
        timm.create_model(key, pretrained=True)
    tags = re.search(r'Tags of resnet10_mini_3g: (.*?)\. ', str(raised.value))[1]
    assert set(tags.split(', ')) == {'open_cifar10', 'cifar10', 'drive', 'plain', 'unnamed'}


@torch.inference_mode()
def test_timms_adaptations_of_fetched_weights(server, cache, theirs, monkeypatch):
    assert get(PLAIN) == 0
    no_network(monkeypatch)
    net, state = theirs[0], theirs[0].state_dict()
    vectors = timm.create_model(PLAIN, pretrained=True, num_classes=0).eval()(X)
    assert torch.equal(vectors, net.forward_head(net.forward_features(X), pre_logits=True))
    three = timm.create_model(PLAIN, pretrained=True, num_classes=3).state_dict()
    assert three['fc.weight'].shape[0] == 3
    assert all(torch.equal(three[key], value) for key, value in state.items() if not key.startswith('fc.'))
    grey = timm.create_model(PLAIN, pretrained=True, in_chans=1).state_dict()
    torch.testing.assert_close(grey['conv1.weight'], state['conv1.weight'].sum(1, keepdim=True))
    features = timm.create_model(PLAIN, pretrained=True, features_only=True).eval()(X)
    assert torch.equal(features[-1], net.forward_features(X))


def test_the_token_of_the_hub_goes_to_no_author(server, cache, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', 'hf_secret')
    assert get(PLAIN) == get(DRIVE) == 0
    assert server.requests and not any('hf_secret' in value for r in server.requests for value in r.headers.values())


@pytest.mark.slow
def test_a_real_key_at_full_size(cache, tmp_path, monkeypatch):
    """180 MB; iSQRT's format, whose triangle is the upper one."""
    net = reference.AuthorsNetISQRT(18).eval()
    reference.randomize_(net, 18)
    reference.save_legacy(net, tmp_path / 'theirs.pth.tar')
    key = 'resnet18_isqrt.gcpopt_in1k'
    with AuthorsServer() as server:
        server.route(monkeypatch)
        server.files['1D4ZmTHJ5dmTTpdL2IA3UJUIm54cF45na'] = (tmp_path / 'theirs.pth.tar').read_bytes()
        assert get(key) == 0
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        ours = timm.create_model(key, pretrained=True).eval()
        torch.testing.assert_close(ours(x), net(x), rtol=1e-4, atol=1e-6)


# What goes wrong on the way ---------------------------------------------------------------------------------------------


@both
@pytest.mark.usefixtures('impatient')
@pytest.mark.parametrize('fault', [DROP, 404, 403, 500])
def test_a_server_that_gives_nothing(server, cache, theirs, key, fault, capsys):
    server.faults = [fault] * 20
    assert get(key) == 1
    error = last_line(capsys)
    assert error.startswith(f'timm-3g get: {timm.get_pretrained_cfg(key).origin_url}, the file of {key}, cannot be fetched: ')
    assert PAGE in error and f'`timm-3g get {key} --from FILE`' in error
    server.faults = []
    assert get(key) == 0
    check_loads(key, theirs)


@pytest.mark.usefixtures('impatient')
def test_a_server_that_is_not_there(server, cache, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(('127.0.0.1', 0))  # and never listens
        register(monkeypatch, PLAIN, f'http://127.0.0.1:{closed.getsockname()[1]}/models/toy-01234567.pth')
        assert get(PLAIN) == 1
    error = last_line(capsys)
    assert 'cannot be fetched: ConnectError: ' in error and PAGE in error and f'`timm-3g get {PLAIN} --from FILE`' in error


@pytest.mark.parametrize('key', [PLAIN, DRIVE])
def test_offline_mode_is_named(server, cache, monkeypatch, capsys, key):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert get(key) == 1
    assert 'HF_HUB_OFFLINE is set' in last_line(capsys) and not server.requests


def test_the_reason_of_drive_is_named(server, cache, capsys):
    server.faults = [QUOTA]
    assert get(DRIVE) == 1
    error = last_line(capsys)
    assert DRIVE_URL in error and PAGE in error and f'`timm-3g get {DRIVE} --from FILE`' in error
    assert QUOTA_REASON in error


@pytest.mark.parametrize('content', ['page', 'other bytes'])
def test_a_file_that_is_not_what_its_name_says(server, cache, theirs, capsys, content):
    (name,) = (name for name in server.files if name.startswith('/models/toy-'))
    whole = server.files[name]
    server.files[name] = b'<html>This domain is for sale</html>' if content == 'page' else whole[:-1] + bytes([whole[-1] ^ 1])
    assert get(PLAIN) == 1
    error = last_line(capsys)
    assert re.search(r'toy-(\w{8})\.pth gave another file than its name says \(sha256 \1\.\.\.\)', error)
    assert ('it is an HTML page' in error) == (content == 'page')
    assert not inside(cache)
    server.files[name] = whole
    assert get(PLAIN) == 0
    check_loads(PLAIN, theirs)


@pytest.mark.parametrize('key', [DRIVE, UNNAMED])
def test_a_file_of_other_weights_is_not_kept(server, cache, theirs, key, capsys):
    right = dict(server.files)
    wrong = file_of({'state_dict': in_their_names(timm.create_model(SMALL, num_classes=4, reduce_dim=32))})
    server.files = dict.fromkeys(right, wrong)
    assert get(key) == 1
    error = last_line(capsys)
    assert f'is not the file of {key}. These are not weights of this network' in error and not inside(cache)
    server.files = right
    assert get(key) == 0
    check_loads(key, theirs)


def half_way(server, key):
    """A first call whose connection is cut and does not come back. Returns how much of the file has been kept."""
    # Drive: the two requests before that for the file; there the client does not try again, the Hub's does.
    server.faults = [None, None, CUT] if key == DRIVE else [CUT, *[DROP] * 20]
    assert get(key) == 1
    server.faults = []
    server.requests.clear()
    (part,) = (arriving_file(key).parent).iterdir()
    return part.stat().st_size


@both
@pytest.mark.usefixtures('impatient')
def test_an_interrupted_download_is_resumed(server, cache, theirs, key, capsys):
    kept = half_way(server, key)
    error = ' '.join(capsys.readouterr().err.splitlines()[-1:])
    assert 'What has arrived is kept, and the same command resumes' in error and f'{key} --from FILE' in error
    assert len(theirs[1]) / 4 < kept < len(theirs[1]) * 0.6
    assert get(key) == 0
    assert ranges(server)[-1] == kept and inside(cache).keys() == {f'weights/{key}/{name}' for name in FILES}
    check_loads(key, theirs)


@pytest.mark.usefixtures('impatient')
def test_a_connection_that_comes_back_is_no_error(server, cache, theirs):
    server.faults = [CUT, DROP, CUT]
    assert get(PLAIN) == 0
    starts = ranges(server)
    assert starts[:1] == [None] and 0 < starts[1] == starts[2] < starts[3]
    check_loads(PLAIN, theirs)


@pytest.mark.usefixtures('impatient')
def test_a_server_that_cannot_resume_gives_the_whole_file_again(server, cache, theirs):
    assert half_way(server, PLAIN) > 0
    server.faults = [NO_RANGE]
    assert get(PLAIN) == 0
    check_loads(PLAIN, theirs)


@both
@pytest.mark.usefixtures('impatient')
def test_a_part_that_is_whole_already(server, cache, theirs, key):
    """The process ended between the last byte and the renaming. The server answers 416 to a range that begins at the end."""
    half_way(server, key)
    (part,) = (arriving_file(key).parent).iterdir()
    part.write_bytes(theirs[1])
    assert get(key) == 0
    check_loads(key, theirs)


@pytest.mark.usefixtures('impatient')
def test_drive_that_cannot_resume_gives_the_whole_file_again(server, cache, theirs, capsys):
    """gdown keeps the part and gives up."""
    assert half_way(server, DRIVE) > 0
    server.faults = [None, None, None, NO_RANGE]
    assert get(DRIVE) == 0
    check_loads(DRIVE, theirs)


def test_a_download_that_was_not_converted_is_not_fetched_again(server, cache, theirs):
    arrived = arriving_file(PLAIN)
    arrived.parent.mkdir(parents=True)
    arrived.write_bytes(theirs[1])
    assert get(PLAIN) == 0
    assert not server.requests and not arrived.exists()
    check_loads(PLAIN, theirs)


# A file that the user has ----------------------------------------------------------------------------------------------


@both
def test_a_file_at_hand_is_taken_and_left_as_it_is(server, cache, theirs, file, key):
    assert get(key, '--from', file) == 0
    assert file.read_bytes() == theirs[1] and not server.requests
    assert inside(cache).keys() == {f'weights/{key}/{name}' for name in FILES}
    check_loads(key, theirs)


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


WRONG = {
    'absent': 'does not exist',
    'other reduction': 'These are not weights of this network',
    'other network': 'These are not weights of this network',
    'other classes': 'fc.weight has 5 rows',
    'page': 'cannot be read as weights',
    'truncated': 'cannot be read as weights',
    'malicious': 'cannot be read as weights',
    'malicious pickle': 'cannot be read as weights',
}


def wrong_file(what, tmp_path, theirs):
    file = tmp_path / 'wrong.pth.tar'
    if what == 'absent':
        return file
    contents = {
        'other reduction': lambda: file_of(
            {'state_dict': in_their_names(timm.create_model(SMALL, num_classes=4, reduce_dim=32))}
        ),
        'other network': lambda: file_of(timm.create_model('test_resnet', num_classes=4).state_dict()),
        'other classes': lambda: file_of({'state_dict': in_their_names(timm.create_model(SMALL, num_classes=5))}),
        'page': lambda: QUOTA.encode(),
        'truncated': lambda: theirs[1][: len(theirs[1]) // 2],
        'malicious': lambda: file_of({'state_dict': in_their_names(theirs[0]), 'epoch': Evil(tmp_path / 'executed')}),
        'malicious pickle': lambda: pickle.dumps(Evil(tmp_path / 'executed')),
    }
    file.write_bytes(contents[what]())
    return file


@pytest.mark.parametrize('what', WRONG)
def test_a_wrong_file_is_one_line_and_leaves_nothing(server, cache, theirs, tmp_path, what, capsys):
    assert get(DRIVE, '--from', wrong_file(what, tmp_path, theirs)) == 1
    error = capsys.readouterr().err
    assert error.startswith('timm-3g get: ') and error.count('\n') == 1 and WRONG[what] in error and 'wrong.pth.tar' in error
    assert not inside(cache) and not (tmp_path / 'executed').exists()
    assert (f'is not the file of {DRIVE}: it is an HTML page.' in error) == (what == 'page')


def test_a_training_of_ones_own_is_not_kept_as_the_authors(server, cache, theirs, file, tmp_path, capsys):
    assert get(DRIVE, '--from', file) == 0
    before = inside(cache)
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={})
    (tmp_path / 'last.pth.tar').write_bytes(file_of({'epoch': 3, 'state_dict': theirs[0].state_dict(), 'args': args}))
    assert get(DRIVE, '--from', tmp_path / 'last.pth.tar') == 1
    assert f'last.pth.tar is not the file of {DRIVE}. It holds weights of {SMALL}.' in last_line(capsys)
    assert inside(cache) == before


@pytest.mark.parametrize('what', ['absent', 'other reduction', 'truncated'])
def test_a_wrong_file_does_not_cost_what_was_there(server, cache, theirs, file, tmp_path, what):
    assert get(DRIVE, '--from', file) == 0
    before = inside(cache)
    assert get(DRIVE, '--from', wrong_file(what, tmp_path, theirs)) == 1
    assert inside(cache) == before


def test_a_file_at_hand_replaces_what_was_there(server, cache, theirs, file, tmp_path):
    other = tmp_path / 'other.pth'
    other.write_bytes(file_of(in_their_names(timm.create_model(SMALL, num_classes=4))))
    assert get(DRIVE, '--from', other) == 0
    assert get(DRIVE, '--from', file) == 0
    check_loads(DRIVE, theirs)


def test_a_file_at_hand_needs_no_gdown(server, cache, theirs, file, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gdown', None)
    assert get(DRIVE, '--from', file) == 0
    check_loads(DRIVE, theirs)


# What is there already -------------------------------------------------------------------------------------------------


@both
def test_get_again_asks_nobody(server, cache, file, key, monkeypatch, capsys):
    assert get(key, '--from', file) == 0
    before = inside(cache)
    no_network(monkeypatch)
    capsys.readouterr()
    assert get(key) == 0
    assert f'{key} has them already.' in capsys.readouterr().out and inside(cache) == before


def flip(file, at):
    damaged = bytearray(file.read_bytes())
    damaged[at] ^= 1
    file.write_bytes(damaged)


def test_a_flipped_byte_is_an_error_until_get_replaces_it(server, cache, theirs, file, capsys):
    assert get(PLAIN, '--from', file) == 0
    weights = fetched_folder(PLAIN) / 'model.safetensors'
    flip(weights, -1)
    with pytest.raises(ValueError, match=r'is not the published file: its sha256 is \w{64}, and config.json beside it says'):
        timm.create_model(PLAIN, pretrained=True)
    assert get(PLAIN) == 0
    assert f'fetching {PLAIN} again, because the cached folder is damaged' in capsys.readouterr().err
    assert ranges(server) == [None]
    check_loads(PLAIN, theirs)


DAMAGE = {
    'weights cut off': lambda folder: os.truncate(folder / 'model.safetensors', 1000),
    'no weights': lambda folder: (folder / 'model.safetensors').unlink(),
    'no config': lambda folder: (folder / 'config.json').unlink(),
    'config cut off': lambda folder: os.truncate(folder / 'config.json', 100),
    'config empty': lambda folder: (folder / 'config.json').write_text('{}'),
    'no golden pair': lambda folder: (folder / 'golden.safetensors').unlink(),
    'golden pair flipped': lambda folder: flip(folder / 'golden.safetensors', -2),
    'golden pair cut off': lambda folder: os.truncate(folder / 'golden.safetensors', 100),
    'golden pair renamed': lambda folder: rename_golden(folder / 'golden.safetensors'),
}


def rename_golden(file):
    file.write_bytes(file.read_bytes().replace(b'"input"', b'"inqut"'))


@pytest.mark.parametrize('damage', DAMAGE)
def test_whatever_is_damaged_is_fetched_again(server, cache, theirs, file, damage):
    assert get(PLAIN, '--from', file) == 0
    whole = inside(cache)
    DAMAGE[damage](fetched_folder(PLAIN))
    assert get(PLAIN) == 0
    assert ranges(server) == [None] and inside(cache) == whole


@pytest.mark.usefixtures('impatient')
def test_what_is_damaged_stays_while_the_server_is_away(server, cache, file):
    assert get(PLAIN, '--from', file) == 0
    flip(fetched_folder(PLAIN) / 'model.safetensors', -1)
    before = inside(cache)
    server.faults = [404]
    assert get(PLAIN) == 1
    assert {key: value for key, value in inside(cache).items() if key.startswith('weights/')} == before


def test_two_at_once_fetch_once(server, cache, theirs):
    server.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetch, PLAIN)
        assert server.asked.wait(10)
        second = pool.submit(fetch, PLAIN)
        threading.Event().wait(0.3)  # time for a second request
        server.go_on.set()
        said = first.result(60), second.result(60)
    assert said[0].state == 'converted' and said[1].state == 'present'
    assert ranges(server) == [None]
    check_loads(PLAIN, theirs)


# The table, and the arguments ------------------------------------------------------------------------------------------


def rows(capsys):
    """The lines of --list by their key."""
    assert main(['get', '--list']) == 0
    return {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}


def test_list_says_where_each_set_is(server, cache, file, capsys):
    table = rows(capsys)
    expected = {key for key in timm.list_models(include_tags=True) if timm.get_pretrained_cfg(key).origin_url}
    expected = {key for key in expected if _registry.model_entrypoint(key.split('.')[0]).__module__.startswith('timm_3g.')}
    shipped = {f'{SMALL}.cifar10', f'{SMALL}.open_cifar10'}
    assert table.keys() == expected | shipped and len(table) == 17
    assert all('in the package' in table[key] for key in shipped)
    assert all(
        'not here: timm-3g get' in table[key] and timm.get_pretrained_cfg(key).origin_url in table[key] for key in expected
    )
    assert re.search(r'\bmit +http://jtxie.com/', table['resnet50_isqrt.mpncov_2018_in1k'])
    assert re.search(r'\bunknown +https://drive.google.com/', table['resnet50_3g.orig_in1k'])
    capsys.readouterr()
    assert get(DRIVE, '--from', file) == 0
    capsys.readouterr()
    table = rows(capsys)
    assert 'fetched' in table[DRIVE] and 'not here' in table[PLAIN]
    assert not server.requests


def test_an_unknown_key_names_the_nearest_or_all(server, cache, capsys):
    for key in ('resnet50_3g.orig_in22k', 'resnet50_3g', 'resnet18_3g.untrained', 'resnet50.a1_in1k', '../../etc'):
        assert get(key) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"timm-3g get: '{key}' is not a known set of weights. Did you mean ") and error.count('\n') == 1
        assert 'resnet50_3g.orig_in1k' in error or key == 'resnet18_3g.untrained'
        assert all(known in error for known in (DRIVE, f'{SMALL}.cifar10')) == (key == '../../etc')
    assert not cache.exists()


def test_a_key_or_the_list(capsys):
    for arguments in ([], [DRIVE, '--list']):
        assert main(['get', *arguments]) == 1
        assert 'Name one set of weights' in capsys.readouterr().err


def test_a_key_of_the_package_needs_no_fetching(cache, monkeypatch, capsys):
    no_network(monkeypatch)
    assert get(f'{SMALL}.cifar10') == 0
    assert 'is in the package; there is nothing to fetch' in capsys.readouterr().out and not cache.exists()


def test_without_gdown_the_extra_is_named(server, cache, theirs, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, 'gdown', None)
        assert get(DRIVE) == 1
        assert "pip install 'timm_3g[get] @ git+https://" in last_line(capsys)
        assert not inside(cache) and not server.requests
        assert get(PLAIN) == 0  # which needs none
    assert get(DRIVE) == 0
    check_loads(DRIVE, theirs)


def test_the_folder_knows_its_weights(server, cache, theirs):
    assert get(DRIVE) == 0
    golden = load_file(fetched_folder(DRIVE) / 'golden.safetensors')
    with torch.inference_mode():
        assert torch.equal(theirs[0](golden['input']), golden['logits'])
    moved = fetched_folder(DRIVE).rename(cache / 'moved')
    cfg = timm.create_model(f'local-dir:{moved}', pretrained=True).pretrained_cfg
    assert (cfg['tag'], cfg['license'], cfg['num_classes']) == ('drive', 'unknown', 4)


# What the user has in the cache -----------------------------------------------------------------------------------------


def test_what_a_user_has_beside_the_weights_stays(server, cache, theirs, file):
    assert get(PLAIN, '--from', file) == 0
    folder = fetched_folder(PLAIN)
    (folder / 'README.md').write_text('my notes')
    (folder / 'plots').mkdir()
    (folder / 'plots' / 'a.png').write_text('mine')
    before = inside(cache)
    (folder / 'config.json').write_text('{')
    assert get(PLAIN, '--from', file) == 0
    assert inside(cache) == before
    (folder / 'model.safetensors').write_bytes(b'damaged')
    assert get(PLAIN) == 0  # from the server, since what is there is damaged
    assert inside(cache) == before


def test_a_cached_folder_that_is_a_link_stays_one(server, cache, theirs, file, tmp_path):
    folder, disk = fetched_folder(PLAIN), tmp_path / 'disk'
    folder.parent.mkdir(parents=True)
    disk.mkdir()
    folder.symlink_to(disk)
    for _ in range(2):
        assert get(PLAIN, '--from', file) == 0
    assert folder.is_symlink() and set(os.listdir(disk)) == FILES
    check_loads(PLAIN, theirs)


@pytest.mark.parametrize('there', [False, True])
def test_a_killed_get_leaves_nothing_after_the_next(server, cache, theirs, file, there, monkeypatch):
    folder = fetched_folder(PLAIN)
    if there:
        assert get(PLAIN, '--from', file) == 0
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'rmtree', lambda *args, **kwargs: None)  # nothing is cleared on the way out
        patch.setattr(importlib.import_module('timm_3g.publishing.export'), 'write_folder', killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(PLAIN, file)
    assert [path for path in folder.parent.rglob('*') if 'new' in path.name]
    # The marks of this process would be those of a live one.
    for path in [path for path in folder.parent.rglob('*') if 'new' in path.name]:
        path.rename(path.with_name(path.name.replace(str(os.getpid()), str(2**22 + 1))))
    assert get(PLAIN, '--from', file) == 0
    assert inside(cache).keys() == {f'weights/{PLAIN}/{name}' for name in FILES}
    assert not [path for path in folder.parent.rglob('*') if path.is_dir() and path != folder]


def killed(net, folder):
    (folder / 'model.safetensors').write_text('half')
    raise KeyboardInterrupt
