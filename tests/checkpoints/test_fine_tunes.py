"""What an exported fine-tune says it is: not the weights that it began with."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from common import SMALL
from safetensors.torch import load_file, save_file

from timm_3g.__main__ import main
from timm_3g.checkpoints import open_weights
from timm_3g.checkpoints import shipped as _shipped
from timm_3g.inference.data_config import data_config
from timm_3g.inference.options import ModelOptions
from timm_3g.models.loading import class_names, create_loaded
from timm_3g.publishing.front_matter import split_front_matter
from timm_3g.publishing.run_facts import base_of

TAG = f'{SMALL}.cifar10'
SHIPPED = _shipped.FOLDER / TAG / 'model.safetensors'


def weights(classes: int = 10) -> dict[str, torch.Tensor]:
    state = load_file(SHIPPED)
    return {**state, 'fc.weight': state['fc.weight'][:classes], 'fc.bias': state['fc.bias'][:classes]}


def trained(file: Path, classes: int = 10, **arguments) -> Path:
    run = {
        'model': TAG,
        'pretrained': True,
        'gp': None,
        'data_dir': '/data/birds',
        'epochs': 20,
        'batch_size': 64,
        'lr': 0.01,
        'opt': 'sgd',
        'seed': 3,
    }
    args = argparse.Namespace(**{**run, **arguments})
    torch.save({'state_dict': weights(classes), 'args': args, 'epoch': 11, 'metric': 61.5}, file)
    return file


def export(file: Path, folder: Path, *options: str) -> tuple[dict, dict, str]:
    assert main(['export', str(file), '--output', str(folder), *options]) == 0
    config = json.loads((folder / 'config.json').read_text())
    return config['pretrained_cfg'], *split_front_matter((folder / 'README.md').read_text())


@pytest.mark.parametrize('classes', [10, 7])
@pytest.mark.parametrize('options', [[], ['--model', TAG], ['--model', SMALL]])
def test_a_run_is_not_the_tag_that_it_began_with(tmp_path, capsys, classes, options):
    cfg, fields, body = export(trained(tmp_path / 'a.pth', classes), tmp_path / 'out', *options)
    assert not {'tag', 'license', 'label_names', 'label_descriptions', 'origin_url'} & cfg.keys()
    assert (fields['license'], fields['base_model']) == ('unknown', TAG) and f'# Model card for {SMALL}\n' in body
    assert f"'hf-hub:ORG/{SMALL}'" in body and f'hf-hub:ORG/{TAG}' not in body
    recipe = fields['timm_3g']['recipe']
    assert recipe.startswith(f"fine-tuned from {TAG} by timm's train.py, {classes} classes, epoch 12 of 20, batch size 64")
    assert 'after epoch 12 of the run, not verified' in body and fields['datasets'] == ['birds']
    assert ('neither its tag nor its licence' in capsys.readouterr().err) == (TAG in options)


def test_its_own_tag_and_licence(tmp_path):
    cfg, fields, body = export(trained(tmp_path / 'a.pth'), tmp_path / 'out', '--model', f'{SMALL}.birds', '--license', 'mit')
    assert (cfg['tag'], fields['license'], fields['base_model']) == ('birds', 'mit', TAG)
    assert f"'hf-hub:ORG/{SMALL}.birds'" in body
    assert main(['card', str(tmp_path / 'out')]) == 0  # made anew from itself
    assert split_front_matter((tmp_path / 'out' / 'README.md').read_text())[0]['base_model'] == TAG


def test_other_classes_without_a_run(tmp_path):
    torch.save(weights(7), tmp_path / 'a.pth')
    cfg, fields, _ = export(tmp_path / 'a.pth', tmp_path / 'out', '--model', TAG)
    assert 'tag' not in cfg and (fields['license'], fields['base_model'], fields['model_name']) == ('unknown', TAG, SMALL)


@pytest.mark.parametrize('writer', ['transformers', 'export'])
def test_what_its_config_says(tmp_path, writer):
    folder = Path(shutil.copytree(SHIPPED.parent, tmp_path / 'x'))
    config = json.loads((folder / 'config.json').read_text())
    if writer == 'transformers':  # writes weights and config anew, and keeps the old sha256
        save_file({k: v * 1.5 if k == 'fc.bias' else v for k, v in weights().items()}, folder / SHIPPED.name, {'format': 'pt'})
        config['transformers_version'] = '5'
    else:
        config['pretrained_cfg']['tag'] = 'birds'
        del config['pretrained_cfg']['license']
    (folder / 'config.json').write_text(json.dumps(config))
    cfg, fields, _ = export(folder / SHIPPED.name, tmp_path / 'out', '--model', TAG)
    assert (
        cfg.get('tag') != 'cifar10' and 'license' not in cfg and (fields['license'], fields['base_model']) == ('unknown', TAG)
    )


def test_a_plain_file_of_the_tag_keeps_it(tmp_path):
    torch.save(weights(), tmp_path / 'a.pth')
    cfg, fields, body = export(tmp_path / 'a.pth', tmp_path / 'out', '--model', TAG)
    assert (cfg['tag'], cfg['license']) == ('cifar10', 'apache-2.0') and f"'hf-hub:ORG/{TAG}'" in body
    assert 'base_model' not in fields


def test_the_default_folder_has_no_tag_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['export', str(trained(tmp_path / 'a.pth', 7)), '--model', TAG]) == 0
    assert (tmp_path / SMALL / 'config.json').is_file()


def test_published_under_the_shipped_name_it_is_no_other(tmp_path, capsys):
    """From the root of a checkout, whose hub/ has the card of the shipped weights."""
    repo = ['--repo', f'acme/{TAG}', '--dry-run']
    assert main(['publish', str(trained(tmp_path / 'a.pth', 7)), *repo]) == 0
    assert 'states no licence' in capsys.readouterr().out


def test_its_classes_have_no_foreign_names(tmp_path):
    assert class_names(create_loaded(TAG, trained(tmp_path / 'a.pth'))) == [str(i) for i in range(10)]
    torch.save(weights(), tmp_path / 'b.pth')
    assert 'airplane' in class_names(create_loaded(TAG, tmp_path / 'b.pth'))


@pytest.mark.parametrize(
    ('arguments', 'base'),
    [
        ({'model': TAG, 'pretrained': True}, TAG),
        ({'model': SMALL, 'pretrained': True}, f'{SMALL}.{timm.get_pretrained_cfg(SMALL).tag}'),
        ({'model': TAG, 'pretrained': False}, ''),
        ({'model': SMALL, 'pretrained': True, 'pretrained_path': str(SHIPPED)}, TAG),
        ({'model': SMALL, 'pretrained': True, 'pretrained_path': f'/x/{TAG}.pth'}, TAG),
        ({'model': SMALL, 'pretrained': True, 'pretrained_path': '/x/resnet18-f37072fd.pth'}, 'resnet18-f37072fd.pth'),
        ({'model': SMALL, 'pretrained': False, 'pretrained_path': '/x/a.pth'}, ''),
        ({'model': SMALL, 'initial_checkpoint': '/x/my.pth'}, 'my.pth'),
        ({'model': SMALL, 'initial_checkpoint': '/x/my weights.pth'}, ''),
        ({'model': 'hf-hub:acme/birds@v1', 'pretrained': True}, 'acme/birds'),
        ({'model': f'local-dir:/x/{TAG}', 'pretrained': True}, TAG),
        ({'model': 'gcp', 'pretrained': True, 'model_kwargs': {'backbone': 'resnet18.a1_in1k'}}, 'resnet18.a1_in1k'),
        ({'model': 'convnext_atto_3g', 'pretrained': True}, 'convnext_atto.d2_in1k'),
        ({'model': 'convnext_atto_3g', 'pretrained': False}, ''),
        ({'model': 5, 'pretrained': True}, ''),
        ({}, ''),
    ],
)
def test_base(arguments, base):
    assert base_of(arguments) == base


TESTED = 'convnext_atto_3g'  # its backbone was trained at 224 px, and is evaluated at 288
TEST_SIZE = (3, 288, 288)


def evaluated_at(model: str, file: Path | None = None, **options) -> tuple[int, ...]:
    given = ModelOptions(model, checkpoint=file, device='cpu', **options)
    return tuple(data_config(given, create_loaded(model, file))['input_size'])


@pytest.fixture(scope='module')
def of_test_size(tmp_path_factory) -> Path:
    """A folder whose config.json records a size for tests."""
    root = tmp_path_factory.mktemp('tested')
    torch.save(timm.create_model(TESTED, num_classes=3).state_dict(), root / 'bare.pth')
    assert main(['export', str(root / 'bare.pth'), '--model', TESTED, '--output', str(root / 'out')]) == 0
    return root / 'out'


def test_a_recorded_size_for_tests_counts_wherever_the_weights_are_read_from(of_test_size):
    assert timm.get_pretrained_cfg(TESTED).test_input_size == TEST_SIZE
    assert evaluated_at(f'local-dir:{of_test_size}') == TEST_SIZE
    assert evaluated_at(TESTED, of_test_size / 'model.safetensors') == TEST_SIZE
    assert evaluated_at(TESTED, of_test_size / 'model.safetensors', img_size=64) == (3, 64, 64)


def test_it_travels_through_a_second_export(of_test_size, tmp_path):
    cfg, _, body = export(of_test_size / 'model.safetensors', tmp_path / 'again')
    assert tuple(cfg['test_input_size']) == TEST_SIZE
    assert 'Image size: train = 224 x 224, test = 288 x 288' in body
    assert 'resolve_model_data_config(model, use_test_size=True)' in body


def test_the_size_of_a_run_replaces_it(tmp_path):
    args = argparse.Namespace(model=TESTED, img_size=64)
    state = timm.create_model(TESTED, num_classes=3).state_dict()
    torch.save({'state_dict': state, 'args': args, 'epoch': 0}, tmp_path / 'run.pth')
    assert evaluated_at(TESTED, tmp_path / 'run.pth') == (3, 64, 64)
    cfg, _, body = export(tmp_path / 'run.pth', tmp_path / 'out')
    assert not cfg.get('test_input_size') and 'Image size: 64 x 64' in body and 'use_test_size' not in body


def test_a_damaged_size_for_tests_is_refused(of_test_size, tmp_path, capsys):
    folder = Path(shutil.copytree(of_test_size, tmp_path / 'damaged'))
    config = json.loads((folder / 'config.json').read_text())
    config['pretrained_cfg']['test_input_size'] = [3]
    (folder / 'config.json').write_text(json.dumps(config))
    assert main(['export', str(folder / 'model.safetensors'), '--output', str(tmp_path / 'out')]) == 1
    assert 'has test_input_size=(3,), which timm cannot use' in capsys.readouterr().err


def test_random_weights_are_of_no_base(tmp_path):
    _, fields, _ = export(trained(tmp_path / 'a.pth', pretrained=False), tmp_path / 'out', '--model', TAG)
    assert 'base_model' not in fields and fields['timm_3g']['recipe'].startswith('trained from random weights')


def test_a_size_that_is_named_counts_for_tests_too(tmp_path):
    torch.save(timm.create_model(TESTED, num_classes=3).state_dict(), tmp_path / 'a.pth')
    sizes = ('--img-size', '64', '--crop-pct', '0.9', '--mean', '0.5')
    cfg, _, body = export(tmp_path / 'a.pth', tmp_path / 'out', '--model', TESTED, *sizes)
    assert (cfg['input_size'], cfg['crop_pct']) == ([3, 64, 64], 0.9) and not {'test_input_size', 'test_crop_pct'} & cfg.keys()
    assert '288' not in body
    assert evaluated_at(TESTED, tmp_path / 'out' / 'model.safetensors') == (3, 64, 64)


@pytest.fixture
def of_another_function(tmp_path):
    """A folder of weights whose config.json says how the network is built."""
    torch.save(weights(), tmp_path / 'base.pth')
    folder = tmp_path / f'{SMALL}.birds'
    more = ['--model-kwargs', 'num_iters=2', 'eps=0.1', '--img-size', '64']
    export(tmp_path / 'base.pth', folder, '--model', f'{SMALL}.birds', *more)
    return folder


@pytest.mark.parametrize('source', ['local-dir', 'hf-hub'])
def test_a_run_that_began_from_a_folder_keeps_its_function(tmp_path, of_another_function, source, monkeypatch):
    folder = of_another_function
    cached = {('acme/birds', 'v1'): str(folder / 'config.json')}
    monkeypatch.setattr(
        'timm_3g.checkpoints.hub.try_to_load_from_cache', lambda repo, name, revision=None: cached.get((repo, revision))
    )
    model = f'local-dir:{folder}' if source == 'local-dir' else 'hf-hub:acme/birds@v1'
    file = trained(tmp_path / 'a.pth', model=model, model_kwargs={'num_iters': 3})
    net = create_loaded(SMALL, file)
    assert (net.global_pool.num_iters, net.global_pool.eps) == (3, 0.1)  # the run's own, and that of the folder
    assert net.pretrained_cfg['input_size'] == (3, 64, 64)
    assert open_weights(file).record.key == SMALL
    named = trained(tmp_path / 'b.pth', model=model, model_kwargs={}, img_size=48)
    assert create_loaded(SMALL, named).pretrained_cfg['input_size'] == (3, 48, 48)
    # Another pooling takes none of the options of the old one.
    other = trained(tmp_path / 'c.pth', model=model, model_kwargs={}, gp='isqrt')
    state = {k: v for k, v in weights().items() if 'reweight' not in k}
    torch.save({**torch.load(other, weights_only=False), 'state_dict': state}, other)
    assert create_loaded(SMALL, other).global_pool.num_iters == 5


@pytest.mark.parametrize(
    ('model', 'remedy'),
    [
        ('hf-hub:acme/birds@v1', r'Fetch it: hf download acme/birds config\.json --revision v1'),
        ('local-dir:/gone/birds', r'Put the folder back\.'),
    ],
)
def test_a_run_whose_base_is_not_here_is_refused(tmp_path, model, remedy):
    file = trained(tmp_path / 'a.pth', model=model, model_kwargs={})
    with pytest.raises(ValueError, match=rf'began from {model}, whose config\.json .* not on this machine\. {remedy}'):
        create_loaded(SMALL, file)


def test_a_base_or_a_run_that_says_nothing_of_use(tmp_path, of_another_function):
    """A run without a model is of no architecture. A config.json of a base that is no config is an error, not a crash."""
    unnamed = trained(tmp_path / 'a.pth', model=None, model_kwargs={'num_iters': 3})
    assert create_loaded(SMALL, unnamed).global_pool.num_iters == 5
    file = trained(tmp_path / 'b.pth', model=f'local-dir:{of_another_function}', model_kwargs={})
    config = of_another_function / 'config.json'
    config.write_text(json.dumps({**json.loads(config.read_text()), 'pretrained_cfg': [1]}))
    with pytest.raises(ValueError, match='has a pretrained_cfg that maps no names to values'):
        create_loaded(SMALL, file)


def test_another_pooling_than_that_of_the_weights_is_refused():
    with pytest.raises(ValueError, match=r"trained with global_pool='3g'; got 'isqrt'\..* leave the option out"):
        create_loaded(SMALL, SHIPPED, options={'global_pool': 'isqrt'})
    with pytest.raises(ValueError, match='num_classes is an option of its own'):
        create_loaded(TAG, options={'num_classes': 10})


def test_weights_of_timm_say_how_many_classes_they_have(tmp_path):
    torch.save(timm.create_model('resnet10t', num_classes=5).state_dict(), tmp_path / 'a.pth')
    assert create_loaded('resnet10t', tmp_path / 'a.pth').num_classes == 5


def test_weights_of_jax_without_a_classifier_are_refused(tmp_path, monkeypatch):
    (tmp_path / 'a.npz').touch()
    monkeypatch.setattr('timm_3g.models.loading.load_checkpoint', lambda net, file: None)  # what timm does for other classes
    with pytest.raises(ValueError, match=r'a\.npz has no classifier of 7 classes: it would be random\..*--num-classes'):
        create_loaded('resnet10t', tmp_path / 'a.npz', num_classes=7)
    monkeypatch.setattr('timm_3g.models.loading.load_checkpoint', lambda net, file: torch.nn.init.zeros_(net.fc.weight))
    assert not create_loaded('resnet10t', tmp_path / 'a.npz').fc.weight.any()
