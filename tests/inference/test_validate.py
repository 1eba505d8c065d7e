"""`timm-3g validate`: figures against timm's own validate.py and against counting by hand, in any number of processes."""

import argparse
import csv
import logging
import os
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
import webdataset
from common import SMALL, image_folder
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.transforms import functional as TF

import timm_3g
from timm_3g.__main__ import main
from timm_3g.data import Corrupt
from timm_3g.inference import Evaluation, ValidateOptions, append_row
from timm_3g.inference.counts import Counts
from timm_3g.inference.results import COLUMNS
from timm_3g.inference.validate import evaluate

CLASSES = 7
IMAGES = 5 * CLASSES  # prime to 2, the number of processes, and no multiple of the batch size


@pytest.fixture(scope='module')
def job(tmp_path_factory):
    """A checkpoint as train.py writes it, with other weights in its EMA, and images of 40 x 34 pixels."""
    root = tmp_path_factory.mktemp('job')
    image_folder(root, {'val': 5}, classes=CLASSES, size=(40, 34))
    torch.manual_seed(5)
    models = [timm.create_model(SMALL, num_classes=CLASSES, head_init='orig') for _ in range(2)]
    x = torch.stack([TF.to_tensor(Image.open(f).resize((32, 32))) for f in sorted((root / 'val').rglob('*.png'))])
    with torch.no_grad():
        for model in models:  # centre the logits, so that a random network does not give one class to all images
            model.fc.bias -= model.eval()(TF.normalize(x, model.pretrained_cfg['mean'], model.pretrained_cfg['std'])).mean(0)
    states = [model.state_dict() for model in models]
    torch.save({'state_dict': states[0], 'state_dict_ema': states[1], 'epoch': 0}, root / 'last.pth.tar')
    return root


def arguments(job, *more):
    common = [
        '--model',
        SMALL,
        '--num-classes',
        str(CLASSES),
        '--checkpoint',
        str(job / 'last.pth.tar'),
        '--data-dir',
        str(job),
    ]
    return [*common, '--split', 'val', '--device', 'cpu', '-b', '8', '-j', '0', '--crop-pct', '0.9', *map(str, more)]


def validate(job, file, *more):
    """Run the verb; its row."""
    assert main(['validate', *arguments(job, *more), '--results-file', str(file)]) == 0
    with file.open() as stream:
        return list(csv.DictReader(stream))[-1]


def logits_by_hand(job, crops, weights='state_dict', corruption=None):
    """(images, classes) logits and labels: PIL, torchvision's functions and a plain loop."""
    model = timm.create_model(SMALL, num_classes=CLASSES).eval()
    model.load_state_dict(torch.load(job / 'last.pth.tar', weights_only=True)[weights])
    mean, std = model.pretrained_cfg['mean'], model.pretrained_cfg['std']
    logits, labels = [], []
    for file in sorted((job / 'val').rglob('*.png')):
        image = TF.resize(Image.open(file).convert('RGB'), int(32 / 0.9))
        views = TF.ten_crop(image, [32, 32]) if crops == 10 else [TF.center_crop(image, [32, 32])]
        views = [Corrupt(corruption)(view) if corruption else view for view in views]
        x = torch.stack([TF.normalize(TF.to_tensor(view), mean, std) for view in views])
        logits.append(model(x).detach().mean(0))
        labels.append(int(file.parent.name.removeprefix('class')))
    return torch.stack(logits), torch.tensor(labels)


@pytest.mark.parametrize('crops', [1, 10])
def test_figures_are_those_of_counting_by_hand(crops, job, tmp_path):
    logits, labels = logits_by_hand(job, crops)
    order = logits.argsort(1, descending=True)
    top1 = int((order[:, 0] == labels).sum())
    top5 = int((order[:, :5] == labels[:, None]).sum())
    row = validate(job, tmp_path / 'r.csv', '--crops', crops)
    assert (int(row['images']), int(row['top1_count']), int(row['top5_count'])) == (IMAGES, top1, top5)
    assert 0 < top1 < top5 < IMAGES, 'the figures must be able to differ'
    assert float(row['top1']) == round(100 * top1 / IMAGES, 4) and float(row['top5_err']) == round(100 - 100 * top5 / IMAGES, 4)
    expected = {'model': SMALL, 'crops': str(crops), 'crop_pct': '0.9', 'interpolation': 'bilinear', 'img_size': '32'}
    assert {key: row[key] for key in expected} == expected
    assert row['torch'] == torch.__version__ and row['timm'] == timm.__version__ and float(row['seconds']) > 0


@pytest.mark.parametrize('crops', [1, 10])
@pytest.mark.parametrize('more', [[], ['--no-prefetcher']])
def test_figures_on_corrupted_images(crops, more, job, tmp_path):
    found = []
    for corruption in (None, 'noise-std0.5'):
        logits, labels = logits_by_hand(job, crops, corruption=corruption)
        right = logits.argsort(1, descending=True) == labels[:, None]
        found.append((int(right[:, 0].sum()), int(right[:, :5].sum())))
    assert found[0] != found[1], 'the figures must be able to differ'
    row = validate(job, tmp_path / 'r.csv', '--crops', crops, '--corruption', 'noise-std0.5', *more)
    assert (int(row['top1_count']), int(row['top5_count'])) == found[1] and row['corruption'] == 'noise-std0.5'
    assert validate(job, tmp_path / 'r.csv', '--crops', crops)['corruption'] == ''


def test_crops_are_averaged_as_logits():
    """Of the logits of the first image, the mean is for class 0 and the mean of the probabilities for class 1. Of the second,
    the mean is for class 1 and the maximum for class 0."""
    crops = torch.tensor([[[10.0, 0.0], [0.0, 4.0], [0.0, 4.0]], [[3.0, 0.0], [0.0, 2.0], [0.0, 2.0]]])
    images = crops.view(2, 3, 2, 1, 1)
    options = ValidateOptions('any', 'any', device='cpu')
    counts = evaluate(torch.nn.Flatten(), [(images, torch.tensor([0, 1]))], options, show=False)
    assert counts == Counts(images=2, top1=2, top5=2)


@pytest.mark.parametrize(
    'more', [[], ['--amp', '--amp-dtype', 'bfloat16', '--channels-last'], ['--use-ema', '--no-prefetcher']]
)
def test_single_crop_equals_timms_validate(more, job, tmp_path, timm_script, monkeypatch):
    script = timm_script('validate.py')
    row = validate(job, tmp_path / 'ours.csv', *more)
    file = tmp_path / 'timms.csv'
    monkeypatch.setattr(sys, 'argv', sys.argv)  # the script replaces it, and changes the root logger
    for name in ('handlers', 'level'):
        monkeypatch.setattr(logging.root, name, copy(getattr(logging.root, name)))
    command = ['run', '--timm-scripts', str(script.parent), 'validate.py', *arguments(job, *more)]
    assert main([*command, '--results-file', str(file)]) == 0
    with file.open() as stream:
        (theirs,) = csv.DictReader(stream)
    for name in ('top1', 'top1_err', 'top5', 'top5_err', 'img_size', 'crop_pct', 'interpolation'):
        assert float(row[name]) == float(theirs[name]) if name[:3] == 'top' else row[name] == theirs[name]


def test_ema_weights_are_others(job, tmp_path):
    rows = [validate(job, tmp_path / 'r.csv', *more) for more in ([], ['--use-ema'])]
    assert rows[0]['top1_count'] != rows[1]['top1_count']


@pytest.mark.slow
@pytest.mark.parametrize(('stream', 'crops'), [(False, 10), (True, 1)])
def test_figures_do_not_depend_on_the_number_of_processes(stream, crops, job, tmp_path):
    more = ['--crops', crops]
    if stream:
        write_shards(job, tmp_path / 'wds')
        more += [
            '--dataset',
            'wds/shards',
            '--data-dir',
            tmp_path / 'wds',
            '--split',
            'val-{0..2}.tar',
            '--num-samples',
            IMAGES,
        ]
    alone = validate(job, tmp_path / 'r.csv', *more)
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2', '-m', 'timm_3g', 'validate']
    command = [*launch, *arguments(job, *more), '--results-file', str(tmp_path / 'r.csv')]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('Acc@1') == 1, 'one process speaks'
    with (tmp_path / 'r.csv').open() as file:
        together = list(csv.DictReader(file))[-1]
    assert (alone['processes'], together['processes']) == ('1', '2')
    for name in ('images', 'top1_count', 'top5_count', 'top1', 'top5'):
        assert alone[name] == together[name]
    assert alone['images'] == str(IMAGES)


def write_shards(job, folder):
    """The images as three tar files of webdataset, of 10, 14 and 11."""
    folder.mkdir(parents=True)
    files = sorted((job / 'val').rglob('*.png'))
    for shard, part in enumerate(np.split(np.array(files), [10, 24])):
        with webdataset.TarWriter(str(folder / f'val-{shard}.tar')) as tar:
            for i, file in enumerate(part):
                sample = {'__key__': f'{shard}_{i}', 'png': file.read_bytes(), 'cls': int(file.parent.name[5:])}
                tar.write(sample)


def test_a_tar_of_the_folder_gives_the_same(job, tmp_path):
    with tarfile.open(tmp_path / 'val.tar', 'w') as tar:
        tar.add(job / 'val', arcname='.')
    folder = validate(job, tmp_path / 'r.csv')
    packed = validate(job, tmp_path / 'r.csv', '--data-dir', tmp_path / 'val.tar')
    assert folder['top1_count'] == packed['top1_count'] and packed['images'] == str(IMAGES)


def test_torchvision_data_sets(job, tmp_path):
    row = validate(job, tmp_path / 'r.csv', '--dataset', 'torch/image_folder')
    assert row['images'] == str(IMAGES) and row['top1_count'] == validate(job, tmp_path / 'r.csv')['top1_count']


def test_weights_of_a_tag(job, tmp_path, capsys):
    assert main(['validate', '--model', 'resnet18_3g', '--data-dir', str(job), '--split', 'val']) == 1
    assert 'No pretrained weights exist for resnet18_3g' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (['--pretrained'], '--pretrained and --checkpoint name two sets of weights. Leave one out'),
        (['--num-classes', '4'], 'fc.weight has 7 rows, but these weights are declared to have num_classes=4'),
        (['--checkpoint', 'gone.pth'], 'gone.pth does not exist'),
        (['--crops', '10', '--crop-mode', 'border'], 'Ten crops need a transform with a central crop'),
        (['--split', 'tset'], "has no split 'tset' and timm would use the images of every split"),
        (['--data-dir', 'nowhere'], '--data-dir nowhere: there is no such folder or tar file'),
        (['--class-map', 'gone.txt'], 'gone.txt does not exist'),
        (
            ['--corruption', 'fog-std1'],
            'A corruption must be one of noise-stdS, blur-stdS, jpeg-qQ',
        ),
        (
            ['--corruption', 'jpeg-q9', '--input-img-mode', 'RGBA'],
            '--input-img-mode must be L or RGB with a corruption',
        ),
        (['--batch-size', '0'], '--batch-size must be at least 1; got 0'),
        (['--num-samples', '3'], '--num-samples belongs to a data set of timm. Leave it out for a folder or a tar file'),
        (['--target-key', 'y'], '--target-key belongs to a data set of timm'),
        (['--input-img-mode', 'L'], "--input-img-mode must be of 3 channels, as the model takes; got 'L'"),
        (['--device', 'xpu'], '--device cannot be used: '),
        (['--device', 'hpu'], '--device cannot be used: '),
        (['--model-kwargs', 'checkpoint_path=/x'], 'FileNotFoundError, without a reason'),
        (['--num-classes', '0'], 'fc.weight has 7 rows, but these weights are declared to have num_classes=0'),
        (['--data-dir', ''], 'Name the data: a folder or tar file (data_dir), or a data set of timm (dataset)'),
    ],
)
def test_errors(more, message, job, capsys):
    assert main(['validate', *arguments(job, *more)]) == 1
    assert message in capsys.readouterr().err


def test_a_label_without_a_class_is_an_error(job, tmp_path, capsys):
    small = timm.create_model(SMALL, num_classes=4)
    torch.save(small.state_dict(), tmp_path / 'four.pth')
    assert main(['validate', *arguments(job, '--checkpoint', tmp_path / 'four.pth', '--num-classes', 4)]) == 1
    assert 'The data set has class 4, but the model has classes 0 to 3' in capsys.readouterr().err


ROW = Evaluation(**dict.fromkeys(COLUMNS, 0))


def test_images_without_labels_are_an_error():
    with pytest.raises(ValueError, match='has class -1: this split has no labels'):
        Counts().add(torch.zeros(2, 3), torch.tensor([0, -1]))


def test_a_last_line_without_its_end(tmp_path):
    append_row(tmp_path / 'r.csv', ROW)
    (tmp_path / 'r.csv').write_text((tmp_path / 'r.csv').read_text().rstrip('\n'))
    append_row(tmp_path / 'r.csv', replace(ROW, images=7))
    with (tmp_path / 'r.csv').open() as file:
        assert [row['images'] for row in csv.DictReader(file)] == ['0', '7']


@pytest.mark.parametrize('first_later', ['corruption', 'input_size'])
def test_rows_of_earlier_versions_stay(first_later, tmp_path):
    row = replace(ROW, model='a,"b"\nc')
    append_row(tmp_path / 'r.csv', row)
    with (tmp_path / 'r.csv').open(newline='') as stream:
        lines = list(csv.reader(stream))
    known = COLUMNS.index(first_later)
    with (tmp_path / 'old.csv').open('w', newline='', encoding='utf-8-sig') as stream:  # as a spreadsheet saves it
        csv.writer(stream, lineterminator='\n').writerows([[], *(line[:known] for line in lines)])
    append_row(tmp_path / 'old.csv', row)
    with (tmp_path / 'old.csv').open(newline='') as stream:
        first, second = csv.DictReader(stream)
    assert first == {**second, **dict.fromkeys(COLUMNS[known:], '')} and first['model'] == 'a,"b"\nc'


def test_a_row_has_what_determines_it(job, tmp_path):

    (tmp_path / 'map.txt').write_text('\n'.join(folder.name for folder in sorted((job / 'val').iterdir())))

    rows = [validate(job, tmp_path / 'r.csv')]
    for more in (
        ('--mean', '0.9'),
        ('--std', '3'),
        ('--input-size', '3', '64', '32'),
        ('--use-ema',),
        ('--class-map', str(tmp_path / 'map.txt')),
    ):
        rows.append(validate(job, tmp_path / 'r.csv', *more))
    determined = [{k: v for k, v in row.items() if not k.startswith('top') and k not in ('date', 'seconds')} for row in rows]
    assert len({tuple(row.values()) for row in determined}) == len(rows)


def test_ema_weights_are_of_a_checkpoint():
    with pytest.raises(ValueError, match='use_ema chooses between the weights of a checkpoint'):
        ValidateOptions(f'{SMALL}.cifar10', 'data', use_ema=True)


def test_what_timm_leaves_out_or_counts_as_another_class(tmp_path, capsys, monkeypatch):
    def run(folder, *more):
        line = ['validate', '--model', f'{SMALL}.cifar10', '--data-dir', str(folder), '--device', 'cpu', '-j', '0', *more]
        return main(line), capsys.readouterr()

    def images(root, *folders):
        for name in folders:
            (root / name).mkdir(parents=True)
            Image.new('RGB', (32, 32), 'red').save(root / name / 'a.png')
        return root

    for folder in (images(tmp_path / 'tail', 'airplane', 'zzz'), images(tmp_path / 'front', 'airplane', 'aaa')):
        code, said = run(folder)
        assert code == 1 and 'has folders that are no classes of these weights: ' in said.err
    code, said = run(images(tmp_path / 'none', 'hund', 'katze'))
    assert code == 0 and 'no folder has the name of a class of these weights. hund, katze count as classes 0 to 1' in said.err
    images(tmp_path / 'class_called_val', 'val', 'airplane')
    code, said = run(tmp_path / 'class_called_val', '--class-map', str(tmp_path / 'map.txt'))
    assert code == 1  # the file is missing
    (tmp_path / 'map.txt').write_text('airplane\nval\n')
    code, said = run(tmp_path / 'class_called_val', '--class-map', str(tmp_path / 'map.txt'))
    assert code == 0 and '2 images' in said.out
    code, said = run(images(tmp_path / 'split', 'test/airplane'), '--split', 'test[:1]')
    assert code == 1 and 'A folder of images has splits, and no slices of them' in said.err
    found = os.walk

    def walk(top, onerror=None, **kwargs):
        if onerror:
            onerror(PermissionError(13, 'Permission denied', 'secret'))
        return found(top, **kwargs)

    monkeypatch.setattr(os, 'walk', walk)
    code, said = run(tmp_path / 'split', '--split', 'test')
    assert code == 1 and "Permission denied: 'secret'" in said.err


def test_damaged_images_and_tar_files_are_one_line(tmp_path, capsys):
    folder = tmp_path / 'val' / 'airplane'
    folder.mkdir(parents=True)
    Image.new('RGB', (32, 32), 'red').save(folder / 'a.png')
    content = (folder / 'a.png').read_bytes()
    damaged = content.replace(b'IDAT', b'ID\0T')
    (tmp_path / 'trunc.tar').write_bytes(b'')
    line = ['validate', '--model', f'{SMALL}.cifar10', '--device', 'cpu', '-j', '0', '--data-dir']
    with tarfile.open(tmp_path / 'ok.tar', 'w') as tar:
        tar.add(folder, arcname='airplane')
    (tmp_path / 'trunc.tar').write_bytes((tmp_path / 'ok.tar').read_bytes()[:700])
    with tarfile.open(tmp_path / 'ok.tar.gz', 'w:gz') as tar:
        tar.add(folder, arcname='airplane')
    with tarfile.open(tmp_path / 'empty.tar', 'w') as tar:
        tar.add(__file__, arcname='a.txt')
    for name, said in (
        ('trunc.tar', 'must be a folder or a tar file without compression'),
        ('ok.tar.gz', 'must be a folder or a tar file without compression'),
        ('empty.tar', 'has no images that timm finds in a tar file'),
    ):
        assert main([*line, str(tmp_path / name)]) == 1
        assert said in capsys.readouterr().err
    (folder / 'a.png').write_bytes(damaged)
    assert main([*line, str(tmp_path)]) == 1
    assert 'a.png cannot be read as an image' in capsys.readouterr().err
    Image.new('1', (20000, 20000)).save(folder / 'a.png')
    assert main([*line, str(tmp_path)]) == 1
    assert 'a.png cannot be read as an image' in capsys.readouterr().err


@pytest.mark.parametrize('workers', ['0', '1'])
def test_a_damaged_sample_of_a_stream_is_an_error(workers, job, tmp_path, capsys):
    write_shards(job, tmp_path / 'wds')
    with webdataset.TarWriter(str(tmp_path / 'wds' / 'val-3.tar')) as tar:
        tar.write({'__key__': 'x', 'png': b'no image', 'cls': 0})
    line = [
        '--data-dir',
        tmp_path / 'wds',
        '--dataset',
        'wds/x',
        '--split',
        'val-{0..3}.tar',
        '--num-samples',
        '36',
        '-j',
        workers,
    ]
    assert main(['validate', *arguments(job, *line), '--input-key', 'png', '--target-key', 'cls']) == 1
    assert 'A sample of the stream cannot be read' in capsys.readouterr().err


def test_rows_of_many_writers_are_all_kept(tmp_path):
    file = tmp_path / 'deep' / 'r.csv'
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: append_row(file, replace(ROW, images=i, model='a,"b"')), range(20)))
    with file.open() as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(int(row['images']) for row in rows) == list(range(20)) and rows[0]['model'] == 'a,"b"'
    assert sorted(f.name for f in file.parent.iterdir()) == ['r.csv', 'r.csv.lock']


def test_a_crash_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / 'r.csv'
    append_row(file, ROW)
    before = file.read_text()
    monkeypatch.setattr('timm_3g.utils.files.os.replace', lambda *_: (_ for _ in ()).throw(OSError('no space left')))
    with pytest.raises(OSError, match='no space left'):
        append_row(file, ROW)
    assert file.read_text() == before


def test_a_foreign_csv_is_refused_before_the_work(job, tmp_path, capsys, monkeypatch):
    (tmp_path / 'other.csv').write_text('a,b\n1,2\n')
    monkeypatch.setattr('timm_3g.cli.validate.validate', lambda options: pytest.fail('evaluated first'))
    assert main(['validate', *arguments(job, '--results-file', tmp_path / 'other.csv')]) == 1
    assert 'has other columns than this version writes' in capsys.readouterr().err
    assert (tmp_path / 'other.csv').read_text() == 'a,b\n1,2\n'


def test_the_transform_is_timms_for_evaluation():
    """What `by hand` above resizes to is what timm's own transform does at this crop_pct."""
    model = timm.create_model(SMALL, device='meta')
    config = {**resolve_data_config({'crop_pct': 0.9}, model=model)}
    assert create_transform(**config).transforms[0].size == int(32 / 0.9)


def test_what_is_recorded_is_taken_and_said(job, tmp_path, capsys):
    """The figures are those of timm told the same values."""
    recorded = {'img_size': 40, 'mean': [0.3, 0.2, 0.6], 'std': [0.4, 0.2, 0.3], 'interpolation': 'bicubic', 'crop_pct': 0.8}
    content = torch.load(job / 'last.pth.tar', weights_only=True)
    args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={}, **recorded)
    torch.save({**content, 'args': args}, tmp_path / 'last.pth.tar')
    own = ['--model', SMALL, '--data-dir', str(job), '--split', 'val', '--device', 'cpu', '-b', '10', '-j', '0']
    own += ['--results-file', str(tmp_path / 'r.csv'), '--checkpoint']
    told = [str(job / 'last.pth.tar'), '--img-size', '40', '--mean', '0.3', '0.2', '0.6', '--std', '0.4', '0.2', '0.3']
    told += ['--interpolation', 'bicubic', '--crop-pct', '0.8']
    assert main(['validate', *own, *told]) == 0
    assert 'As recorded' not in capsys.readouterr().err
    assert main(['validate', *own, str(tmp_path / 'last.pth.tar')]) == 0
    err = capsys.readouterr().err
    assert 'input_size 3 40 40, interpolation bicubic, mean 0.3 0.2 0.6, std 0.4 0.2 0.3, crop_pct 0.8.' in err
    assert main(['validate', *own, str(job / 'last.pth.tar')]) == 0
    with (tmp_path / 'r.csv').open() as file:
        by_options, by_record, without = csv.DictReader(file)
    same = ('top1_count', 'top5_count', 'img_size', 'crop_pct', 'interpolation')
    assert [by_options[name] for name in same] == [by_record[name] for name in same]
    assert by_record['top1_count'] != without['top1_count'], 'the record must matter'


def test_class_names_beside_the_checkpoint_settle_the_indices(job, tmp_path, capsys):
    """Of a folder that has only some of the classes, here the last three."""
    weights = tmp_path / 'last.pth.tar'
    weights.write_bytes((job / 'last.pth.tar').read_bytes())
    (tmp_path / 'class_names.txt').write_text(''.join(f'class{c}\n' for c in range(CLASSES)))
    for c in (4, 5, 6):
        (tmp_path / 'data' / 'val').mkdir(parents=True, exist_ok=True)
        (tmp_path / 'data' / 'val' / f'class{c}').symlink_to(job / 'val' / f'class{c}')
    row = validate(job, tmp_path / 'r.csv', '--checkpoint', weights, '--data-dir', tmp_path / 'data')
    logits, labels = logits_by_hand(job, 1)
    kept = labels >= 4
    assert int(row['images']) == int(kept.sum()) == 15
    assert int(row['top1_count']) == int((logits.argmax(1) == labels)[kept].sum())


def accuracy(capsys, *command):
    """Of `timm-3g validate`: (images, top-1), and what it says."""
    assert main(['validate', *map(str, command), '-j', '0', '--device', 'cpu']) == 0
    out, err = capsys.readouterr()
    return out, err


@pytest.fixture
def photos(tmp_path):
    """A folder of three of CIFAR-10's classes, none of them the first, and an image of each by the model's own answer."""
    model = timm.create_model(f'{SMALL}.cifar10', pretrained=True).eval()
    names, rng = model.pretrained_cfg['label_names'], np.random.default_rng(0)
    wanted = {'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'}
    while len(wanted) > 5:
        image = Image.fromarray((rng.random((2, 2, 3)) * 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        x = TF.normalize(TF.to_tensor(image), model.pretrained_cfg['mean'], model.pretrained_cfg['std'])[None]
        name = names[int(model(x).argmax())]
        if name in wanted:
            wanted.remove(name)
            (tmp_path / 'photos' / name).mkdir(parents=True)
            image.save(tmp_path / 'photos' / name / 'a.png')
    return tmp_path / 'photos'


def test_the_names_of_the_classes_number_a_folder_that_has_only_some(photos, tmp_path, capsys):
    own = f'{SMALL}.cifar10'
    shipped, first = timm.get_pretrained_cfg(own).file, min(folder.name for folder in photos.iterdir())
    for which in (['--model', own], ['--model', SMALL, '--checkpoint', shipped]):
        out, err = accuracy(capsys, *which, '--data-dir', photos)
        assert 'Acc@1 100.000' in out and '3 images' in out and 'left out' not in err
    (tmp_path / 'names.txt').write_text(
        ''.join(f'{name}\n' for name in timm.get_pretrained_cfg(own).label_names if name != 'cat')
    )
    out, err = accuracy(capsys, '--model', own, '--data-dir', photos, '--class-map', tmp_path / 'names.txt')
    assert '2 images' in out and f'names.txt does not name {first}: left out.' in err
    (photos / 'zebra').mkdir()
    (photos / 'zebra' / 'a.png').symlink_to(photos / first / 'a.png')
    assert main(['validate', '--model', own, '--data-dir', str(photos), '-j', '0', '--device', 'cpu']) == 1
    err = capsys.readouterr().err
    assert 'has folders that are no classes of these weights: zebra. Their classes: airplane, ' in err and ' and 2 more' in err


def test_a_folder_with_splits_needs_the_name_of_one(tmp_path, capsys):
    image_folder(tmp_path, {'train': 1, 'test': 1})
    command = ['validate', '--model', f'{SMALL}.cifar10', '--data-dir', str(tmp_path), '-j', '0', '--device', 'cpu']
    assert main(command) == 1
    assert "has no split 'validation'" in capsys.readouterr().err
    assert main([*command, '--dataset', 'folder', '--split', 'typo']) == 1  # timm takes any word for a folder
    assert "has no split 'typo'" in capsys.readouterr().err
    assert main([*command, '--dataset', 'hfd/x']) == 1
    assert "must begin with hfds/, hfids/, tfds/, torch/ or wds/; got 'hfd/x'" in capsys.readouterr().err


def test_a_package_that_a_data_set_needs(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'datasets', None)
    command = ['validate', '--model', f'{SMALL}.cifar10', '--data-dir', str(tmp_path), '--dataset', 'hfds/x', '-j', '0']
    assert main([*command, '--device', 'cpu']) == 1
    assert "'hfds/x' needs a package: pip install datasets" in capsys.readouterr().err


def test_logits_that_are_not_finite_are_no_accuracy():
    logits = torch.zeros(3, 2)
    logits[1, 0] = float('inf')
    counts = Counts(images=10)
    with pytest.raises(ValueError, match='The logits of image 12 of this process are not finite'):
        counts.add(logits, torch.zeros(3, dtype=torch.long))
    assert counts == Counts(images=10)


def test_other_classes_than_the_weights_are_refused(job, capsys):
    options = ['--data-dir', str(job), '--split', 'val', '-j', '0', '--device', 'cpu']
    for number in (0, 6, 20):
        assert main(['validate', '--model', f'{SMALL}.cifar10', *options, '--num-classes', str(number)]) == 1
        out, err = capsys.readouterr()
        assert f'have 10 classes; with --num-classes {number} the classifier' in err and 'Acc@1' not in out


def test_postscript_is_not_started(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *_, **__: pytest.fail('Ghostscript was started'))
    image_folder(tmp_path, {'val': 1})
    (file,) = (tmp_path / 'val' / 'class0').iterdir()
    file.write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\nshowpage\n%%EOF\n')
    command = ['validate', '--model', f'{SMALL}.cifar10', '--data-dir', str(tmp_path), '--split', 'val', '-j', '0']
    assert main([*command, '--device', 'cpu']) == 1
    assert f'{file} cannot be read as an image' in capsys.readouterr().err


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_image_is_an_error(tmp_path, workers):
    """timm would count its neighbour twice."""
    image_folder(tmp_path, {'val': 2}, classes=2)
    (tmp_path / 'val' / 'class1' / '0.png').write_bytes(b'damaged')
    with pytest.raises(ValueError, match=r'^\S*val/class1/0\.png cannot be read as an image\. Replace or remove it\.$'):
        timm_3g.validate(f'{SMALL}.cifar10', tmp_path, split='val', workers=workers, device='cpu')


def test_images_cannot_be_fewer_than_one(job, capsys):
    assert main(['validate', *arguments(job, '--num-samples', -1)]) == 1
    assert '--num-samples must be at least 1; got -1' in capsys.readouterr().err


def test_the_results_file_is_checked_before_the_work(job, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('timm_3g.cli.validate.validate', lambda options: pytest.fail('evaluated first'))
    (tmp_path / 'plain').write_text('x')
    (tmp_path / 'long.csv').write_text('x' * 200_000)
    for file, message in (
        ('plain/r.csv', 'cannot be written'),
        ('', 'is not a regular file'),
        ('long.csv', 'is not a CSV of results'),
    ):
        assert main(['validate', *arguments(job, '--results-file', tmp_path / file)]) == 1
        err = capsys.readouterr().err
        assert message in err and err.count('\n') == 1
    assert (tmp_path / 'long.csv').read_text() == 'x' * 200_000


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'dataset': 'torch/cifar10'}, 'data_dir must name the folder that torch/cifar10 is in'),
        ({'dataset': 'torch/nosuch', 'data_dir': '.'}, "dataset must be a data set that timm knows; got 'torch/nosuch'"),
    ],
)
def test_data_sets_of_torchvision(options, message):
    with pytest.raises(ValueError, match=message):
        timm_3g.validate(f'{SMALL}.cifar10', workers=0, device='cpu', **options)
