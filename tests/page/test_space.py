"""The page as a Space: what is written, that it runs, and that it reaches the Hub."""

import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from timm_3g.page import export_space
from timm_3g.page.options import SHIPPED
from timm_3g.publishing.front_matter import split_front_matter
from timm_3g_cli import main


def test_what_is_written(tmp_path):
    folder = export_space(tmp_path / 'space', 'me/resnet50_3g.birds')
    front, body = split_front_matter((folder / 'README.md').read_text())
    assert (front['sdk'], front['app_file'], front['models']) == ('gradio', 'app.py', ['me/resnet50_3g.birds'])
    assert front['preload_from_hub'] == front['models'] and front['title'] == 'timm_3g resnet50_3g.birds'
    assert len(front['short_description']) <= 60  # the Hub's limit
    assert re.fullmatch(r'[\d.]+', front['sdk_version']) and 'me/resnet50_3g.birds' in body
    assert yaml.safe_load((folder / 'README.md').read_text().split('---')[1]) == front
    assert 'timm_3g[page]' in (folder / 'requirements.txt').read_text()
    compile((folder / 'app.py').read_text(), 'app.py', 'exec')
    (folder / 'mine.txt').write_text('kept')
    export_space(folder)  # over an earlier export
    front = split_front_matter((folder / 'README.md').read_text())[0]
    assert 'models' not in front and front['title'] == f'timm_3g {SHIPPED}' and (folder / 'mine.txt').exists()


@pytest.mark.parametrize('weights', ['birds', 'a/b/c', "me/x'];import os#", '/x'])
def test_weights_that_are_no_repository(weights, tmp_path):
    with pytest.raises(ValueError, match=r'weights must be ORG/NAME\.TAG'):
        export_space(tmp_path / 'space', weights)
    assert not (tmp_path / 'space').exists()


@pytest.mark.parametrize('name', ['README.md', 'app.py', 'requirements.txt'])
def test_a_users_own_files_are_not_overwritten(name, tmp_path):
    (tmp_path / name).write_text('mine')
    with pytest.raises(ValueError, match=f'{name} exists and is not of an earlier export'):
        export_space(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == 'mine'


def test_options_of_a_page_that_is_served_are_refused(tmp_path, capsys):
    for options in (['--host', '0.0.0.0'], ['--models', 'resnet50_3g.orig_in1k'], ['--share'], ['--port', '80']):
        assert main(['page', '--export', str(tmp_path / 'space'), *options]) == 1
        assert f'{options[0]} is of a page that is served' in capsys.readouterr().err
    assert main(['page', '--weights', 'me/x']) == 1
    assert '--weights belongs to --export' in capsys.readouterr().err


@pytest.mark.slow
def test_app_py_serves(tmp_path, free_port):
    """By `python app.py`, in another folder and a process of its own."""
    assert main(['page', '--export', str(tmp_path / 'space')]) == 0
    environment = {**os.environ, 'GRADIO_SERVER_PORT': free_port, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with subprocess.Popen([sys.executable, 'app.py'], cwd=tmp_path / 'space', env=environment) as process:
        try:
            for _ in range(300):
                assert process.poll() is None
                try:
                    with urllib.request.urlopen(f'http://127.0.0.1:{free_port}/config') as answer:
                        assert SHIPPED in answer.read().decode()
                    break
                except OSError:
                    time.sleep(0.2)
            else:
                pytest.fail('it does not serve')
        finally:
            process.kill()


def test_publish_space(hub, tmp_path, capsys):
    folder = export_space(tmp_path / 'space', 'acme/resnet50_3g.birds')
    publish = ['publish', str(folder), '--repo', 'acme/birds', '--space']
    assert main([*publish, '--dry-run']) == 0 and not hub.requests
    assert main(publish) == 0
    repo = hub.repos['acme/birds']
    assert (repo.type, repo.sdk) == ('space', 'gradio')
    files = repo.commits[repo.refs['main']]['files']
    assert {name: files[name].data for name in files} == {
        name: (folder / name).read_bytes() for name in ('app.py', 'requirements.txt', 'README.md')
    }
    assert 'Space acme/birds: ' in capsys.readouterr().out
    commits = len(repo.commits)
    assert main(publish) == 0 and len(repo.commits) == commits
    assert 'nothing had changed.' in capsys.readouterr().out


def test_what_is_no_space(hub, tmp_path, capsys):
    folder = export_space(tmp_path / 'space')
    for change, message in (
        (['--repo', 'acme'], '--repo must be ORG/NAME'),
        (['--repo', 'acme/a b'], '--repo must be ORG/NAME'),
        (['--repo', 'acme/x', '--create-pr', '--tag', 'v1'], '--create-pr opens a pull request against main'),
        (['--repo', 'acme/x', '--num-classes', '0'], '--num-classes is of weights, and a Space has none'),
        (['--repo', 'acme/x', '--no-ema'], '--no-ema is of weights, and a Space has none'),
        (['--repo', 'acme/x', '--img-size', '5'], '--img-size is of weights, and a Space has none'),
    ):
        assert main(['publish', str(folder), '--space', *change]) == 1
        assert message in capsys.readouterr().err
    (folder / 'README.md').write_text('# A page\n')
    assert main(['publish', str(folder), '--space', '--repo', 'acme/x']) == 1
    assert 'must say sdk: gradio' in capsys.readouterr().err
    (folder / 'app.py').unlink()
    assert main(['publish', str(folder), '--space', '--repo', 'acme/x']) == 1
    assert 'app.py does not exist' in capsys.readouterr().err and not hub.repos
