"""Files of strangers and of the user's: links, modes, what killed processes leave, servers that lie, cards that pretend."""

import json
import os
import shutil
import stat
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from urllib.request import Request

import pytest
import timm
import torch
import yaml
from common import SMALL
from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from timm_3g.__main__ import main
from timm_3g.checkpoints import sha256_of
from timm_3g.inference.results import append_row, read_rows
from timm_3g.models.loading import create_loaded
from timm_3g.publishing import check_folder as _check
from timm_3g.publishing import push as _push
from timm_3g.publishing.card_facts import REQUIRED
from timm_3g.publishing.folder import open_folder
from timm_3g.publishing.write_folder import new_folder
from timm_3g.training import timm_scripts as _timm_scripts
from timm_3g.utils import download as _download
from timm_3g.utils.download import download
from timm_3g.utils.files import require_writable, require_writable_folder, write_text
from timm_3g.utils.lock import locked
from timm_3g.utils.temporary import start_of, sweep

SHIPPED = Path(timm.get_pretrained_cfg(f'{SMALL}.cifar10').file).parent
FACTS = {**dict.fromkeys(REQUIRED), 'license': 'mit'}


# Files ------------------------------------------------------------------------------------------------------------------


def test_mode_and_link_of_a_file_stay(tmp_path):
    file, link = tmp_path / 'store' / 'a.txt', tmp_path / 'a.txt'
    write_text(file, 'one')
    file.chmod(0o600)
    link.symlink_to(file)
    write_text(link, 'two')
    assert link.is_symlink() and file.read_text() == 'two' and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(file.parent) == ['a.txt']


def test_a_planted_link_is_not_followed(tmp_path):
    victim, file = tmp_path / 'victim', tmp_path / 'a.txt'
    victim.write_text('mine')
    (tmp_path / f'.a.txt.{os.getpid()}').symlink_to(victim)
    (tmp_path / start_of('a.txt')).symlink_to(victim)
    write_text(file, 'new')
    assert victim.read_text() == 'mine' and file.read_text() == 'new'


def test_names_near_the_limit_of_the_file_system(tmp_path):
    file = tmp_path / ('ä' * 120 + '.txt')
    write_text(file, 'new')
    assert file.read_text() == 'new'


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, '-c', ''])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_swept(tmp_path, dead):
    old = start_of('out').replace(str(os.getpid()), str(dead))
    (tmp_path / f'{old}abc').mkdir()
    (tmp_path / f'{old}abc' / 'model.safetensors').write_text('half')
    (tmp_path / f'{old}file').write_text('half')
    (tmp_path / f'{start_of("out")}alive').mkdir()
    (tmp_path / '.out.notes').write_text('mine')
    (tmp_path / f'{old}link').symlink_to(tmp_path / '.out.notes')
    sweep(tmp_path, 'out')
    assert sorted(os.listdir(tmp_path)) == sorted(['.out.notes', f'{start_of("out")}alive'])
    assert (tmp_path / '.out.notes').read_text() == 'mine'


def test_a_folder_sweeps_before_it_is_made(tmp_path, dead):
    (tmp_path / f'{start_of("out").replace(str(os.getpid()), str(dead))}abc').mkdir()
    with new_folder(tmp_path / 'out'):
        pass
    assert os.listdir(tmp_path) == ['out']
    (tmp_path / 'gone').symlink_to(tmp_path / 'nowhere')
    with pytest.raises(FileExistsError), new_folder(tmp_path / 'gone'):
        pass


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path):
    with pytest.raises(FileExistsError, match='has appeared meanwhile, and is kept'), new_folder(tmp_path / 'out'):
        (tmp_path / 'out').mkdir()
    assert os.listdir(tmp_path) == ['out']


def test_an_unwritable_place_is_named_before_the_work(tmp_path):
    (tmp_path / 'plain').write_text('x')
    for file in (tmp_path / 'plain' / 'r.csv', tmp_path, tmp_path / ('L' * 300), Path('/dev/null')):
        with pytest.raises(OSError, match=r'cannot be written: .* Name another'):
            require_writable(file)
    with pytest.raises(NotADirectoryError, match='plain is not a folder'):
        require_writable_folder(tmp_path / 'plain' / 'new')
    require_writable(tmp_path / 'new' / 'deep' / 'r.csv')
    assert os.listdir(tmp_path) == ['plain']


def test_who_waits_says_so(tmp_path, capsys):
    with locked(tmp_path / 'a'):
        pass
    assert not capsys.readouterr().err
    lock = FileLock(tmp_path / 'a.lock', thread_local=False)
    lock.acquire()

    class Err:
        def write(self, text):
            said.append(text)
            lock.release()

        def flush(self):
            pass

    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'stderr', Err())
        with locked(tmp_path / 'a'):
            pass
    assert 'waiting for another process' in said[0]


def test_results_that_are_no_csv(tmp_path):
    file = tmp_path / 'r.csv'
    for content in (b'x' * 200_000, b'\xff\xfe'):
        file.write_bytes(content)
        with pytest.raises(ValueError, match='is not a CSV of results'):
            read_rows(file)
        with pytest.raises(ValueError, match='is not a CSV of results'):
            append_row(file, None)
        assert file.read_bytes() == content


# Curves -----------------------------------------------------------------------------------------------------------------


def curves(folder, *rows):
    folder.mkdir(exist_ok=True)
    (folder / 'summary.csv').write_text('\n'.join(['epoch,train_loss,eval_loss,eval_top1', *rows]) + '\n')
    return main(['curves', str(folder), '--output', str(folder / 'new' / 'c.png')])


def test_curves_take_the_epochs_of_the_file(tmp_path, capsys):
    assert curves(tmp_path / 'a', '4,1,1,50', '6,1,1,70', '5,2,2,nan', '7,1,1,40') == 0  # resumed from 4
    assert 'a: 3 epochs, last 40.00 %, best 50.00 % after epoch 5' in capsys.readouterr().out
    assert curves(tmp_path / 'a', '0,1,1,nan') == 0
    assert 'a: 1 epoch, no accuracy is a number' in capsys.readouterr().out


@pytest.mark.parametrize('rows', [[], ['-1,1,1,1'], ['x,1,1,1'], ['0,' + '9' * 200_000 + ',1,1'], ['0,1']])
def test_curves_of_no_run(tmp_path, capsys, rows):
    assert curves(tmp_path / 'a', *rows) == 1
    err = capsys.readouterr().err
    assert 'is no summary of train.py' in err and err.count('\n') == 1


def test_curves_look_at_their_output_first(tmp_path, capsys):
    (tmp_path / 'plain').write_text('x')
    assert main(['curves', str(tmp_path / 'nowhere'), '--output', str(tmp_path / 'plain' / 'c.png')]) == 1
    assert 'plain is not a folder' in capsys.readouterr().err


def test_curves_of_a_file_that_a_spreadsheet_saved(tmp_path, capsys):
    file = tmp_path / 'summary.csv'
    file.write_bytes('epoch,train_loss,eval_loss,eval_top1\r\n0,1,1,5\r\n'.encode('utf-8-sig'))
    assert main(['curves', str(tmp_path), '--output', str(tmp_path / 'c.png')]) == 0
    assert '1 epoch, last 5.00 %' in capsys.readouterr().out


# Cards and folders ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from hub/
    return Path(shutil.copytree(SHIPPED, tmp_path / 'folder'))


def refused(capsys, folder, *more, verb='publish'):
    """The one line of a refusal."""
    options = ['--repo', f'acme/{SMALL}.x', '--dry-run'] if verb == 'publish' else []
    assert main([verb, str(folder), *options, *map(str, more)]) == 1
    out, err = capsys.readouterr()
    last = err.splitlines()[-1]
    assert not out and last.startswith(f'timm-3g {verb}: ')
    return last


@pytest.mark.parametrize('name', ['README.md', 'model.safetensors', 'config.json', 'golden.safetensors'])
def test_a_link_out_of_the_folder_is_not_pushed(folder, tmp_path, capsys, name):
    (folder / name).rename(tmp_path / 'elsewhere')
    (folder / name).symlink_to(tmp_path / 'elsewhere')
    error = refused(capsys, folder)
    assert f'{name} is a link to' in error and 'outside the folder' in error


def test_a_link_inside_the_folder_is_a_file(folder):
    (folder / 'README.md').rename(folder / 'card.md')
    (folder / 'README.md').symlink_to('card.md')
    assert main(['publish', str(folder), '--repo', f'acme/{SMALL}.x', '--dry-run']) == 0


def test_a_card_behind_a_link(folder, tmp_path, capsys):
    card, other = tmp_path / 'card.md', tmp_path / 'private'
    (folder / 'README.md').rename(card)
    (folder / 'README.md').symlink_to(card)
    assert main(['card', str(folder), '--repo', 'acme/one']) == 0
    assert (folder / 'README.md').is_symlink() and 'hf-hub:acme/one' in card.read_text()
    capsys.readouterr()
    other.write_text('secret')
    (folder / 'README.md').unlink()
    (folder / 'README.md').symlink_to(other)
    assert 'which is not a card of timm_3g' in refused(capsys, folder, verb='card') and other.read_text() == 'secret'


@pytest.mark.parametrize('name', ['app.py', 'requirements.txt', 'README.md'])
def test_a_link_out_of_the_folder_of_a_space_is_not_pushed(tmp_path, capsys, name):
    space = tmp_path / 'space'
    space.mkdir()
    for file in ('app.py', 'requirements.txt', 'README.md'):
        (space / file).write_text('---\nsdk: gradio\n---\n')
    (space / name).rename(tmp_path / 'elsewhere')
    (space / name).symlink_to(tmp_path / 'elsewhere')
    assert f'{name} is a link to' in refused(capsys, space, '--space')


def test_a_card_of_other_weights_is_not_pushed(folder, capsys):
    readme = folder / 'README.md'
    sha256 = json.loads((folder / 'config.json').read_text())['sha256']
    readme.write_text(readme.read_text().replace(sha256, 'f' * 64))
    assert 'is of other weights: it says sha256 fff' in refused(capsys, folder)


@pytest.mark.parametrize('sha256', [None, '', 'abc', 5, ['x']])
def test_a_sha256_that_is_none(folder, capsys, sha256):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'sha256': sha256}))
    assert 'has no sha256' in refused(capsys, folder)


@pytest.mark.parametrize('config', ['[]', '5', 'null', '{}', '{"architecture": "x", "pretrained_cfg": []}'])
def test_a_config_that_is_none(folder, capsys, config):
    (folder / 'config.json').write_text(config)
    assert 'config.json is damaged' in refused(capsys, folder, verb='card')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'mean': [float('nan'), 0, 0]}, 'NaN is not a number in JSON'),
        ({'crop_pct': float('inf')}, 'Infinity is not a number in JSON'),
        ({'std': [0.0, 1.0, 1.0]}, 'std must be finite and positive'),
        ({'std': [1.0, -1.0, 1.0]}, 'std must be finite and positive'),
        ({'mean': [10**400, 0, 0]}, 'has mean='),
        ({'crop_pct': 10**400}, 'crop_pct must be finite and positive'),
        ({'input_size': [3, 32.0, 32.0]}, 'has input_size='),
        ({'tag': 'x\n<!-- timm_3g: end -->'}, 'architecture and tag must be letters'),
        ({'tag': "x', pretrained=True); import os #"}, 'architecture and tag must be letters'),
        ({'tag': 5}, 'architecture and tag must be letters'),
    ],
)
def test_a_config_with_numbers_that_are_none(folder, capsys, change, message):
    config = json.loads((folder / 'config.json').read_text())
    config['pretrained_cfg'] |= change
    (folder / 'config.json').write_text(json.dumps(config))
    assert message in refused(capsys, folder)


def test_a_licence_that_the_folder_contradicts(folder, capsys):
    for verb in ('card', 'publish'):
        assert 'says license: apache-2.0, and --license says mit' in refused(capsys, folder, '--license', 'mit', verb=verb)
    (folder / 'README.md').unlink()
    for verb in ('card', 'publish'):  # config.json states it, too
        assert 'says license: apache-2.0, and the card would say mit' in refused(capsys, folder, '--license', 'mit', verb=verb)
    assert main(['card', str(folder)]) == 0 and 'license: apache-2.0\n' in (folder / 'README.md').read_text()


def test_names_that_a_terminal_would_obey(folder, capsys):
    (folder / 'a\x1b]0;b').write_text('x')
    assert main(['publish', str(folder), '--repo', f'acme/{SMALL}.x', '--dry-run']) == 0
    assert 'Not pushed: a\\x1b]0;b\n' in capsys.readouterr().out


def test_a_config_that_says_something_twice(folder, capsys):
    config = folder / 'config.json'
    config.write_text(config.read_text().replace('"architecture":', '"architecture": "resnet50_3g", "architecture":', 1))
    assert "it has 'architecture' twice" in refused(capsys, folder)
    assert "it has 'architecture' twice" in refused(capsys, folder, verb='card')


def test_a_published_folder_has_sound_weights(folder, capsys):
    state, config = load_file(folder / 'model.safetensors'), json.loads((folder / 'config.json').read_text())
    with safe_open(folder / 'model.safetensors', 'pt') as stream:
        header = stream.metadata()
    state['bn1.running_var'][0] = float('inf')  # its logits are finite
    save_file(state, folder / 'model.safetensors', metadata=header)
    (folder / 'config.json').write_text(json.dumps({**config, 'sha256': sha256_of(folder / 'model.safetensors')}))
    assert 'these are not: bn1.running_var.' in refused(capsys, folder)


@pytest.mark.parametrize(
    ('images', 'logits'),
    [
        (torch.zeros(0, 3, 32, 32), torch.zeros(0, 10)),
        (torch.zeros(2, 3, 32, 32), torch.zeros(2, 10)),
        (torch.zeros(1, 3, 32, 32), torch.zeros(1, 10).double()),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 10)),
        (torch.zeros(1, 3, 32, 32), torch.zeros(10)),
        (torch.zeros(1, 3, 32, 32), torch.zeros(())),
        (torch.zeros(1, 3, 32, 32), torch.full((1, 10), torch.nan)),
        (torch.full((1, 3, 32, 32), torch.inf), torch.zeros(1, 10)),
        (torch.zeros(1, 3, 32, 32).int(), torch.zeros(1, 10)),
    ],
)
def test_a_golden_pair_that_proves_nothing(folder, capsys, images, logits):
    save_file({'input': images, 'logits': logits}, folder / 'golden.safetensors')
    assert 'golden.safetensors must hold finite float32 numbers' in refused(capsys, folder)


def test_a_golden_pair_is_a_pair(folder, capsys):
    golden = load_file(folder / 'golden.safetensors')
    for content in ({**golden, 'more': torch.zeros(1)}, {'input': golden['input']}):
        save_file(content, folder / 'golden.safetensors')
        assert 'must hold input and logits, and nothing else' in refused(capsys, folder)


def test_a_card_that_is_no_file(folder, tmp_path, capsys):
    (folder / 'README.md').unlink()
    os.mkfifo(folder / 'README.md')
    assert 'README.md must be a regular file' in refused(capsys, folder, verb='card')
    assert 'README.md must be a regular file' in refused(capsys, folder)
    (folder / 'README.md').unlink()
    for source in ('/dev/zero', tmp_path):
        assert 'must be a regular file' in refused(capsys, folder, '--card', source, verb='card')


@pytest.mark.parametrize(
    ('facts', 'prose', 'message'),
    [
        ({}, 'one <!-- timm_3g: end of prose --> two', 'are the marks of a card'),
        ({}, 'one <!--timm_3g: begin', 'are the marks of a card'),
        ({'known_faults': ['a <!-- timm_3g: end --> b']}, '', 'are the marks of a card'),
        ({'recipe': 'a\x1b[31m'}, '', 'control characters'),
        ({}, 'a\x9b31m', 'control characters'),
        ({'license': None}, '', 'license must be'),
        ({'license': ['mit']}, '', 'license must be'),
        ({'metrics': [1]}, '', 'a metric has'),
        ({'metrics': [{'dataset': 'x', 'top1': float('nan'), 'measured_by': 'us'}]}, '', 'a metric has'),
        ({'metrics': [{'dataset': 'x', 'top1': 10**400, 'measured_by': 'us'}]}, '', 'a metric has'),
        ({'metrics': [{'dataset': {}, 'top1': 1, 'measured_by': 'us'}]}, '', 'a metric has'),
        ({'datasets': [{'a': 1}]}, '', 'datasets must be a list of text'),
        ({'hours': {}}, '', 'hours must be text'),
        ({5: 'x'}, '', 'unknown facts: 5'),
    ],
)
def test_a_source_that_is_none(folder, tmp_path, capsys, facts, prose, message):
    source, before = tmp_path / 's.md', (folder / 'README.md').read_bytes()
    source.write_bytes(f'---\n{yaml.safe_dump({**FACTS, **facts}, allow_unicode=True)}---\n{prose}'.encode())
    assert message in refused(capsys, folder, '--card', source, verb='card')
    assert (folder / 'README.md').read_bytes() == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'timm_3g': [1]}, 'must map names to values'),
        ({'timm_3g': {'metrics': [1]}}, 'a metric has'),
        ({'timm_3g': {'seeds': 5}}, 'seeds must be a list'),
        ({'license': 5}, 'license must be'),
        ({'datasets': 'birds'}, 'datasets must be a list'),
    ],
)
def test_a_card_with_other_types(folder, capsys, change, message):
    _, front, body = (folder / 'README.md').read_text().split('---\n', 2)
    (folder / 'README.md').write_text(f'---\n{yaml.safe_dump({**yaml.safe_load(front), **change})}---\n{body}')
    assert message in refused(capsys, folder) and message in refused(capsys, folder, verb='card')


def test_a_card_without_a_licence_is_published_as_unknown(folder, capsys):
    readme = folder / 'README.md'
    readme.write_text(readme.read_text().replace('license: apache-2.0\n', '', 1))
    assert 'states no one licence' in refused(capsys, folder)  # config.json and the text of the card do
    readme.write_text(readme.read_text().replace('**Licence:** apache-2.0', '**Licence:** unknown', 1))
    config = json.loads((folder / 'config.json').read_text())
    del config['pretrained_cfg']['license']
    (folder / 'config.json').write_text(json.dumps(config))
    assert main(['publish', str(folder), '--repo', f'acme/{SMALL}.x', '--dry-run']) == 0
    assert 'The card states no licence' in capsys.readouterr().out


# Servers ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch):
    """A server whose `answer(handler)` a test sets; `asked`: (Range, If-Range) of the requests."""
    monkeypatch.setattr(_download.time, 'sleep', lambda seconds: None)
    monkeypatch.setattr(_download, 'TIMEOUT', 0.3)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            http.asked.append((self.headers['Range'], self.headers['If-Range']))
            http.answer(self)

    http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    http.daemon_threads = True
    http.handle_error = lambda *args: None
    http.asked, http.url = [], f'http://127.0.0.1:{http.server_port}'
    Thread(target=http.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def send(handler, body, status=200, length=None, **headers):
    handler.send_response(status)
    headers = {'Content-Length': len(body) if length is None else length, **headers}
    for name, value in headers.items():
        handler.send_header(name.replace('_', '-'), str(value))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.mark.parametrize('tag', ['"one"', 'Mon, 23 Nov 2026 10:00:00 GMT'])
@pytest.mark.parametrize('same', [True, False])
def test_a_part_is_continued_with_the_same_version_alone(server, tmp_path, tag, same):
    old, new = b'a' * 1000, b'b' * 1000
    name = 'ETag' if tag.startswith('"') else 'Last-Modified'
    server.answer = lambda h: send(h, old[:400], length=1000, **{name: tag}) if not h.headers['Range'] else h.send_error(503)
    with pytest.raises(OSError, match='503'):
        download(f'{server.url}/a', tmp_path / 'a.pth')
    assert (tmp_path / 'a.part').read_bytes() == old[:400] and not (tmp_path / 'a.pth').exists()

    def answer(h):
        if same and h.headers['If-Range'] == tag:
            send(h, old[400:], 206, Content_Range='bytes 400-999/1000')
        else:
            send(h, new, **{name: tag.replace('o', 'x')})

    server.answer = answer
    download(f'{server.url}/a', tmp_path / 'a.pth')
    assert server.asked[-1] == ('bytes=400-', tag)
    assert (tmp_path / 'a.pth').read_bytes() == (old if same else new) and os.listdir(tmp_path) == ['a.pth']


def test_a_server_that_ignores_if_range(server, tmp_path):
    (tmp_path / 'a.part').write_bytes(b'a' * 400)
    (tmp_path / 'a.version').write_text('"one"')
    new = b'b' * 1000
    server.answer = lambda h: (
        send(h, new[400:], 206, ETag='"two"', Content_Range='bytes 400-999/1000') if h.headers['Range'] else send(h, new)
    )
    download(f'{server.url}/a', tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').read_bytes() == new


def test_a_part_of_no_version_is_thrown_away(server, tmp_path):
    (tmp_path / 'a.part').write_bytes(b'a' * 400)
    server.answer = lambda h: send(h, b'b' * 1000)
    download(f'{server.url}/a', tmp_path / 'a.pth')
    assert server.asked == [(None, None)] and (tmp_path / 'a.pth').read_bytes() == b'b' * 1000


def test_a_server_that_sends_less_than_was_asked_for(server, tmp_path):
    whole = bytes(range(250)) * 4
    (tmp_path / 'a.part').write_bytes(whole[:300])
    (tmp_path / 'a.version').write_text('"one"')

    def answer(h):
        start = int(h.headers['Range'].removeprefix('bytes=').removesuffix('-'))
        send(h, whole[start : start + 100], 206, Content_Range=f'bytes {start}-{start + 99}/1000', ETag='"one"')

    server.answer = answer
    download(f'{server.url}/a', tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').read_bytes() == whole and len(server.asked) == 7


def test_too_long_a_length_without_ranges_is_given_up(server, tmp_path):
    server.answer = lambda h: send(h, b'a' * 1000, length=1001)
    with pytest.raises(OSError, match=r'1,000 of 1,001 bytes arrived'):
        download(f'{server.url}/a', tmp_path / 'a.pth')
    assert len(server.asked) <= 7 and not (tmp_path / 'a.pth').exists()


@pytest.mark.parametrize('length', [-5, 'many', '10' + '0' * 17])
def test_lengths_that_cannot_be(server, tmp_path, length):
    server.answer = lambda h: send(h, b'a', length=length)
    with pytest.raises(OSError, match=r'the server announces'):
        download(f'{server.url}/a', tmp_path / 'a.pth')
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    'garbage', [b'xx\r\n', b'', b'HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n', b'HTTP/1.1 999999 X\r\n\r\n']
)
def test_a_script_server_that_talks_nonsense(server, tmp_path, monkeypatch, garbage):
    monkeypatch.setattr(_timm_scripts, 'cache_root', lambda: tmp_path)
    monkeypatch.delenv(_timm_scripts.ENV, raising=False)
    server.answer = lambda h: (h.wfile.write(garbage), h.wfile.flush(), h.rfile.read(1) if b'9999\r' in garbage else None)
    with pytest.raises(OSError, match='could not be fetched'):
        _timm_scripts.find_script('train.py', url=server.url)
    server.answer = lambda h: send(h, b'<html>for sale</html>')
    with pytest.raises(OSError, match='is not the pinned file'):
        _timm_scripts.find_script('train.py', url=server.url)
    assert not _timm_scripts.is_pinned(_timm_scripts.cache_dir() / 'train.py')


@pytest.mark.parametrize('url', ['http://example.com/a', 'ftp://example.com/a', 'HTTP://example.com/a'])
def test_https_is_not_left(url):
    secure, plain = Request('https://example.com/a'), Request('http://example.com/a')
    with pytest.raises(OSError, match=r'which is not https\. The redirect is not followed'):
        _download.Redirects().redirect_request(secure, None, 302, '', {}, url)
    assert _download.Redirects().redirect_request(secure, None, 302, '', {}, 'https://example.com/b')
    assert _download.Redirects().redirect_request(plain, None, 302, '', {}, 'http://example.com/b')


def test_redirects_go_through_the_handler(server, tmp_path, monkeypatch):
    asked = []

    class Watched(_download.Redirects):
        def redirect_request(self, req, fp, code, msg, headers, newurl):
            asked.append(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    monkeypatch.setattr(_download, 'Redirects', Watched)
    server.answer = lambda h: send(h, b'', 302, Location='/b') if h.path == '/a' else send(h, b'whole')
    download(f'{server.url}/a', tmp_path / 'a.pth')
    assert (tmp_path / 'a.pth').read_bytes() == b'whole' and asked == [f'{server.url}/b']


@pytest.mark.parametrize('drops', [False, True])
def test_a_server_that_drips_is_given_up(server, tmp_path, monkeypatch, drops):
    """A byte now and then, in one answer or in one each: each shows that the server is there, and the file never comes."""
    monkeypatch.setattr(_download, 'PATIENCE', 0.2)
    sleep = Event().wait

    def answer(h):
        start = int((h.headers['Range'] or 'bytes=0-')[6:-1])
        headers = {'ETag': '"one"', 'Content_Range': f'bytes {start}-9999/10000'}
        send(h, b'a', 206 if start else 200, length=10000 - start, **headers)
        while not drops:
            sleep(0.02)
            h.wfile.write(b'a')
            h.wfile.flush()

    server.answer = answer
    monkeypatch.setattr(_download.time, 'sleep', lambda seconds: sleep(0.02))
    with pytest.raises(OSError, match=r'only [\d]+ bytes arrived in'):
        download(f'{server.url}/a', tmp_path / 'a.pth')
    assert 0 < (tmp_path / 'a.part').stat().st_size < 1000


@pytest.mark.parametrize('name', ['config.json', 'golden.safetensors', 'model.safetensors'])
def test_a_file_that_changes_while_it_is_checked_is_not_sent(folder, capsys, monkeypatch, name):
    def check(opened):
        (folder / name).write_bytes((folder / name).read_bytes() + b' ')
        return net

    net = _check.check_folder(open_folder(folder))
    monkeypatch.setattr(_check, 'check_folder', check)
    assert f'{name} was changed while it was checked. Nothing was pushed' in refused(capsys, folder)


def test_a_file_that_changes_after_the_check_is_not_what_is_sent(folder):
    before = {name: (folder / name).read_bytes() for name in ('config.json', 'golden.safetensors')}
    opened, _ = _check.open_checked(folder)
    for name in before:
        (folder / name).write_bytes(b'other')
    files = _push._operations(opened, opened.card)
    assert {file.path_in_repo: file.path_or_fileobj for file in files if file.path_in_repo in before} == before


@pytest.mark.parametrize('text', ['\x1b[2J', 'a\x9b31m', '\x00', '\x07'])
def test_text_by_hand_has_no_control_characters(folder, capsys, text):
    readme = folder / 'README.md'
    readme.write_text(f'{readme.read_text()}\nMy notes {text}\n')
    before = readme.read_bytes()
    assert 'contains the control character' in refused(capsys, folder)
    said = refused(capsys, folder, verb='card')
    assert 'contains the control character' in said and '--replace-text' not in said and readme.read_bytes() == before


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'pretrained_cfg': None}, ''),
        ({'label_names': 5}, 'has label_names=5'),
        ({'label_names': [['cat']] * 10}, 'has label_names='),
        ({'label_names': list(range(10))}, 'has label_names='),
        ({'num_classes': '10'}, "num_classes must be an integer; got '10'"),
        ({'pretrained_cfg': {'num_classes': '10'}}, "num_classes must be an integer; got '10'"),
    ],
)
def test_a_config_of_other_types(tmp_path, change, message):
    shutil.copy(SHIPPED / 'model.safetensors', tmp_path)
    config = json.loads((SHIPPED / 'config.json').read_text())
    (tmp_path / 'config.json').write_text(json.dumps({**config, **change}))
    if not message:
        assert create_loaded(SMALL, tmp_path / 'model.safetensors').num_classes == 10
        return
    with pytest.raises(ValueError, match=message):
        create_loaded(SMALL, tmp_path / 'model.safetensors')
