"""hub/: one card a key, joined with the registry and the recipes; and its README's commands."""

import re
import shlex
from pathlib import Path

import pytest
import timm
import torch
from common import ROOT, SMALL

from timm_3g.__main__ import main
from timm_3g.checkpoints import SHA256
from timm_3g.checkpoints import shipped as _shipped
from timm_3g.publishing import card_facts as _card_facts
from timm_3g.publishing import card_text as _card_text
from timm_3g.publishing import known_weights
from timm_3g.publishing.card import read_source

CARDS = {file.stem: file for file in sorted((ROOT / 'hub').glob('*.md')) if file.stem != 'README'}
README = (ROOT / 'hub' / 'README.md').read_text()

every_card = pytest.mark.parametrize('key', CARDS)


def facts_of(key):
    return read_source(CARDS[key])[0]


def test_every_key_with_weights_has_its_card():
    assert set(CARDS) == set(known_weights())


@every_card
def test_card_and_registry_say_the_same(key):
    facts, cfg = facts_of(key), timm.get_pretrained_cfg(key)
    assert facts['license'] == cfg.license and facts.get('origin') == cfg.origin_url
    assert facts['datasets'] == [{1000: 'imagenet-1k', 365: 'places365', 10: 'cifar10'}[cfg.num_classes]]


@every_card
def test_recipe(key):
    recipe = facts_of(key)['recipe']
    if recipe is None:
        assert any('recipe of this training is not stated' in fault for fault in facts_of(key)['known_faults'])
    else:
        assert recipe == f'train_configs/{key}.yaml' and (ROOT / recipe).is_file()


@every_card
def test_numbers_say_whose_they_are(key):
    facts, prose = read_source(CARDS[key])
    ours = key in {folder.name for folder in _shipped.FOLDER.iterdir()}
    for metric in facts['metrics']:
        if ours:
            assert metric['measured_by'].startswith('timm_3g, 20')
        else:
            errors = re.search(r'who state errors of (\S+) / (\S+) %; not measured by timm_3g', metric['measured_by'])
            assert [float(e) for e in errors.groups()] == pytest.approx([100 - metric['top1'], 100 - metric['top5']])
    assert facts['known_faults'] and prose
    if ours:
        assert facts['hardware'] and facts['hours'] and facts['seeds'] and len(facts[SHA256]) == 64


def test_the_recipes_sheet_has_the_same_figures():
    """Ours alone: the card's accuracies are those of the recipe's sheet."""
    for folder in _shipped.FOLDER.iterdir():
        sheet = (ROOT / 'train_configs' / f'{folder.name}.yaml').read_text()
        for metric in facts_of(folder.name)['metrics']:
            assert f'{metric["top1"]:.2f} / {metric["top5"]:.2f}' in sheet


def test_the_card_of_foreign_weights_says_that_no_licence_was_granted(tmp_path, monkeypatch):
    """Rendered for a small stand-in: the text does not depend on the size of the network."""
    torch.save(timm.create_model(SMALL, num_classes=1000).state_dict(), tmp_path / 'theirs.pth')
    source = CARDS['resnet50_3g.orig_in1k']
    folder = tmp_path / 'out'
    assert main(['export', str(tmp_path / 'theirs.pth'), '--model', SMALL, '--output', str(folder), '--card', str(source)]) == 0
    card = (folder / 'README.md').read_text()
    assert _card_text.NO_LICENCE in card and 'license: unknown' in card and '| ImageNet-1k | validation |' in card
    assert 'value: 78.66' in card and 'url: https://github.com/csqlwang/3G-Net' in card
    assert 'The margin of 3G over a well-trained iSQRT-COV is 0.1 points' in card


def test_readme_states_every_fact():
    table = README.split('## A card')[1].split('## Weights')[0]
    named = set(re.findall(r'`(\w+)`', table))
    assert set(_card_facts.FACTS) | set(_card_facts.METRIC) <= named


def test_readmes_five_commands(hub, tmp_path, monkeypatch):
    """All but the training, which test_cli_train.py runs: its checkpoint is written here."""
    commands = README.split('```bash\n')[1].split('```')[0].splitlines()
    assert len(commands) == 5 and commands[0].startswith('timm-3g train')
    monkeypatch.chdir(tmp_path)
    Path('output/train/mine').mkdir(parents=True)
    torch.save({'state_dict': timm.create_model(SMALL).state_dict()}, 'output/train/mine/model_best.pth.tar')
    for command in commands[1:4]:
        verb, *arguments = shlex.split(command.replace('ORG/', 'acme/'), comments=True)
        assert verb == 'timm-3g' and main(arguments) == 0, command
    assert hub.repos[f'acme/{SMALL}.mine'].private
    _, _, code = shlex.split(commands[4].replace('ORG/', 'acme/'))
    exec(code)


@pytest.mark.parametrize(
    ('options', 'maps', 'pooled'),
    [
        ({'backbone': 'resnet18', 'out_index': -2}, 4, '(1, 256, 18, 18)'),
        ({'backbone': 'resnet18', 'out_index': -2, 'first_order': True}, 4, '(1, 256, 18, 18) and (1, 512, 9, 9)'),
        ({'backbone': 'vit_tiny_patch16_224'}, 3, '(1, 192, 14, 14)'),
    ],
)
def test_the_shapes_of_a_card_are_those_of_the_network(options, maps, pooled):
    net = timm.create_model('gcp', num_classes=2, global_pool='isqrt', device='meta', **options).eval()
    text = _card_text._usage(net, 'ORG/x')
    assert text.count('\n    #   (1, ') == maps and f'# {pooled}, unpooled' in text
