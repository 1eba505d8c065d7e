"""Every recipe of train_configs/: its sheet, its keys by the real parser, its network, its learning rates, its family."""

import itertools
import re
import runpy
import sys
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from common import ROOT
from timm.data import resolve_data_config, transforms_factory
from timm.layers import DropBlock2d
from timm.layers.cbam import CbamModule
from timm.models.resnet import ResNet
from timm.optim import create_optimizer_v2, optimizer_kwargs
from timm.scheduler import create_scheduler_v2, scheduler_kwargs
from torch import nn

from timm_3g import list_pools
from timm_3g.compat import parser_options
from timm_3g.data import install_augmentations
from timm_3g.layers import EighRoot, WithAverage2d
from timm_3g.studies.results import read_results
from timm_3g.training import train_arguments
from timm_3g.training.train_arguments import check_arguments, model_options

FOLDER = ROOT / 'train_configs'
FILES = {file.stem: file for file in sorted(FOLDER.glob('*.yaml'))}
LABELS = ['makes', 'launch', 'batch', 'hardware', 'time', 'score', 'measured by', 'differs']

# Suffixes of tags that name another network than the model's default: pooling and number of re-weighting blocks.
SUFFIXES = {
    'nosqrt': ('3g_nosqrt', 3),
    'urm_v1': ('urm_v1', 1),
    'urm_v2': ('urm_v2', 1),
    **{f't{t}': ('3g', t) for t in range(5)},
}
# What the training of the paper and that of the authors' code have in common ...
PUBLISHED = {
    'opt': 'momentum',
    'momentum': 0.9,
    'weight_decay': 1e-4,
    'opt_kwargs': {'filter_bias_and_bn': False},
    'warmup_epochs': 0,
    'smoothing': 0.0,
    'color_jitter': 0.0,
    'hflip': 0.5,
    'train_interpolation': 'bilinear',
}
# ... the crops of the paper and of the code ...
PAPER_CROPS = {'train_crop_mode': 'shorter-side', 'scale': [256, 512], 'aa': 'pca-std0.1'}
CODE_CROPS = {'train_crop_mode': 'rrc', 'scale': [0.08, 1.0]}
# ... and the learning rate of every epoch.
IN1K = [0.1] * 30 + [0.01] * 30 + [1e-3] * 30 + [1e-4] * 25
PLACES365 = [0.1] * 31 + [0.01] * 10 + [1e-3] * 5 + [1e-4] * 5 + [1e-5] * 4
FAMILIES: dict[str, tuple[dict[str, Any], list[float]]] = {
    'paper_in1k': ({**PUBLISHED, **PAPER_CROPS, 'num_classes': 1000}, IN1K),
    'orig_in1k': ({**PUBLISHED, **CODE_CROPS, 'num_classes': 1000}, IN1K),
    'orig_places365': ({**PUBLISHED, **CODE_CROPS, 'num_classes': 365}, PLACES365),
}
MAY_DIFFER = {'model', 'gp', 'model_kwargs', 'drop', 'drop_block'}

every_file = pytest.mark.parametrize('name', FILES)


@cache
def recipe(name: str) -> dict[str, Any]:
    """Not to be changed: tests share it."""
    return yaml.safe_load(FILES[name].read_text())


def family(name: str) -> str | None:
    tag = name.split('.', 1)[1]
    return next((f for f in FAMILIES if tag == f or tag.startswith(f'{f}_')), None)


def members(of: str) -> list[str]:
    return [name for name in FILES if family(name) == of]


every_family_file = pytest.mark.parametrize('name', [name for name in FILES if family(name)])


def sheet(name: str) -> dict[str, list[str]]:
    """The labelled lines that a file opens with: label -> its lines. Any other comment before the first key is an error."""
    found: dict[str, list[str]] = {}
    for line in itertools.takewhile(lambda line: line.startswith('#'), FILES[name].read_text().splitlines()):
        label = re.fullmatch(r'# ([a-z ]+): ?(.*)', line)
        if label and label[1] in LABELS:
            assert label[1] not in found, f'{name}: two lines "{label[1]}"'
            found[label[1]] = [label[2]]
        else:
            assert found and re.match(r'#   \S', line), f'{name}: neither a label nor a continuation: {line!r}'
            found[list(found)[-1]].append(line[4:])
    return found


def processes(name: str) -> int:
    given = re.search(r'--nproc_per_node=(\d+)', sheet(name)['launch'][0])
    return int(given[1]) if given else 1


def effective_batch(name: str) -> int:
    return processes(name) * recipe(name)['batch_size'] * recipe(name).get('grad_accum_steps', 1)


def peak_lr(name: str, args: Namespace) -> float:
    """As train.py has it: lr, or lr_base in proportion to the effective batch."""
    lr: float | None = getattr(args, 'lr', None)
    if lr:
        return lr
    assert args.lr_base_scale == 'linear'
    return args.lr_base * effective_batch(name) / args.lr_base_size


def learning_rates(name: str, args: Namespace) -> list[float]:
    """Of every epoch, by timm's own scheduler, stepped as train.py steps it."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak_lr(name, args))
    scheduler, epochs = create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=100)
    rates = []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        scheduler.step(epoch + 1)
    return rates


@cache
def build(name: str) -> nn.Module:
    """On meta, with the arguments that train.py passes. Not to be changed: tests share it."""
    args = recipe(name)
    with torch.device('meta'):
        return timm.create_model(
            args['model'],
            in_chans=args.get('in_chans', 3),
            num_classes=args['num_classes'],
            drop_rate=args.get('drop', 0.0),
            drop_path_rate=args.get('drop_path'),
            drop_block_rate=args.get('drop_block'),
            global_pool=args.get('gp'),
            bn_momentum=args.get('bn_momentum'),
            bn_eps=args.get('bn_eps'),
            **args.get('model_kwargs', {}),
        )


def expected_pool(name: str) -> tuple[str, int]:
    """Pooling and number of re-weighting blocks, by the file's name alone: the tag's suffix, else the model's."""
    model, tag = name.split('.', 1)
    by_suffix = {**{pool: (pool, 0) for pool in list_pools()}, '3g': ('3g', 3), **SUFFIXES}
    return next((by_suffix[s] for whole in (tag, model) for s in by_suffix if whole.endswith(f'_{s}')), ('avg', 0))


@every_file
def test_sheet(name):
    found = sheet(name)
    assert list(found) == LABELS
    assert all(lines[0] for lines in found.values())
    launch = found['launch'][0]
    assert re.match(r'timm-3g train |torchrun (--\S+ )*-m timm_3g train ', launch)
    assert f' --config train_configs/{name}.yaml ' in launch


@every_file
def test_sheet_states_the_batch_and_the_learning_rate_that_the_file_gives(name):
    args, text = recipe(name), ' '.join(sheet(name)['batch'])
    stated = re.match(r'(\d+) process(?:es)? x (\d+) x (\d+) = (\d+)\b', text)
    assert stated, f'begins with "N processes x B x A = E"? {text!r}'
    given = [processes(name), args['batch_size'], args.get('grad_accum_steps', 1), effective_batch(name)]
    assert [int(n) for n in stated.groups()] == given
    assert re.search(rf'(?<![\d.]){peak_lr(name, Namespace(**args)):g}(?![\d.]\d)', text)


@every_file
def test_values_are_typed(name):
    """YAML 1.1 reads 1e-4 as a string (1.0e-4 is the number), and argparse converts no defaults but strings."""

    def values(value):
        if isinstance(value, dict | list):
            return [v for item in (value.values() if isinstance(value, dict) else value) for v in values(item)]
        return [value]

    assert isinstance(recipe(name), dict)
    for value in values(recipe(name)):
        assert isinstance(value, str | bool | int | float)
        if isinstance(value, str):
            assert value.lower() not in ('none', 'null', 'true', 'false', 'yes', 'no')
            with pytest.raises(ValueError):
                float(value)


@every_file
def test_model_builds_with_the_pooling_of_its_name(name):
    args, model = recipe(name), build(name)
    assert args['model'] == name.split('.', 1)[0]
    pool = getattr(model, 'global_pool', None) or model.get_submodule('head.global_pool')
    pool = pool.pool if isinstance(pool, WithAverage2d) else pool
    assert (pool.pool_type, getattr(pool, 'num_reweights', 0)) == expected_pool(name)
    assert model.num_classes == args['num_classes']


def test_networks_that_no_pooling_tells_apart():
    def count(name, kind):
        return sum(isinstance(module, kind) for module in build(name).modules())

    assert count('resnet50.paper_in1k_cbam', CbamModule) == 16 and count('resnet101.paper_in1k_cbam', CbamModule) == 33
    assert count('resnet50.paper_in1k_dropblock', DropBlock2d) == 9  # stages 3 and 4
    assert count('resnet50.paper_in1k', (CbamModule, DropBlock2d)) == 0
    assert sum(p.numel() for p in build('densenet264d.paper_in1k').parameters()) == 33_337_704  # DenseNet-264: 33 M
    assert isinstance(build('resnet50_g2de.paper_in1k').global_pool.root, EighRoot)
    assert build('resnet50.paper_in1k').layer4[0].conv2.stride == (2, 2)


@pytest.mark.slow
@every_family_file
def test_no_residual_branch_starts_at_zero(name):
    """timm's ResNets do that by default, the authors' do not."""
    if type(build(name)) is ResNet:
        assert recipe(name)['model_kwargs']['zero_init_last'] is False


@pytest.mark.parametrize('of', FAMILIES)
def test_family_is_one_recipe(of):
    names = members(of)
    assert len(names) > 1
    common = {k: v for k, v in recipe(names[0]).items() if k not in MAY_DIFFER}
    for name in names:
        assert {k: v for k, v in recipe(name).items() if k not in MAY_DIFFER} == common, name
    published, _ = FAMILIES[of]
    assert {k: common.get(k) for k in published} == published
    assert not common.keys() & {'amp', 'model_dtype', 'model_ema', 'mixup', 'cutmix', 'reprob', 'bce_loss', 'no_aug'}
    assert ('aa' in common) == ('aa' in published)


@every_family_file
def test_published_batch_crop_and_learning_rates(name):
    assert effective_batch(name) == 256
    data = resolve_data_config(recipe(name), model=build(name))
    assert (data['input_size'], data['interpolation'], data['crop_pct']) == ((3, 224, 224), 'bilinear', 0.875)
    assert learning_rates(name, Namespace(**recipe(name))) == pytest.approx(FAMILIES[family(name)][1], rel=1e-9, abs=0)


@every_family_file
def test_published_networks_start_as_their_authors_do(name):
    net = build(name)
    assert getattr(net, 'head_init', 'orig') == 'orig' or not getattr(net.global_pool, 'reweight', ())


@pytest.mark.parametrize('of', FAMILIES)
def test_training_images_are_cropped_and_coloured_as_published(of, monkeypatch):
    monkeypatch.setattr(transforms_factory, 'transforms_imagenet_train', transforms_factory.transforms_imagenet_train)
    install_augmentations()  # what `timm-3g train` does; undone with the monkeypatch
    args = recipe(members(of)[0])
    made = transforms_factory.create_transform(
        args['img_size'],
        is_training=True,
        train_crop_mode=args['train_crop_mode'],
        scale=args['scale'],
        hflip=args['hflip'],
        color_jitter=args['color_jitter'],
        auto_augment=args.get('aa'),
        interpolation=args['train_interpolation'],
    )
    # timm puts in a ColorJitter of strength 0, which does nothing.
    idle = [step for step in made.transforms if getattr(step, 'brightness', 0) is None]
    kinds = [type(step).__name__ for step in made.transforms if step not in idle]
    crop = ['RandomResizedCropAndInterpolation', 'RandomHorizontalFlip']
    if of == 'paper_in1k':
        crop = ['RandomShorterSide', 'RandomCrop', 'RandomHorizontalFlip', 'ColorPCA']
    assert kinds == [*crop, 'MaybeToTensor', 'Normalize']
    first = made.transforms[0]
    assert [first.low, first.high] == [256, 512] if of == 'paper_in1k' else list(first.scale) == [0.08, 1.0]


@pytest.mark.parametrize(
    'name, study, run',
    [
        ('gcp.ft_trashnet_3g', 'trashnet_finetune', '3g_tap_avg-s0'),
        ('resnet10_mini_3g.norm_tinyimagenet20', 'tinyimagenet20_poolings', '3g_norm-epochs=4-fraction=0.5-s0'),
    ],
)
def test_the_recipe_of_a_study_is_what_the_study_ran(name, study, run):
    rows = read_results(ROOT / 'docs' / 'studies' / f'{study}.csv')
    (ran,) = [dict(row.run.options) for row in rows if row.run.name == run]
    file = {'pretrained_path': ran['pretrained_path']} if ran.get('pretrained') else {}  # of whoever runs it
    assert ran == {**recipe(name), **file}


# What follows needs timm's script. A test never downloads it.


@pytest.fixture
def train_script(timm_script) -> Path:
    return timm_script('train.py')


@cache
def options_of_model(model: str, given: str) -> set[str]:
    """Built once per model and model_kwargs; most files share theirs."""
    return model_options(model, yaml.safe_load(given))


@every_file
def test_real_parser_takes_every_key(name, train_script, monkeypatch):
    monkeypatch.setattr(train_arguments, 'model_options', lambda model, given: options_of_model(model, yaml.safe_dump(given)))
    check_arguments(train_script, ['--config', str(FILES[name])])


def test_the_backbone_of_a_gcp_settles_its_options():
    given = {'backbone': 'test_vit', 'img_size': 64, 'avg_down': True}
    assert 'img_size' in (known := model_options('gcp', given)) and 'avg_down' not in known
    assert 'avg_down' in model_options('gcp', {'avg_down': True}), 'of resnet18, the default'
    assert 'backbone' not in model_options('resnet18_3g', {'backbone': 'test_vit'}), 'an unknown key of it, and no crash'
    with pytest.raises(ValueError, match=r"backbone='convnext_ato' is no network of timm\. Nearest: convnext_atto"):
        model_options('gcp', {'backbone': 'convnext_ato'})


@every_file
def test_real_parser_would_give_these_types(name, train_script):
    options = {option.dest: option for option in parser_options(runpy.run_path(str(train_script))['parser'])}
    for key, value in recipe(name).items():
        option = options[key]
        if type(option.default) is dict:
            assert isinstance(value, dict), key
        elif option.nargs == 0:
            assert isinstance(value, bool), key
        else:
            several = option.nargs is not None
            assert isinstance(value, list) == several, key
            allowed = {int: (int,), float: (int, float)}.get(option.type, (str,))
            assert all(type(v) in allowed for v in (value if several else [value])), key


@every_family_file
def test_real_parser_leaves_nothing_between_the_file_and_the_published_training(name, train_script, monkeypatch):
    """With the defaults of all options that the file does not mention."""
    monkeypatch.setattr(sys, 'argv', ['train.py', '--config', str(FILES[name])])
    args = runpy.run_path(str(train_script))['_parse_args']()[0]
    assert learning_rates(name, args) == pytest.approx(FAMILIES[family(name)][1], rel=1e-9, abs=0)
    args.lr = peak_lr(name, args)
    layers = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = create_optimizer_v2(layers, **optimizer_kwargs(cfg=args), **args.opt_kwargs)
    (group,) = optimizer.param_groups  # biases and BatchNorm are not apart
    assert len(group['params']) == 4 and type(optimizer) is torch.optim.SGD
    settled = {k: group[k] for k in ('lr', 'momentum', 'weight_decay', 'nesterov', 'dampening')}
    assert settled == {'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-4, 'nesterov': False, 'dampening': 0}
    off = ('amp', 'model_ema', 'mixup', 'cutmix', 'reprob', 'smoothing', 'clip_grad', 'bce_loss', 'vflip', 'layer_decay')
    assert not any(getattr(args, key) for key in off)


# The README of the folder.


def test_readme_names_every_file_and_no_other():
    text = (FOLDER / 'README.md').read_text()
    assert set(re.findall(r'[\w.]+\.yaml\b', text)) - {'MODEL.TAG.yaml'} == {file.name for file in FILES.values()}


def test_readme_and_sheets_state_the_same_scores():
    rows = re.findall(
        r'^\|[^|]*\| (\d[\d.]* / [\d.]+) \| `([\w.]+)\.yaml` \|$', (FOLDER / 'README.md').read_text(), re.MULTILINE
    )
    assert len(rows) > 30
    for score, name in rows:
        assert re.search(rf'(?<![\d.]){re.escape(score)}(?!\d)', ' '.join(sheet(name)['score'])), (score, name)
    named = {name for _, name in rows}
    for name in (name for name in FILES if family(name) and name not in named):
        assert sheet(name)['score'][0].startswith('no number known'), name
