"""`timm_3g.publishing` from Python: options by name, by position or as an object; typed results."""

import inspect
import os
import shutil
from pathlib import Path

import pytest
import timm
import torch
from common import SMALL

from timm_3g.__main__ import main
from timm_3g.publishing import (
    ExportFolder,
    ExportOptions,
    GetOptions,
    PublishOptions,
    export,
    get,
    open_folder,
    publish,
    write_card,
)

NAME = f'{SMALL}.cifar10'
REPO = f'acme/{NAME}'
WEIGHTS = Path(timm.get_pretrained_cfg(NAME).file)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # away from hub/
    return Path(shutil.copytree(WEIGHTS.parent, tmp_path / 'folder'))


def test_options_by_position_by_name_and_as_an_object(tmp_path):
    given = (
        export(WEIGHTS, NAME, 10, tmp_path / 'a'),
        export(checkpoint=str(WEIGHTS), model=NAME, output=str(tmp_path / 'b')),
        export(ExportOptions(WEIGHTS, NAME, output=tmp_path / 'c')),
    )
    assert [folder.path.name for folder in given] == ['a', 'b', 'c']
    assert len({(folder.name, folder.sha256, folder.card) for folder in given}) == 1
    assert list(inspect.signature(export).parameters)[:4] == ['checkpoint', 'model', 'num_classes', 'output']
    with pytest.raises(TypeError, match=r"export has no option 'ouput'\. Did you mean 'output'\?"):
        export(WEIGHTS, ouput='x')


def test_an_exported_folder_is_a_value_and_a_path(tmp_path):
    made = export(WEIGHTS, NAME, output=tmp_path / 'a')
    assert open_folder(made) == made == open_folder(tmp_path / 'a') and os.fspath(made) == str(tmp_path / 'a')
    assert made.files['config.json'] == (tmp_path / 'a' / 'config.json').read_bytes()
    assert made.card == (tmp_path / 'a' / 'README.md').read_text()
    assert isinstance(made, ExportFolder) and 'pretrained_cfg' not in repr(made)
    with pytest.raises(AttributeError):
        made.path = tmp_path


def test_published(hub, folder):
    first = publish(folder, REPO, tag='v1')
    repo = hub.repos[REPO]
    assert (first.commit, first.revision) == (repo.refs['main'], 'v1') and first.commit in first.url
    assert first.sha256 == open_folder(folder).sha256 and first.license == 'apache-2.0'
    for name, size in first.files.items():
        assert size == len(repo.commits[first.commit]['files'][name].data)
    again = publish(PublishOptions(folder, REPO))
    assert (again.commit, again.url, again.revision) == (first.commit, '', '')
    (folder / 'notes.txt').write_text('mine')
    request = publish(folder, REPO, create_pr=True, license='apache-2.0', message='Rewritten', replace_text=True)
    assert request.not_pushed == ('notes.txt',) and repo.refs['main'] == first.commit
    assert publish(folder, REPO, revision='next').revision == 'next'


def test_a_dry_run_has_no_commit(hub, folder):
    would = publish(folder, REPO, dry_run=True)
    assert (would.commit, would.url) == ('', '') and set(would.files) == {file.name for file in folder.iterdir()}
    assert not hub.requests


def test_got():
    fetched = get(GetOptions(NAME))
    assert (fetched.key, fetched.folder, fetched.state, fetched.license) == (NAME, WEIGHTS.parent, 'shipped', 'apache-2.0')


def test_write_card_says_where(folder):
    assert write_card(str(folder), repo='acme/other') == folder / 'README.md'
    assert write_card(open_folder(folder), repo='acme/other').read_text().count("'hf-hub:acme/other'") == 3


@pytest.mark.parametrize(
    ('option', 'value', 'message'),
    [
        ('img_size', 0, 'must be positive; got 0.'),
        ('interpolation', 'cubic', "must be one of bilinear, bicubic, nearest, lanczos, box, hamming, random; got 'cubic'."),
        ('mean', [0.5, 0.5], 'must have 1 or 3 numbers; got 2.'),
    ],
)
def test_errors_name_options_as_the_caller_does(tmp_path, option, value, message, capsys):
    with pytest.raises(ValueError) as raised:
        export(WEIGHTS, NAME, output=tmp_path / 'a', **{option: value})
    assert str(raised.value) == f'{option} {message}'
    values = map(str, value if isinstance(value, list) else [value])
    name = f'--{option.replace("_", "-")}'
    assert main(['export', str(WEIGHTS), '--output', str(tmp_path / 'a'), name, *values]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == f'timm-3g export: {name} {message}'
    assert not list(tmp_path.iterdir())


def test_how_images_are_prepared_is_recorded(tmp_path):
    options = {'img_size': 64, 'mean': [0.5], 'std': (0.1, 0.2, 0.3), 'interpolation': 'bilinear', 'crop_pct': 0.9}
    cfg = export(WEIGHTS, NAME, output=tmp_path / 'a', **options).config['pretrained_cfg']
    assert cfg['input_size'] == [3, 64, 64] and cfg['mean'] == [0.5, 0.5, 0.5] and cfg['std'] == [0.1, 0.2, 0.3]
    assert cfg['interpolation'] == 'bilinear' and cfg['crop_pct'] == 0.9
    with torch.no_grad():
        assert timm.create_model(f'local-dir:{tmp_path / "a"}', pretrained=True).eval()(torch.zeros(1, 3, 64, 64)).shape == (
            1,
            10,
        )
