"""Records in and beside weight files: plain values of a fixed table, and nothing that they could make timm do."""

import argparse
import json
import logging
import shutil
from pathlib import Path

import pytest
import timm
import torch
from common import SMALL
from huggingface_hub import HfApi
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from timm_3g.__main__ import main
from timm_3g.checkpoints import Record, open_weights
from timm_3g.checkpoints import known_files as _known_files
from timm_3g.checkpoints import shipped as _shipped
from timm_3g.checkpoints.description import description
from timm_3g.checkpoints.function import function_of
from timm_3g.inference import ModelOptions
from timm_3g.inference.data_config import data_config
from timm_3g.inference.model import load_model
from timm_3g.models import checkpoint_filter_fn
from timm_3g.models.loading import create_loaded
from timm_3g.ops import triangle_index
from timm_3g.publishing import export
from timm_3g.publishing.run_facts import base_of

SHIPPED = _shipped.FOLDER / f'{SMALL}.cifar10'


def trained(file: Path, **arguments) -> Path:
    state = load_file(SHIPPED / 'model.safetensors')
    torch.save({'state_dict': state, 'args': argparse.Namespace(**{'model': SMALL, 'gp': None, **arguments})}, file)
    return file


def test_a_record_is_read_without_building_or_fetching(tmp_path, monkeypatch):
    hostile = {'pretrained': True, 'cache_dir': '.', 'checkpoint_path': 'x', 'pretrained_cfg_overlay': {'url': 'http://x'}}
    file = trained(tmp_path / 'a.pth', model_kwargs={**hostile, 'num_iters': 3})
    monkeypatch.setattr(timm, 'create_model', None)
    assert open_weights(file).record.function(SMALL) == function_of(SMALL, {'num_iters': 3}, 'x')


@pytest.mark.parametrize(
    ('options', 'said'), [({'num_iters': 10**9}, 'num_iters'), ({'eps': '1e-7'}, 'eps'), ({'global_pool': 5}, '5')]
)
def test_absurd_options_are_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        open_weights(trained(tmp_path / 'a.pth', model_kwargs=options)).record.function(SMALL)
    record = {'architecture': SMALL, 'num_classes': 10, 'model_args': options}
    save_file(load_file(SHIPPED / 'model.safetensors'), tmp_path / 'a.safetensors', metadata={'timm_3g': json.dumps(record)})
    with pytest.raises(ValueError, match=said):
        open_weights(tmp_path / 'a.safetensors').record.function(SMALL)


def test_a_config_beside_other_weights(tmp_path):
    """Beside weights that people keep in an exported folder, config.json is of the folder's own."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'folder'))
    record = open_weights(trained(folder / 'last.pth.tar', model_kwargs={'num_iters': 3})).record
    assert record.function(SMALL)['num_iters'] == 3 and record.key == SMALL
    assert not {'tag', 'license', 'label_names'} & description(record, SMALL).keys()
    torch.save(load_file(SHIPPED / 'model.safetensors'), folder / 'mine.pth')
    plain = open_weights(folder / 'mine.pth').record
    assert plain.function(SMALL)['num_iters'] == 5 and plain.key == SMALL
    described = description(plain, SMALL)
    assert not {'tag', 'license'} & described.keys() and described['input_size'] == (3, 32, 32)
    assert open_weights(folder / 'model.safetensors').record.key == SHIPPED.name


@pytest.mark.parametrize('source', ['local-dir', 'Local-Dir'])
def test_the_folder_that_a_run_began_with(tmp_path, source):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / '12:30'))
    record = open_weights(trained(tmp_path / 'a.pth', model=f'{source}:{folder}')).record
    assert record.key == SMALL and record.function(SMALL)['num_iters'] == 5
    assert (
        base_of({**record.training, 'pretrained': True}) == ''
        and base_of({'pretrained': True, 'model': f'{source}:a/b'}) == 'b'
    )


def test_a_run_with_other_channels_and_no_size(tmp_path):
    state = load_file(SHIPPED / 'model.safetensors')
    grey = {**state, 'conv1.weight': state['conv1.weight'].sum(1, keepdim=True)}
    args = argparse.Namespace(model=SMALL, in_chans=1)
    torch.save({'state_dict': grey, 'args': args}, tmp_path / 'grey.pth')
    made = export(tmp_path / 'grey.pth', f'{SMALL}.grey', output=tmp_path / 'out')
    assert made.config['pretrained_cfg']['input_size'] == [1, 32, 32]
    options = ModelOptions(SMALL, checkpoint=tmp_path / 'grey.pth', device='cpu')
    config = data_config(options, load_model(options))
    means = timm.get_pretrained_cfg(SMALL).mean
    assert config['input_size'] == (1, 32, 32) and config['mean'] == pytest.approx((sum(means) / 3,))


def test_a_run_of_timms_own_network_with_other_channels(tmp_path):
    model = timm.create_model('test_resnet', in_chans=1, num_classes=3)
    args = argparse.Namespace(model='test_resnet', in_chans=1, num_classes=3)
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'grey.pth')
    options = ModelOptions('test_resnet', checkpoint=tmp_path / 'grey.pth', device='cpu')
    again = load_model(options)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())
    means = timm.get_pretrained_cfg('test_resnet').mean
    assert data_config(options, again)['mean'] == pytest.approx((sum(means) / 3,))


@pytest.mark.parametrize(
    ('own', 'options', 'other'),
    [
        ('resnet18_3g', {'global_pool': 'cov'}, 'resnet18_isqrt'),
        ('resnet10_mini_3g', {'global_pool': 'avg'}, 'resnet10_mini_sort'),
        ('resnet10_mini_sort', {}, 'resnet10_mini_3g'),
    ],
)
def test_weights_of_another_architecture_whose_tensors_fit(own, options, other, tmp_path):
    """By the arguments of train.py, by our header, and by a config.json of timm's."""
    model = timm.create_model(own, num_classes=3, **options)
    args = argparse.Namespace(model=own, gp=options.get('global_pool'), num_classes=3, model_kwargs={})
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'run.pth')
    save_for_hf(model, tmp_path / 'timms', safe_serialization=True)
    files = [tmp_path / 'run.pth', tmp_path / 'timms' / 'model.safetensors']
    if own.endswith('3g'):
        export(tmp_path / 'run.pth', f'{own}.x', output=tmp_path / 'ours')
        files.append(tmp_path / 'ours' / 'model.safetensors')
    for file in files:
        with pytest.raises(ValueError, match=rf'are of {own} with global_pool=.*; got {other}\. Name it: --model {own}'):
            create_loaded(other, file)
        create_loaded(own, file)


def test_the_same_network_under_two_names(tmp_path):
    model = timm.create_model('resnet18_3g', num_classes=3, global_pool='isqrt', num_iters=3)
    args = argparse.Namespace(model='resnet18_3g', gp='isqrt', num_classes=3, model_kwargs={'num_iters': 3})
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'run.pth')
    assert create_loaded('resnet18_isqrt', tmp_path / 'run.pth').global_pool.num_iters == 3
    overlay = {'file': str(tmp_path / 'run.pth'), 'num_classes': 3}
    with pytest.raises(ValueError, match='num_iters: weights 3, model 5'):
        timm.create_model('resnet18_isqrt', num_classes=3, pretrained=True, pretrained_cfg_overlay=overlay)


@pytest.mark.parametrize(('own', 'other'), [('resnet50', 'resnet50_sort'), ('resnet50_sort', 'resnet50')])
def test_weights_with_and_without_other_sums(own, other, tmp_path):
    args = argparse.Namespace(model=own, num_classes=3)
    torch.save({'state_dict': timm.create_model(own, num_classes=3).state_dict(), 'args': args}, tmp_path / 'run.pth')
    with pytest.raises(ValueError, match=f'are of {own}; got {other}'):
        create_loaded(other, tmp_path / 'run.pth')
    create_loaded(own, tmp_path / 'run.pth')


def test_the_size_of_a_run_on_a_backbone():
    """That of its backbone, and none where timm does not know it."""
    run = {'model': 'gcp', 'in_chans': 1, 'model_kwargs': {'backbone': 'tf_efficientnet_b3'}}
    assert description(Record(Path('last.pth.tar'), {}, {}, run), 'gcp') == {'input_size': (1, 300, 300)}
    run['model_kwargs'] = {'backbone': 'net_of_mine'}
    assert description(Record(Path('last.pth.tar'), {}, {}, run), 'gcp') == {}
    assert description(Record(Path('last.pth.tar'), {}, {}, {**run, 'img_size': 64}), 'gcp') == {'input_size': (1, 64, 64)}


def test_a_run_whose_pixels_are_no_numbers(tmp_path):
    with pytest.raises(ValueError, match='has mean=tensor'):
        description(open_weights(trained(tmp_path / 'a.pth', mean=torch.ones(3))).record, SMALL)


def test_eps_that_no_float_can_hold(tmp_path):
    with pytest.raises(ValueError, match='eps must be a finite float'):
        open_weights(trained(tmp_path / 'a.pth', model_kwargs={'eps': 10**400})).record.function(SMALL)


def test_the_tag_that_a_run_began_with_is_not_that_of_its_result(tmp_path):
    assert open_weights(trained(tmp_path / 'a.pth', model=f'{SMALL}.cifar10')).record.key == SMALL
    with pytest.raises(ValueError, match='names no architecture: 5'):
        print(open_weights(trained(tmp_path / 'b.pth', model=5)).record.key)


def test_a_folder_that_another_writer_wrote_anew(tmp_path):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'x'))
    weights = folder / 'model.safetensors'
    config = json.loads((folder / 'config.json').read_text())
    with safe_open(weights, 'pt') as opened:
        stamp = opened.metadata()
    state = {k: v * 2 if v.is_floating_point() else v for k, v in load_file(weights).items()}
    save_file(state, weights, metadata={'format': 'pt'})
    with pytest.raises(ValueError, match='is not the published file'):  # the stamp alone is gone: damage
        timm.create_model(f'local-dir:{folder}', pretrained=True)
    (folder / 'config.json').write_text(json.dumps({**config, 'transformers_version': '5'}))
    model = timm.create_model(f'local-dir:{folder}', pretrained=True)
    assert torch.equal(model.fc.weight, state['fc.weight'])
    save_file(state, weights, metadata=stamp)
    with pytest.raises(ValueError, match='is not the published file'):
        timm.create_model(f'local-dir:{folder}', pretrained=True)


def test_sha256_null_is_refused(tmp_path):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'x'))
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'sha256': None}))
    with pytest.raises(ValueError, match='must be 64 hex digits in lower case; got None'):
        timm.create_model(f'local-dir:{folder}', pretrained=True)


def isqrt() -> torch.nn.Module:
    model = timm.create_model(SMALL, global_pool='isqrt', num_classes=4)
    model.pretrained_cfg['num_classes'] = 4
    return model


def fast_mpn_cov(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    names = (('global_pool.reduce.conv.', 'layer_reduce.'), ('global_pool.reduce.bn.', 'layer_reduce_bn.'))
    state = model.state_dict()
    for ours, theirs in names:
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    return state


def test_a_guessed_triangle_yields_to_the_caller(caplog):
    model = isqrt()
    checkpoint_filter_fn(fast_mpn_cov(model), model)
    assert not caplog.records
    model = timm.create_model(SMALL, global_pool='isqrt', num_classes=4, triangle='lower')
    model.pretrained_cfg['num_classes'] = 4
    checkpoint_filter_fn(fast_mpn_cov(model), model)
    assert [r.levelno for r in caplog.records] == [logging.WARNING] and "usually have triangle='upper'" in caplog.text


def test_the_older_files_are_known_by_their_digits(tmp_path, monkeypatch):
    torch.save(fast_mpn_cov(timm.create_model('resnet18_isqrt', num_classes=4)), tmp_path / 'a.pth')
    from timm_3g.checkpoints import sha256_of

    digits = sha256_of(tmp_path / 'a.pth')[:8]
    known = _known_files.KnownFile('resnet18_isqrt.old', digits, {'triangle': 'lower'})
    monkeypatch.setattr(_known_files, 'KNOWN_FILES', (*_known_files.KNOWN_FILES, known))
    file = (tmp_path / 'a.pth').rename(tmp_path / f'net-{digits}.pth')
    overlay = {'file': str(file), 'num_classes': 4}
    model = timm.create_model('resnet18_isqrt', pretrained=True, num_classes=4, pretrained_cfg_overlay=overlay)
    assert model.global_pool.options['triangle'] == 'lower' and open_weights(file).record.key == 'resnet18_isqrt.old'
    with pytest.raises(ValueError, match="triangle: weights 'lower', model 'upper'"):
        overlay = {'file': str(file), 'num_classes': 4}
        timm.create_model('resnet18_isqrt', pretrained=True, num_classes=4, triangle='upper', pretrained_cfg_overlay=overlay)
    file.write_bytes(b'other')
    with pytest.raises(ValueError, match=f'whose sha256 begins with {digits}'):
        open_weights(file)
    assert timm.create_model('resnet50_isqrt.mpncov_2018_in1k', device='meta').global_pool.options['triangle'] == 'lower'
    assert timm.create_model('resnet50_isqrt.mpncov_in1k', device='meta').global_pool.options['triangle'] == 'upper'


def test_other_layouts():
    model = isqrt()
    ours = model.state_dict()
    parts = {'conv1': 0, 'bn1': 1, 'layer1': 4, 'layer2': 5, 'layer3': 6, 'layer4': 7}
    main_py = {}
    for key, value in ours.items():
        head, _, rest = key.partition('.')
        key = f'features.{parts[head]}.{rest}' if head in parts else key
        key = key.replace('global_pool.reduce.conv.', 'representation.conv_dr_block.0.')
        key = key.replace('global_pool.reduce.bn.', 'representation.conv_dr_block.1.').replace('fc.', 'classifier.')
        main_py[f'module.{key}'] = value
    pruned = {k: v for k, v in ours.items() if k != 'fc.weight'}
    pruned |= {'fc.weight_orig': ours['fc.weight'], 'fc.weight_mask': torch.ones_like(ours['fc.weight'])}
    index = {'global_pool.to_vec.index': triangle_index(64, 'upper')}
    lightning = {f'model.{k}': v for k, v in ours.items()}
    beside = {'criterion.weight': torch.ones(4), 'train_metric.total': torch.tensor(3)}
    for state in (main_py, lightning, {**lightning, **beside}, pruned, {**ours, **index}):
        found = checkpoint_filter_fn(state, model)
        assert found.keys() == ours.keys() and all(torch.equal(found[key], ours[key]) for key in ours)
    with pytest.raises(ValueError, match=r"in the order 'lower', and the model has triangle='upper'"):
        checkpoint_filter_fn({**ours, 'global_pool.to_vec.index': triangle_index(64, 'lower')}, model)
    head = {key.removeprefix('model.') if key.startswith('model.fc.') else key: v for key, v in lightning.items()}
    for state in ({**ours, **beside}, head, {**lightning, 'fc.weight': ours['fc.weight']}):  # not all of it behind the prefix
        with pytest.raises(ValueError, match='not weights of this network'):
            checkpoint_filter_fn(state, model)
    with pytest.raises(ValueError, match='Two tensors'):
        checkpoint_filter_fn({**ours, 'module.fc.weight': ours['fc.weight']}, model)
    with pytest.raises(ValueError, match='must be of floating point'):
        checkpoint_filter_fn({**ours, 'fc.weight': ours['fc.weight'].to(torch.int8)}, model)


def test_export_takes_how_images_are_prepared_and_class_names(tmp_path):
    torch.save(load_file(SHIPPED / 'model.safetensors'), tmp_path / 'a.pth')
    (tmp_path / 'class_names.txt').write_text(''.join(f'c{i}\n' for i in range(10)))
    command = ['export', str(tmp_path / 'a.pth'), '--model', SMALL, '--output', str(tmp_path / 'out')]
    assert main([*command, '--img-size', '48', '--mean', '0.5', '--interpolation', 'bicubic']) == 0
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    cfg = config['pretrained_cfg']
    assert (cfg['input_size'], cfg['mean'], cfg['interpolation']) == ([3, 48, 48], [0.5] * 3, 'bicubic')
    assert config['label_names'] == cfg['label_names'] == [f'c{i}' for i in range(10)]


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda c: c.update(architecture=None), 'names no architecture'),
        (lambda c: c.update(model_args=None), 'model_args must map names to values'),
        (lambda c: c['pretrained_cfg'].update(label_descriptions=['x']), 'label_descriptions'),
        (lambda c: c['pretrained_cfg'].update(input_size=[]), 'input_size'),
    ],
)
def test_a_config_of_other_types_is_one_line(tmp_path, capsys, change, said):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'x'))
    config = json.loads((folder / 'config.json').read_text())
    change(config)
    (folder / 'config.json').write_text(json.dumps(config))
    (tmp_path / 'a.png').write_bytes(b'')
    assert main(['predict', str(tmp_path / 'a.png'), '--model', f'local-dir:{folder}']) == 1
    error = capsys.readouterr().err
    assert said in error and error.count('\n') == 1


@pytest.mark.parametrize('field', [{'input_size': []}, {'mean': 'x'}, {'interpolation': 5}])
def test_a_config_of_other_types_in_python_and_on_the_hub(hub, tmp_path, capsys, field):
    folder = Path(shutil.copytree(SHIPPED, tmp_path / 'x'))
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'pretrained_cfg': {**config['pretrained_cfg'], **field}}))
    with pytest.raises(ValueError, match=f'{next(iter(field))}=.*timm cannot use'):
        timm.create_model(f'local-dir:{folder}')
    HfApi().create_repo('acme/x')
    HfApi().upload_folder(repo_id='acme/x', folder_path=folder)
    with pytest.raises(ValueError, match=f'{next(iter(field))}=.*timm cannot use'):
        timm.create_model('hf-hub:acme/x', pretrained=True)
    (tmp_path / 'a.png').write_bytes(b'')
    assert main(['predict', str(tmp_path / 'a.png'), '--model', 'hf-hub:acme/x']) == 1
    error = capsys.readouterr().err
    assert next(iter(field)) in error and error.count('\n') == 1
    assert main(['predict', str(tmp_path / 'a.png'), '--model', 'hf-hub:acme/gone']) == 1
    assert capsys.readouterr().err.count('\n') == 1


def test_a_config_without_an_architecture_on_the_hub(hub, tmp_path, capsys):
    HfApi().create_repo('acme/x')
    HfApi().upload_file(repo_id='acme/x', path_in_repo='config.json', path_or_fileobj=b'{"architecture": 5}')
    (tmp_path / 'a.png').write_bytes(b'')
    assert main(['predict', str(tmp_path / 'a.png'), '--model', 'hf-hub:acme/x']) == 1
    error = capsys.readouterr().err
    assert 'names no architecture: 5' in error and error.count('\n') == 1


def test_a_misspelt_option_names_the_nearest():
    with pytest.raises(TypeError, match=r"'num_iter'.* Did you mean num_iters\?"):
        timm.create_model(SMALL, num_iter=5)


@pytest.mark.parametrize('with_file', [False, True])
def test_a_misspelt_tag_names_the_nearest(tmp_path, capsys, with_file):
    (tmp_path / 'a.png').write_bytes(b'')
    options = ['--checkpoint', str(SHIPPED / 'model.safetensors')] if with_file else []
    for name, near in ((f'{SMALL}.cifar1', f'{SMALL}.cifar10'), ('resnet50_3g.orig_in1', 'resnet50_3g.orig_in1k')):
        assert main(['predict', str(tmp_path / 'a.png'), '--model', name, *options]) == 1
        error = capsys.readouterr().err
        assert f'{name!r}' in error and f'Nearest: {near}' in error and error.count('\n') == 1
    with pytest.raises(ValueError, match=rf'{SMALL} has no tag.* Its tags: .*cifar10'):
        create_loaded(f'{SMALL}.qqqqqqqq', None)


@pytest.mark.parametrize('name', [SMALL, 'resnet10t'])
def test_options_that_no_record_passes_on_are_stated_again(tmp_path, name):
    """They would load without a word, and give other logits."""
    more = {'act_layer': 'silu', 'drop_path_rate': 0.1}
    trained_net = timm.create_model(name, num_classes=3, **more).eval()
    images = torch.randn(2, 3, 32, 32)
    args = argparse.Namespace(model=name, gp=None, model_kwargs=more)
    torch.save({'state_dict': trained_net.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    for given in ({}, {'act_layer': 'relu'}):
        with pytest.raises(ValueError, match=r"of a network with act_layer='silu'; got .* --model-kwargs act_layer=silu"):
            create_loaded(name, tmp_path / 'last.pth.tar', options=given)
    net = create_loaded(name, tmp_path / 'last.pth.tar', options={'act_layer': 'silu'}).eval()
    assert torch.equal(net(images), trained_net(images))


def test_a_header_with_more_options_than_a_record_passes_on(tmp_path):
    net = timm.create_model(SMALL, num_classes=3, act_layer='silu').eval()
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={'act_layer': 'silu'})
    torch.save({'state_dict': net.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    folder = tmp_path / 'mine'
    export(tmp_path / 'last.pth.tar', output=folder, model_kwargs={'act_layer': 'silu'}, license='mit')
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(timm.create_model(f'local-dir:{folder}', pretrained=True).eval()(images), net(images))
    overlay = {'file': str(folder / 'model.safetensors'), 'num_classes': 3}
    given = {'pretrained': True, 'num_classes': 3, 'pretrained_cfg_overlay': overlay}
    with pytest.raises(ValueError, match=r"act_layer='silu'; got nothing"):
        timm.create_model(SMALL, **given)
    for act in ('silu', torch.nn.SiLU):  # a class has no name to compare
        assert torch.equal(timm.create_model(SMALL, act_layer=act, **given).eval()(images), net(images))
    run = {'state_dict': net.state_dict(), 'args': argparse.Namespace(model=f'local-dir:{folder}', gp=None, num_classes=3)}
    torch.save(run, tmp_path / 'fine_tuned.pth.tar')
    with pytest.raises(ValueError, match=r"act_layer='silu'; got nothing"):
        create_loaded(SMALL, tmp_path / 'fine_tuned.pth.tar')


def test_a_pooling_of_timms_own_is_that_of_the_run(tmp_path):
    net = timm.create_model('resnet10t', num_classes=3, global_pool='max').eval()
    args = argparse.Namespace(model='resnet10t', gp='max', model_kwargs={})
    torch.save({'state_dict': net.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(create_loaded('resnet10t', tmp_path / 'last.pth.tar').eval()(images), net(images))
    with pytest.raises(ValueError, match=r"global_pool='max'; got 'avg'"):
        create_loaded('resnet10t', tmp_path / 'last.pth.tar', options={'global_pool': 'avg'})
