"""`timm-3g predict`: what it finds against the model run by hand, labels, damaged files, pictures."""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from common import SMALL, image_folder
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

from timm_3g.__main__ import main
from timm_3g.inference import find_images
from timm_3g.layers import record_weights
from timm_3g.models.loading import class_names

NAMES = ['lemon', 'lime', 'orange']


@pytest.fixture(scope='module')
def template(tmp_path_factory):
    root = tmp_path_factory.mktemp('predict')
    torch.manual_seed(3)
    model = timm.create_model(SMALL, num_classes=3)
    save_for_hf(model, str(root / 'model'), model_config={'label_names': NAMES}, safe_serialization=True)
    return image_folder(root / 'images', {'a': 2, 'b': 1}).parent


@pytest.fixture
def folder(template, tmp_path):
    """A model in a folder that `local-dir:` reads, with label names, and images beside it. A copy for each test."""
    return shutil.copytree(template, tmp_path, dirs_exist_ok=True)


def by_hand(folder, file):
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True).eval()
    transform = create_transform(**resolve_data_config({}, model=model))
    return model(transform(Image.open(file).convert('RGB'))[None]).softmax(1)[0]


def predict(folder, *args):
    return main(['predict', *map(str, args), '--model', f'local-dir:{folder / "model"}', '-j', '0', '--device', 'cpu'])


def test_json_has_the_probabilities_of_the_model_and_the_labels_of_its_config(folder, capsys):
    assert predict(folder, folder / 'images', '--json', '--topk', 2) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry['file'] for entry in found] == [str(f) for f in sorted((folder / 'images').rglob('*.png'))]
    for entry in found:
        values, indices = by_hand(folder, entry['file']).topk(2)
        assert [top['index'] for top in entry['top']] == indices.tolist()
        assert [top['class'] for top in entry['top']] == [NAMES[i] for i in indices]
        np.testing.assert_allclose([top['probability'] for top in entry['top']], values.detach(), rtol=1e-5)


def test_table(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    assert predict(folder, file) == 0
    line = capsys.readouterr().out.strip()
    assert line.startswith(str(file)) and all(name in line for name in NAMES) and line.count('%') == 3


def test_damaged_images_are_reported_skipped_and_end_in_exit_code_1(folder, capsys):
    good = folder / 'images' / 'a' / 'class0' / '0.png'
    (folder / 'text.png').write_text('no image')
    (folder / 'cut.png').write_bytes(good.read_bytes()[:-400])
    (folder / 'empty.jpg').touch()
    bad = [folder / name for name in ('text.png', 'cut.png', 'empty.jpg')]
    assert predict(folder, bad[0], good, *bad[1:]) == 1
    out, err = capsys.readouterr()
    assert out.count('cannot be read: ') == 3 and len(out.splitlines()) == 4 and 'orange' in out
    assert '3 of 4 images could not be read, the first' in err
    assert predict(folder, *bad, '--json') == 1
    assert all(entry['error'] and not entry['top'] for entry in json.loads(capsys.readouterr().out))


@pytest.mark.parametrize('make', [os.mkfifo, lambda file: file.symlink_to('/dev/zero')])
def test_a_pipe_or_a_device_is_no_image(folder, capsys, make):
    make(folder / 'odd.png')
    assert predict(folder, folder / 'odd.png', folder / 'images' / 'b') == 1
    out, err = capsys.readouterr()
    assert 'cannot be read: ValueError: it is not a regular file' in out and out.count('orange') == 3 and err.count('\n') == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'pretrained_cfg': None}, 'has pretrained_cfg=None, which must map names to values'),
        ({'num_classes': '3'}, "has num_classes='3', which must be an integer"),
        ({'num_classes': float('nan')}, 'has num_classes=nan, which must be an integer'),
        ({'label_names': 5}, 'has label_names=5'),
        ({'crop_pct': 0}, 'crop_pct must be finite and positive'),
        ({'test_crop_pct': 'big'}, 'test_crop_pct must be finite and positive'),
        ({'crop_mode': 'big'}, "crop_mode must be one of center, squash, border; got 'big'"),
        ({'test_input_size': [3]}, 'test_input_size=(3,), which timm cannot use'),
        ({'input_size': [3, 10**6, 10**6]}, 'Images would be resized to'),
    ],
)
def test_a_config_that_no_image_can_be_prepared_by(folder, capsys, change, message):
    file = folder / 'model' / 'config.json'
    config = json.loads(file.read_text())
    top = change.keys() & {'pretrained_cfg', 'num_classes', 'label_names'}
    (config if top else config['pretrained_cfg']).update(change)
    file.write_text(json.dumps(config))
    assert predict(folder, folder / 'images') == 1
    out, err = capsys.readouterr()
    assert not out and message in err and err.count('\n') == 1


def test_a_config_without_end(folder, capsys):
    (folder / 'model' / 'config.json').write_text('[' * 100_000)
    assert predict(folder, folder / 'images') == 1
    assert 'is not a valid timm config.json' in capsys.readouterr().err


def test_find_images(tmp_path):
    image_folder(tmp_path, {'x': 2}, classes=1)
    (tmp_path / 'x' / 'notes.txt').touch()
    (tmp_path / 'x' / 'folder.png').mkdir()
    first, second = sorted((tmp_path / 'x').rglob('[01].png'))
    second = second.rename(second.with_suffix('.JPG'))
    assert find_images([str(tmp_path)]) == [first, second]
    assert find_images([str(second), str(tmp_path / '**' / '*.[pJ]*')])[:2] == [second, first]
    (tmp_path / 'odd[1].png').write_bytes(first.read_bytes())  # a file before a pattern
    assert find_images([str(tmp_path / 'odd[1].png')]) == [tmp_path / 'odd[1].png']
    with pytest.raises(FileNotFoundError, match=r"gone.png' is not a file, a folder with images, or a pattern"):
        find_images([str(tmp_path / 'gone.png')])


def test_class_names(tmp_path):
    thousand = timm.create_model('resnet18_3g', device='meta')
    assert class_names(thousand)[281].startswith('tabby')
    ten = timm.create_model('resnet18_3g', num_classes=10, device='meta')
    assert class_names(ten) == [str(i) for i in range(10)]
    (tmp_path / 'names.txt').write_text('\n'.join(NAMES))
    with pytest.raises(ValueError, match=r'has 10 classes, .*names.txt names 3'):
        class_names(ten, str(tmp_path / 'names.txt'))
    assert class_names(timm.create_model(SMALL, num_classes=3, device='meta'), str(tmp_path / 'names.txt')) == NAMES


def test_explain_writes_one_picture_per_image(folder, capsys):
    pictures = folder / 'pictures'
    images = [folder / 'images' / name / 'class0' for name in 'ab']
    assert predict(folder, *images, '--explain', pictures) == 0
    assert sorted(f.name for f in pictures.iterdir()) == ['0.explain-2.png', '0.explain.png', '1.explain.png']
    with Image.open(pictures / '0.explain-2.png') as image:
        assert image.size[0] > 4 * image.size[1], 'input, three maps and their product in a row'


def test_explain_never_overwrites_an_image(folder, capsys):
    images = folder / 'images' / 'b' / 'class0'
    assert predict(folder, images, '--explain', images) == 0
    assert sorted(f.name for f in images.iterdir()) == ['0.explain.png', '0.png']
    (images / '0.explain.png').replace(images / '1.png')
    (images / '1.explain.png').write_bytes((images / '0.png').read_bytes())  # not one of our pictures
    before = {f: f.read_bytes() for f in images.iterdir()}
    assert predict(folder, images, '--explain', images) == 1
    assert (
        '1.explain.png would overwrite one of the images, or be written twice. Choose another explain folder'
        in capsys.readouterr().err
    )
    assert {f: f.read_bytes() for f in images.iterdir()} == before


def test_explaining_a_folder_twice_reads_no_picture_of_the_first_time(folder, capsys):
    images = folder / 'images' / 'b' / 'class0'
    for _ in range(2):
        assert predict(folder, images, '--explain', images / 'pictures') == 0
        said = capsys.readouterr()
        assert said.out.count('.png') == 1 and 'explain' not in said.err
        assert [f.name for f in (images / 'pictures').iterdir()] == ['0.explain.png']


def test_labels_of_a_checkpoint_are_its_own(folder, capsys):
    """Not those of the default tag's weights: from a config.json beside the file, else none."""
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    options = ['--model', SMALL, '-j', '0', '--device', 'cpu', '--checkpoint']
    assert main(['predict', str(file), *options, str(folder / 'model' / 'model.safetensors')]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in NAMES)
    torch.save(timm.create_model(SMALL, num_classes=10).state_dict(), folder / 'ten.pth')
    assert main(['predict', str(file), *options, str(folder / 'ten.pth'), '--json']) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert all(top['class'] == str(top['index']) for top in found['top'])


def test_an_unknown_architecture(folder, capsys):
    arguments = ['predict', str(folder), '--model', 'resnet51_3g', '--checkpoint', str(folder / 'model' / 'model.safetensors')]
    assert main(arguments) == 1
    assert "'resnet51_3g' is no architecture of timm or timm_3g" in capsys.readouterr().err


def test_explain_needs_a_reweighting(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    model = timm.create_model(SMALL, num_classes=3, global_pool='isqrt')
    save_for_hf(model, str(folder / 'isqrt'))
    arguments = ['predict', str(file), '--model', f'local-dir:{folder / "isqrt"}', '--explain', str(folder / 'out')]
    assert main(arguments) == 1
    assert "this model has none. Models with global_pool '3g' have" in capsys.readouterr().err
    assert not list(Path(folder / 'out').glob('*'))


def test_record_weights_are_what_the_features_are_multiplied_by():
    model = timm.create_model(SMALL).eval()
    features = model.forward_features(torch.randn(2, 3, 32, 32))
    with record_weights(model) as maps, torch.no_grad():
        model.forward_head(features)
    assert [tuple(w.shape) for w in maps] == [(2, 1, 8, 8)] * 3 and not any(w.requires_grad for w in maps)
    pool = model.global_pool
    x = pool.reduce(features)
    torch.testing.assert_close(pool.refine(x), maps[0] * maps[1] * maps[2] * x)
    with record_weights(model) as again:
        pass
    model.forward_head(features)
    assert again == [], 'nothing is recorded outside'


def test_class_names_beside_a_checkpoint(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    run = folder / 'run'
    run.mkdir()
    torch.save(timm.create_model(SMALL, num_classes=3).state_dict(), run / 'last.pth.tar')
    options = ['predict', str(file), '--model', SMALL, '-j', '0', '--device', 'cpu', '--checkpoint', str(run / 'last.pth.tar')]
    (run / 'class_names.txt').write_text('ant\nbee\nfly\n')
    assert main(options) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ('ant', 'bee', 'fly'))
    (run / 'class_names.txt').write_text('ant\nbee\n')  # of another number: not of these weights
    assert main(options) == 0
    assert 'ant' not in capsys.readouterr().out


def test_what_is_recorded_is_said_and_options_win(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    args = argparse.Namespace(model=SMALL, img_size=48, mean=[0.1, 0.2, 0.3], std=None, crop_pct=None, interpolation='')
    torch.save({'state_dict': timm.create_model(SMALL).state_dict(), 'args': args}, folder / 'c.pth')
    options = ['predict', str(file), '--model', SMALL, '-j', '0', '--device', 'cpu', '--checkpoint', str(folder / 'c.pth')]
    assert main(options) == 0
    err = capsys.readouterr().err
    assert err == f'As recorded with {folder / "c.pth"}: input_size 3 48 48, mean 0.1 0.2 0.3.\n'
    assert main([*options, '--img-size', '32', '--mean', '0.5']) == 0
    assert capsys.readouterr().err == ''


def test_logits_that_are_not_finite_are_reported(folder, capsys):
    model = timm.create_model(SMALL, num_classes=3)
    torch.nn.init.constant_(model.fc.weight, 3e38)  # finite, and too large
    torch.save(model.state_dict(), folder / 'nan.pth')
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    options = ['predict', str(file), '--model', SMALL, '-j', '0', '--device', 'cpu', '--checkpoint', str(folder / 'nan.pth')]
    assert main([*options, '--json']) == 1
    out, err = capsys.readouterr()
    (found,) = json.loads(out)
    assert found['top'] == [] and 'its logits are not finite' in found['error'] and 'NaN' not in out
    assert '1 of 1 images could not be classified, the first' in err
    assert main(options) == 1
    assert 'cannot be classified: its logits are not finite' in capsys.readouterr().out


@pytest.mark.parametrize('verb', ['predict', 'validate', 'export'])
@pytest.mark.parametrize(
    ('name', 'value'),
    [('conv1.weight', float('nan')), ('bn1.running_var', float('inf')), ('bn1.running_var', -1e-9), ('fc.bias', float('-inf'))],
)
def test_weights_that_are_no_numbers_are_refused(folder, capsys, verb, name, value):
    state = timm.create_model(SMALL, num_classes=3).state_dict()
    state[name][0] = value
    file = folder / 'bad.pth'
    torch.save(state, file)
    options = ['--model', SMALL, *(['--output', str(folder / 'out')] if verb == 'export' else ['-j', '0', '--device', 'cpu'])]
    given = {
        'predict': [str(folder / 'images'), '--checkpoint', str(file)],
        'validate': ['--data-dir', str(folder / 'images' / 'a'), '--checkpoint', str(file)],
        'export': [str(file)],
    }
    assert main([verb, *given[verb], *options]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count('\n') == 1 and not (folder / 'out').exists()
    assert f'these are not: {name}.' in err or (verb == 'export' and 'logits that are not finite' in err)


@pytest.mark.parametrize('option', ['--mean nan', '--std 0', '--std inf', '--crop-pct 0', '--crop-pct nan'])
def test_numbers_that_no_image_can_be_prepared_with(folder, capsys, option):
    name = option[2:].split()[0].replace('-', '_')
    assert predict(folder, folder / 'images', *option.split()) == 1
    assert option.split()[0].lstrip('-') in capsys.readouterr().err
    file = folder / 'model' / 'model.safetensors'
    assert main(['export', str(file), '--model', SMALL, '--output', str(folder / 'out'), *option.split()]) == 1
    err = capsys.readouterr().err
    assert f'{name} must be finite' in err and err.count('\n') == 1 and not (folder / 'out').exists()


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--batch-size', '0'], '--batch-size must be at least 1; got 0'),
        (['-j', '-1'], '--workers must be at least 0; got -1'),
        (['--img-size', '0'], '--img-size must be at least 1; got 0'),
        (['--crop-pct', '0'], '--crop-pct must be a positive number; got 0.0'),
        (['--mean', '0.1', '0.2'], '--mean must be one number, or one for each of 3 channels; got [0.1, 0.2]'),
        (['--mean', 'nan'], 'mean must be finite; got [nan]'),
        (['--std', '0'], 'std must be finite and positive; got [0.0]'),
        (['--img-size', '100000'], 'Images would be resized to 100000 x 100000 pixels'),
        (['--input-size', '3', '32', '4000000'], 'The limits are 1 and 89,478,485 pixels'),
        (['--crop-pct', '1e-9'], 'Images would be resized to'),
        (['--crop-pct', '1e9'], 'Images would be resized to 0 x 0 pixels'),
        (['--interpolation', 'foo'], "Unknown interpolation 'foo'. Choose one of nearest, bilinear"),
        (['--input-size', '3', '0', '32'], 'The input size must be three positive integers'),
        (['--model-kwargs', 'features_only=True'], 'features_only=True makes a model without a classifier'),
        (['--num-classes', '5'], 'have 3 classes; with --num-classes 5 the classifier would be random'),
        (['--num-classes', '0'], 'have 3 classes; with --num-classes 0 the classifier would be random or missing'),
        (['--class-map', 'm.json'], 'm.json does not exist'),
        (['--model', 'resnet18_g3'], "'resnet18_g3' is no architecture of timm or timm_3g. Nearest: resnet18_3g"),
    ],
)
def test_options_out_of_range(more, message, folder, capsys):
    options = ['predict', str(folder / 'images'), '--model', f'local-dir:{folder / "model"}', '-j', '0', '--device', 'cpu']
    assert main([*options, *more]) == 1
    assert message in capsys.readouterr().err


def test_names_that_the_terminal_would_obey(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    evil = file.rename(file.with_name('a\x1b[2J.png'))
    (folder / 'names.txt').write_text('x\x1b[31m\ny\nz\n')
    assert predict(folder, evil, '--class-map', folder / 'names.txt') == 0
    out, err = capsys.readouterr()
    assert '\x1b' not in out and r'a\x1b[2J.png' in out and r'x\x1b[31m' in out
    assert '1 of 1 file names have characters that are printed as escapes' in err


def test_explain_keeps_what_it_did_not_write_and_takes_long_names(folder, capsys):
    file = folder / 'images' / 'a' / 'class0' / '0.png'
    pictures = folder / 'pictures'
    pictures.mkdir()
    assert predict(folder, file, '--explain', file) == 1
    assert '0.png is not a folder. Name another place' in capsys.readouterr().err
    (pictures / '0.explain.png').write_bytes(file.read_bytes())
    before = (pictures / '0.explain.png').read_bytes()
    assert predict(folder, file, '--explain', pictures) == 1
    assert '0.explain.png exists and is not a picture of an earlier run' in capsys.readouterr().err
    assert (pictures / '0.explain.png').read_bytes() == before
    long = file.with_name('L' * 245 + '.png')
    long.write_bytes(file.read_bytes())
    for _ in range(2):  # its own it replaces
        assert predict(folder, long, '--explain', folder / 'other') == 0
    assert [len(f.name) for f in (folder / 'other').iterdir()] == [212]


def test_a_picture_that_cannot_be_written_loses_no_result(folder, capsys, monkeypatch):
    monkeypatch.setattr('timm_3g.inference.explain.save_figure', lambda *_: (_ for _ in ()).throw(OSError('no space left')))
    assert predict(folder, folder / 'images' / 'a' / 'class0', '--explain', folder / 'p') == 1
    out, err = capsys.readouterr()
    assert (
        out.count('%') == 6 and out.count('cannot be drawn: no space left') == 2 and '2 of 2 images could not be drawn' in err
    )
