"""The line of `timm-3g train` where SGD will not move a second-order head, and where it stays silent."""

import json
import re
from argparse import Namespace

import pytest
from common import ROOT, SMALL
from timm.optim import list_optimizers

from timm_3g.checkpoints import is_ours
from timm_3g.training.slow_sgd import SGD, slow_sgd
from timm_3g.training.train_arguments import check_arguments

RECIPES = sorted((ROOT / 'train_configs').glob('*.yaml'))
DEFAULTS = {  # of train.py
    'model': SMALL,
    'gp': None,
    'model_kwargs': {},
    'opt': 'sgd',
    'lr': None,
    'lr_base': 0.1,
    'lr_base_size': 256,
    'lr_base_scale': '',
    'batch_size': 128,
    'grad_accum_steps': 1,
}


@pytest.mark.parametrize(
    ('given', 'processes', 'said'),
    [
        ({}, 1, ''),  # 0.05
        (
            {'batch_size': 8},
            1,
            'SGD at a rate of 0.00313 hardly moves the head of 3g in a short run. Give it --lr 0.005 or more',
        ),
        ({'batch_size': 8}, 2, ''),
        ({'batch_size': 8, 'grad_accum_steps': 2}, 1, ''),
        ({'batch_size': 8, 'lr_base_scale': 'sqrt'}, 1, ''),
        ({'batch_size': 8, 'lr_base': 0.2}, 1, ''),
        ({'batch_size': 8, 'lr_base_size': 128}, 1, ''),
        ({'lr': 0.001}, 1, 'a rate of 0.001 '),
        ({'lr': 0.001, 'opt': 'lookahead_momentum'}, 1, 'a rate of 0.001 '),
        ({'lr': 0.001, 'opt': 'AdamW'}, 1, ''),
        ({'lr': 0.001, 'gp': 'isqrt'}, 1, 'head of isqrt'),
        ({'lr': 0.001, 'gp': 'avg'}, 1, ''),
        ({'lr': 0.001, 'model': 'resnet18'}, 1, ''),
        ({'lr': 0.001, 'model': 'gcp'}, 1, 'head of 3g'),
        ({'lr': 0.01, 'model_kwargs': {'head_init': 'orig'}}, 1, 'a rate of 0.01 .* --lr 0.02 or more'),
        ({'lr': 0.01}, 1, ''),
        ({'lr': 0.001, 'model_kwargs': {'head_init': 'no such start'}}, 1, ''),  # an error that comes later
        ({'lr': 0.001, 'model_kwargs': {'head_init': ['open']}}, 1, ''),
    ],
)
def test_where_it_speaks(given, processes, said):
    line = slow_sgd(Namespace(**{**DEFAULTS, **given}), processes)
    if not said:
        assert line == ''
        return
    assert re.search(said, line), line
    assert line.endswith(' or more, or --opt adamw --lr 0.001.') and '\n' not in line


@pytest.mark.parametrize(
    ('config', 'said'),
    [
        ({'architecture': SMALL}, 'head of 3g'),
        ({'architecture': SMALL, 'model_args': {'global_pool': 'isqrt'}}, 'head of isqrt'),
        ({'architecture': SMALL, 'model_args': {'global_pool': 'avg'}}, ''),
        ({'architecture': SMALL, 'model_args': {'head_init': 'orig'}}, '--lr 0.02 or more'),
        ({'architecture': 'resnet18'}, ''),
    ],
)
def test_it_knows_what_a_folder_holds(config, said, tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(config))
    line = slow_sgd(Namespace(**{**DEFAULTS, 'model': f'local-dir:{tmp_path}', 'lr': 0.001}), 1)
    assert said in line and bool(line) == bool(said)


def test_the_names_are_timms():
    assert set(SGD) <= set(list_optimizers())


def test_train_says_it_once(timm_script, capsys, monkeypatch):
    script = timm_script('train.py')
    line = 'hardly moves the head of 3g'
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank, times in (('0', 1), ('1', 0)):
        monkeypatch.setenv('RANK', rank)
        check_arguments(script, ['--model', SMALL, '--batch-size', '4', '--device', 'cpu'])
        assert capsys.readouterr().err.count(line) == times
    monkeypatch.setenv('RANK', '0')
    # the batch of both, and the rate of it
    check_arguments(script, ['--model', SMALL, '--batch-size', '8', '--device', 'cpu'])
    assert line not in capsys.readouterr().err
    check_arguments(script, ['--model', SMALL, '--opt', 'adamw', '--lr', '1e-3', '--device', 'cpu'])
    assert line not in capsys.readouterr().err


@pytest.mark.parametrize(
    'recipe', [path for path in RECIPES if is_ours(path.name.partition('.')[0])], ids=lambda path: path.stem
)
def test_no_recipe_of_ours_is_told_so(recipe, timm_script, capsys):
    """In one process, where the rate that follows the batch is smallest."""
    check_arguments(timm_script('train.py'), ['--config', str(recipe), '--device', 'cpu'])
    assert 'hardly moves' not in capsys.readouterr().err
