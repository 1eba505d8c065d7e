"""How often publishing builds models and reads and writes files: an independent count of calls and openings."""

import argparse
import shutil
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
from common import SMALL
from counted import counted

from timm_3g.publishing import export, get, publish, write_card

REPO = f'acme/{SMALL}.birds'
SHIPPED = Path(timm.get_pretrained_cfg(f'{SMALL}.cifar10').file).parent


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """What train.py leaves."""
    monkeypatch.chdir(tmp_path)
    args = argparse.Namespace(model=SMALL, data_dir='/data/birds', seed=7)
    state = timm.create_model(SMALL, num_classes=4).state_dict()
    torch.save({'state_dict': state, 'state_dict_ema': state, 'args': args, 'epoch': 11, 'metric': 61.25}, 'best.pth.tar')
    return Path('best.pth.tar')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(SHIPPED, tmp_path / 'folder'))


FILES = ('best.pth.tar', 'model.safetensors', 'golden.safetensors', 'config.json')


OF_CARD = 1  # a card builds the network with features_only=True, too, on the meta device, for the shapes of its maps


def opened(counts: Counter) -> dict[str, int]:
    return {name: counts[f'{name} opened'] for name in FILES if counts[f'{name} opened']}


@pytest.mark.parametrize('verb', ['publish', 'export'])
def test_a_checkpoint(checkpoint, verb):
    """Built from the checkpoint, and from the folder that was written. The second build proves that the folder reads back."""
    with counted() as counts:
        publish(checkpoint, REPO, dry_run=True) if verb == 'publish' else export(checkpoint, output='out')
    assert counts['create_model'] == 2 + OF_CARD
    # config.json: what timm drafted, then timm's and our reading of the folder.
    assert opened(counts) == {'best.pth.tar': 1, 'model.safetensors': 1, 'config.json': 3}
    assert (
        not counts['safetensors read'] and counts['torch.load'] == 1 and counts['safetensors written'] == 2
    )  # the weights and the golden pair
    assert counts['sha256'] == 3  # of the checkpoint, of the weights as they are written, and as they are read back


def test_a_folder(folder):
    with counted() as counts:
        publish(folder, REPO, dry_run=True)
    assert counts['create_model'] == counts['sha256'] == 1 and not counts['safetensors written']
    assert opened(counts) == {'model.safetensors': 1, 'golden.safetensors': 1, 'config.json': 3}
    assert counts['README.md opened'] == 1


def test_a_folder_whose_card_is_made_again(folder):
    with counted() as counts:
        publish(folder, REPO, dry_run=True, license='apache-2.0')
    assert counts['create_model'] == 1 + OF_CARD and counts['sha256'] == 1
    assert opened(counts) == {'model.safetensors': 1, 'golden.safetensors': 1, 'config.json': 3}


def test_a_push_builds_no_further_model(hub, folder):
    with counted() as counts:
        publish(folder, REPO)
        publish(folder, REPO)  # nothing has changed
    assert counts['create_model'] == 2 and not counts['safetensors written']


def test_a_card(folder):
    with counted() as counts:
        write_card(folder)
    assert counts['create_model'] == 1 + OF_CARD and not counts['sha256'] and 'model.safetensors' not in opened(counts)


def test_weights_of_the_package_are_not_opened():
    with counted() as counts:
        get(f'{SMALL}.cifar10')
    assert not counts['create_model'] and not opened(counts)
