"""`timm-3g predict`: what it finds against the model run by hand, labels, damaged files, pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from conftest import SMALL, image_folder
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf

from timm_3g.__main__ import main
from timm_3g.cli.predict import class_names, find_images
from timm_3g.layers import record_weights

NAMES = ['lemon', 'lime', 'orange']


@pytest.fixture
def folder(tmp_path):
    """A model in a folder that `local-dir:` reads, with label names, and images beside it."""
    torch.manual_seed(3)
    model = timm.create_model(SMALL, num_classes=3)
    save_for_hf(model, str(tmp_path / 'model'), model_config={'label_names': NAMES}, safe_serialization=True)
    image_folder(tmp_path / 'images', {'a': 2, 'b': 1})
    return tmp_path


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
    with pytest.raises(FileNotFoundError, match=r"gone.png' is no file, no folder with images, and no pattern"):
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


def test_explain_writes_a_picture_an_image(folder, capsys):
    pictures = folder / 'pictures'
    assert predict(folder, folder / 'images' / 'a', folder / 'images' / 'b' / 'class0', '--explain', pictures) == 0
    names = sorted(f.name for f in pictures.iterdir())
    assert len(names) == 7 and names[:2] == ['0.explain-2.png', '0.explain-4.png'] and '0.explain.png' in names
    with Image.open(pictures / names[0]) as image:
        assert image.size[0] > 4 * image.size[1], 'input, three maps and their product in a row'


def test_explain_never_overwrites_an_image(folder, capsys):
    images = folder / 'images' / 'b' / 'class0'
    assert predict(folder, images, '--explain', images) == 0
    assert sorted(f.name for f in images.iterdir()) == ['0.explain.png', '0.png']
    (images / '0.explain.png').replace(images / '1.png')
    (images / '1.explain.png').write_bytes((images / '1.png').read_bytes())
    before = {f: f.read_bytes() for f in images.iterdir()}
    assert predict(folder, images, '--explain', images) == 1
    assert '1.explain.png is one of the images, or stands for two; give another --explain folder' in capsys.readouterr().err
    assert {f: f.read_bytes() for f in images.iterdir()} == before


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
    assert "this model has none. global_pool '3g' has" in capsys.readouterr().err
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
