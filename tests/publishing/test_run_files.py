"""`--with-run`: args.yaml and summary.csv of a run travel with its weights, without the folders of whoever trained."""

import os
import shutil

import pytest
import timm
import torch
import yaml
from common import SMALL

from timm_3g.__main__ import main
from timm_3g.publishing import export
from timm_3g.publishing.run_files import _without_folders

REPO = f'acme/{SMALL}.birds'
ARGUMENTS = {
    'data_dir': '/home/ann/birds',
    'initial_checkpoint': 'C:\\runs\\first.pth',
    'val_split': 'val/held',
    'scale': [0.6, 1.0],
    'model_kwargs': {'head_init': 'orig', 'backbone': '/nets/cub'},
    'mean': None,
}
SUMMARY = 'epoch,train_loss,eval_top1\n0,1.5,61.25\n'


@pytest.fixture
def checkpoint(tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'args.yaml').write_text(yaml.safe_dump(ARGUMENTS))
    (run / 'summary.csv').write_text(SUMMARY)
    torch.manual_seed(3)
    torch.save(timm.create_model(SMALL, num_classes=4).state_dict(), run / 'last.pth')
    return run / 'last.pth'


def names(folder):
    return {file.name for file in folder.iterdir()}


def test_the_run_travels_with_the_weights(hub, checkpoint, tmp_path, capsys):
    folder = tmp_path / 'out'
    assert main(['export', str(checkpoint), '--model', f'{SMALL}.birds', '--with-run', '--output', str(folder)]) == 0
    assert 'args.yaml' in capsys.readouterr().out
    assert yaml.safe_load((folder / 'args.yaml').read_text()) == {
        **ARGUMENTS,
        'data_dir': 'birds',
        'initial_checkpoint': 'first.pth',
        'model_kwargs': {'head_init': 'orig', 'backbone': 'cub'},
    }
    assert (folder / 'summary.csv').read_text() == SUMMARY
    assert '- **Run:** [args.yaml](args.yaml), [summary.csv](summary.csv)' in (folder / 'README.md').read_text()

    assert main(['publish', str(folder), '--repo', REPO]) == 0
    there = hub.repos[REPO].commits[hub.repos[REPO].sha('main')]['files']
    assert there.keys() == names(folder) and there['summary.csv'].data == SUMMARY.encode()


def test_the_summary_of_a_resumed_run_has_one_header(checkpoint, tmp_path):
    header = SUMMARY.splitlines(keepends=True)[0]
    (checkpoint.parent / 'summary.csv').write_text(f'{SUMMARY}{header}1,1.25,63.5\n')  # train.py appends both
    export(checkpoint, SMALL, tag='birds', with_run=True, output=tmp_path / 'out')
    assert (tmp_path / 'out' / 'summary.csv').read_text() == f'{SUMMARY}1,1.25,63.5\n'


def test_a_run_stays_at_home_unless_asked_for(checkpoint, tmp_path):
    folder = export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'out').path
    assert names(folder) == {'model.safetensors', 'config.json', 'golden.safetensors', 'README.md'}
    assert 'args.yaml' not in (folder / 'README.md').read_text()


@pytest.mark.parametrize('missing', ['args.yaml', 'summary.csv'])
def test_a_run_that_is_not_there(checkpoint, tmp_path, missing):
    (checkpoint.parent / missing).unlink()
    with pytest.raises(FileNotFoundError, match=rf'as train.py leaves them; missing: {missing}\.'):
        export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'out', with_run=True)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('args.yaml', b'[1, 2]', 'must be a mapping of options'),
        ('args.yaml', b'a: [', 'cannot be read: expected the node content'),
        ('args.yaml', b'\xff', 'cannot be read: .*utf-8'),
        ('summary.csv', b'\xff', 'cannot be read: .*utf-8'),
    ],
)
def test_a_run_that_is_damaged(checkpoint, tmp_path, name, content, message):
    (checkpoint.parent / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'out', with_run=True)
    assert not (tmp_path / 'out').exists()


def test_a_link_out_of_the_folder_is_not_pushed(hub, checkpoint, tmp_path, capsys):
    folder = export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'out', with_run=True).path
    (folder / 'args.yaml').unlink()
    os.symlink(shutil.copy(checkpoint.parent / 'args.yaml', tmp_path / 'private.yaml'), folder / 'args.yaml')
    assert main(['publish', str(folder), '--repo', REPO]) == 1
    assert 'outside the folder, and is not read' in capsys.readouterr().err and not hub.requests


def test_what_somebody_puts_into_a_folder_leaves_without_its_folders_too(hub, checkpoint, tmp_path):
    folder = export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'out').path
    shutil.copy(checkpoint.parent / 'args.yaml', folder)
    assert main(['publish', str(folder), '--repo', REPO]) == 0
    there = hub.repos[REPO].commits[hub.repos[REPO].sha('main')]['files']
    assert b'/home/ann' not in there['args.yaml'].data and yaml.safe_load(there['args.yaml'].data)['data_dir'] == 'birds'


@pytest.mark.parametrize(
    ('given', 'kept'),
    [
        ('~/me/x', 'x'),
        ('../../home/me', 'me'),
        ('/a/b,/c/d', 'b,d'),
        ('wds/:/home/me/y', 'wds/:y'),
        ('C:\\Users\\ada\\birds', 'birds'),
        ('https://host/a/b', 'https://host/a/b'),
        ('output/train', 'output/train'),
        ('rand-m9-mstd0.5,inc1', 'rand-m9-mstd0.5,inc1'),
        ({'/home/me/key': 1}, {'key': 1}),
    ],
)
def test_paths_lose_their_folders(given, kept):
    assert _without_folders(given) == kept


def test_the_folder_of_a_model_stays_at_home_too():
    given = {'model': 'local-dir:/home/ada/birds', 'file': 'file:/home/ada/a.pth', 'hub': 'hf-hub:ada/birds', 'other': 'a:b'}
    assert _without_folders(given) == {**given, 'model': 'local-dir:birds', 'file': 'file:a.pth'}
