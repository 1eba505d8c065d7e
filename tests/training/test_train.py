"""`timm-3g train` and `run`: where timm's scripts come from, the check of what train.py is given, and real runs of them."""

import contextlib
import hashlib
import http.server
import os
import re
import shutil
import signal
import socketserver
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
import yaml
from common import SMALL, image_folder

from timm_3g.checkpoints import open_weights
from timm_3g.training import timm_scripts as scripts
from timm_3g.training.keep_class_names import keep_class_names
from timm_3g.training.train_arguments import check_arguments, check_config
from timm_3g_cli import main

SUPPORT = Path(__file__).parents[1] / 'support'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of scripts, and one pinned script, `train.py` of one line."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.delenv('TIMM_SCRIPTS', raising=False)
    text = b'import sys; print("ran", *sys.argv[1:])\n'
    monkeypatch.setattr(scripts, 'SHA256', {'train.py': hashlib.sha256(text).hexdigest()})
    return text


@pytest.fixture
def server(tmp_path):
    """A folder on http, the requests it got, and its address."""
    folder, requests = tmp_path / 'served', []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def do_GET(self):
            requests.append(self.path)
            time.sleep(0.2)  # long enough for others to want the file too
            super().do_GET()

        def log_message(self, *args):
            pass

    with socketserver.ThreadingTCPServer(('127.0.0.1', 0), Handler) as http_server:
        threading.Thread(target=http_server.serve_forever, daemon=True).start()
        yield folder, requests, f'http://127.0.0.1:{http_server.server_address[1]}'
        http_server.shutdown()


def test_a_named_folder_comes_first_then_the_environment(tmp_path, monkeypatch, cache):
    for name in ('option', 'environment'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'train.py').touch()
    monkeypatch.setenv('TIMM_SCRIPTS', str(tmp_path / 'environment'))
    assert scripts.find_script('train.py', tmp_path / 'option') == tmp_path / 'option' / 'train.py'
    assert scripts.find_script('train.py') == tmp_path / 'environment' / 'train.py'
    with pytest.raises(FileNotFoundError, match=r'\$TIMM_SCRIPTS is .* which holds no validate.py'):
        scripts.find_script('validate.py')


def test_download_once_then_the_cache(cache, server, capsys):
    folder, requests, url = server
    (folder / 'train.py').write_bytes(cache)
    script = scripts.find_script('train.py', url=url)
    assert script.read_bytes() == cache and script.parent == scripts.cache_dir()
    assert 'fetching' in capsys.readouterr().err
    assert scripts.find_script('train.py', url=url) == script
    assert requests == ['/train.py']
    script.write_bytes(b'damaged')  # a cached copy that is not the pinned file is none
    assert scripts.find_script('train.py', url=url).read_bytes() == cache


def test_what_is_not_the_pinned_file_is_refused_and_not_kept(cache, server):
    folder, _, url = server
    (folder / 'train.py').write_bytes(cache + b'# other')
    with pytest.raises(OSError, match='what came is not the pinned file'):
        scripts.find_script('train.py', url=url)
    assert not [f for f in scripts.cache_dir().iterdir() if f.suffix != '.lock']


@pytest.mark.slow
def test_one_process_downloads_while_the_others_wait(cache, server, tmp_path):
    folder, requests, url = server
    (folder / 'train.py').write_bytes(cache)
    code = (
        'from timm_3g.training import timm_scripts as s\n'
        f's.SHA256 = {scripts.SHA256!r}\n'
        f'print(s.find_script("train.py", url={url!r}).read_bytes() == {cache!r})'
    )
    ranks = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [rank.communicate()[0].strip() for rank in ranks] == ['True'] * 2
    assert requests == ['/train.py']


def test_without_network_the_error_says_what_to_do(cache, server):
    *_, url = server  # it serves no train.py
    with pytest.raises(OSError, match=r'could not be fetched.*404.*git clone.*--timm-scripts DIR or set \$TIMM_SCRIPTS'):
        scripts.find_script('train.py', url=url)
    with pytest.raises(OSError, match='could not be fetched'):
        scripts.find_script('train.py', url='http://127.0.0.1:9')
    with pytest.raises(ValueError, match=r"'bulk_runner.py' is none of the scripts known here: train.py"):
        scripts.find_script('bulk_runner.py', url=url)


def test_arguments_reach_the_script_as_they_are(tmp_path, capfd):
    (tmp_path / 'echo.py').write_text('import sys, timm; print(sys.argv[1:], timm.is_model("resnet50_3g"))')
    assert main(['run', '--timm-scripts', str(tmp_path), 'echo', 'out.onnx', '--model', 'x', '--help', '-b', '4']) == 0
    assert "['out.onnx', '--model', 'x', '--help', '-b', '4'] True" in capfd.readouterr().out


def test_a_crash_of_the_script_keeps_its_traceback(tmp_path):
    (tmp_path / 'crash.py').write_text('raise RuntimeError("inside")')
    with pytest.raises(RuntimeError, match='inside') as raised:
        main(['run', '--timm-scripts', str(tmp_path), 'crash.py'])
    assert raised.traceback[-1].path == tmp_path / 'crash.py'


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'model': SMALL, 'weight-decay': 0.1}, r"unknown key 'weight-decay'\. Nearest: weight_decay"),
        ({'model': SMALL, 'smothing': 0.1}, r"unknown key 'smothing'\. Nearest: smoothing"),
        ({'model': SMALL, 'model_kwargs': {'num_reweigths': 1}}, r"'num_reweigths' in model_kwargs\. Nearest: num_reweights"),
        ({'model': 'resnet50', 'model_kwargs': {'stem_widht': 1}}, r"'stem_widht' in model_kwargs\. Nearest: stem_width"),
        (
            {'model': SMALL, 'opt': 'momentum', 'opt_kwargs': {'filter_bias_bn': False}},
            r"'filter_bias_bn' in opt_kwargs\. Nearest: filter_bias_and_bn",
        ),
        ({'model': 'regnety_004', 'model_kwargs': {'se_ration': 0.5}}, r"'se_ration' in model_kwargs\. Nearest: se_ratio"),
        ({'model': SMALL, 'model_kwargs': {'drop_rate': 0.1}}, r"'drop_rate' in model_kwargs is train.py's own option drop;"),
        ({'model': SMALL, 'opt': 'adamw', 'opt_kwargs': {'lr': 0.1}}, r"'lr' in opt_kwargs is train.py's own option lr;"),
        ({'model': SMALL, 'model_kwargs': None}, r'model_kwargs must map names to values; got None'),
        (['model'], r'must map option names to values; it holds list'),
    ],
)
def test_misspelt_keys_are_errors(content, message, tmp_path, timm_script, capsys):
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=message) as error:
        check_arguments(timm_script('train.py'), ['--config', str(file)])
    assert str(file) in str(error.value)


def test_right_keys_pass(tmp_path, timm_script):
    file = tmp_path / 'recipe.yaml'
    content = {
        'model': 'densenet121',
        'model_kwargs': {'growth_rate': 16, 'memory_efficient': True},
        'opt': 'nmuon',
        'opt_kwargs': {'filter_bias_and_bn': False, 'ns_steps': 4},
        'weight_decay': '1e-4',
    }
    file.write_text(yaml.safe_dump(content))
    check_arguments(timm_script('train.py'), ['-c', str(file), '--model-kwargs', 'bn_size=2'])
    check_arguments(timm_script('train.py'), ['--model', SMALL, '--opt', 'lookahead_adamw', '--opt-kwargs', 'amsgrad=True'])
    with pytest.raises(ValueError, match="the command line: unknown key 'growth'"):
        check_arguments(timm_script('train.py'), ['--model', 'densenet121', '--model-kwargs', 'growth=1'])
    assert check_config(file, content) == content


def test_blame_falls_on_the_file_even_where_the_command_line_wins(tmp_path, timm_script):
    file = tmp_path / 'recipe.yaml'
    file.write_text(yaml.safe_dump({'model': SMALL, 'model_kwargs': {'num_iter': 3}}))
    with pytest.raises(ValueError, match=r"recipe.yaml: unknown key 'num_iter' in model_kwargs\. Nearest: num_iters"):
        check_arguments(timm_script('train.py'), ['--config', str(file), '--model-kwargs', 'num_iters=3'])


def test_what_is_no_yaml_or_not_there(tmp_path, timm_script):
    (tmp_path / 'broken.yaml').write_text('model: [')
    with pytest.raises(ValueError, match=r'broken.yaml is no YAML that can be used: .*line 1'):
        check_arguments(timm_script('train.py'), ['--config', str(tmp_path / 'broken.yaml')])
    for option in ('--resume', '--initial-checkpoint', '--pretrained-path'):
        with pytest.raises(FileNotFoundError, match=rf'{option} gone.pth.tar: there is no such file'):
            check_arguments(timm_script('train.py'), ['--model', SMALL, option, 'gone.pth.tar'])
    (tmp_path / 'a.pth').touch()
    with pytest.raises(ValueError, match=r'reads --pretrained-path with --pretrained alone. Add --pretrained'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--pretrained-path', str(tmp_path / 'a.pth')])
    with pytest.raises(ValueError, match=r'Name the images: --data-dir DIR'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--device', 'cpu'], for_run=True)
    with pytest.raises(FileNotFoundError, match=r'gone.txt does not exist. A class map'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--class-map', 'gone.txt'])
    with pytest.raises(FileNotFoundError, match=r'gone.yaml is not there. Name a YAML file'):
        check_arguments(timm_script('train.py'), ['--config', 'gone.yaml'])
    (tmp_path / 'latin.yaml').write_bytes('model: é'.encode('latin-1'))
    with pytest.raises(ValueError, match=r'latin.yaml is no YAML that can be used'):
        check_arguments(timm_script('train.py'), ['--config', str(tmp_path / 'latin.yaml')])


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--eval-metric', 'top-1'], r"--eval-metric must be one of top1, top5, loss; got 'top-1'"),
        (['--lr-base-scale', 'lineer'], r"--lr-base-scale must be one of '', linear, sqrt; got 'lineer'"),
        (['--dist-bn', 'foo'], r"--dist-bn must be one of reduce, broadcast, ''; got 'foo'"),
        (['--amp-dtype', 'fp16'], r"--amp-dtype must be one of float16, bfloat16; got 'fp16'"),
        (['--lr-base-size', '0'], r'--lr-base-size must be positive; got 0'),
    ],
)
def test_words_that_train_takes_for_something_else(words, message, timm_script):
    with pytest.raises(ValueError, match=message):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--device', 'cpu', *words])


def test_a_misspelt_option(timm_script):
    with pytest.raises(ValueError, match=r'train\.py has no option --epcohs\. Nearest: --epochs'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--epcohs', '2'])
    with pytest.raises(ValueError, match=r'train\.py has no option --xyzzy\. --help lists its options\.'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--xyzzy=2'])


def test_a_key_that_stands_twice(tmp_path, timm_script):
    file = tmp_path / 'recipe.yaml'
    for text in ('lr: 0.1\nlr: 0.9\n', 'opt_kwargs: {eps: 0.1, eps: 0.2}\n'):
        file.write_text(f'model: {SMALL}\n{text}')
        with pytest.raises(ValueError, match=r"recipe.yaml is no YAML that can be used: the key '(lr|eps)' stands twice"):
            check_arguments(timm_script('train.py'), ['--config', str(file)])


def test_what_the_command_line_replaces_is_said(tmp_path, timm_script, capsys):
    file = tmp_path / 'recipe.yaml'
    file.write_text(f'model: {SMALL}\nmodel_kwargs: {{head_init: orig, num_iters: 5}}\n')
    check_arguments(timm_script('train.py'), ['--config', str(file), '--device', 'cpu'])
    assert 'replaces' not in capsys.readouterr().err
    check_arguments(timm_script('train.py'), ['--config', str(file), '--device', 'cpu', '--model-kwargs', 'num_iters=3'])
    assert f'--model-kwargs replaces all of model_kwargs in {file}: head_init no longer counts.' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('model_kwargs: {eps: 1e-7}', r"model_kwargs\.eps is the string '1e-7', not a number\. Write 1\.0e-7\."),
        ('opt_kwargs: {eps: 2.5e7}', r"opt_kwargs\.eps is the string '2\.5e7', not a number\. Write 25000000\.0\."),
        ('opt_kwargs: {betas: [0.9, "5"]}', r"opt_kwargs\.betas\[1\] is the string '5', not a number\. Write 5\."),
        ('scale: [1e-1, 1]', r"scale\[0\] is the string '1e-1', not a number\. Write 0\.1\."),
        ('epochs: 1.5', r'epochs must be an integer; got 1\.5'),
        ('lr: [1]', r'lr must be a number; got \[1\]'),
        ('lr: true', r'lr must be a number; got True'),
        ('lr: fast', r"lr must be a number; got 'fast'"),
        ('experiment: 20240101', r'experiment must be text; got 20240101\. Write it in quotes\.'),
        ('output: true', r'output must be text; got True'),
        ('mean: 0.5', r'mean must be a list; got 0\.5\. Write \[0\.5\]\.'),
        ('no_aug: "false"', r"no_aug must be true or false; got 'false'"),
    ],
)
def test_values_of_the_wrong_type_are_errors(text, message, tmp_path, timm_script):
    file = tmp_path / 'recipe.yaml'
    file.write_text(f'model: {SMALL}\n{text}\n')
    with pytest.raises(ValueError, match=message) as error:
        check_arguments(timm_script('train.py'), ['--config', str(file)])
    assert str(error.value).startswith(f'{file}: ')


def test_the_remedy_for_a_string_that_is_a_number_works(tmp_path, timm_script):
    file = tmp_path / 'recipe.yaml'
    for number in ('1e-7', '2.5e7', '5', '-3e-12', '1e30'):
        file.write_text(f'model: {SMALL}\nopt: adamw\nopt_kwargs: {{eps: "{number}"}}\n')
        with pytest.raises(ValueError, match='Write ') as error:
            check_arguments(timm_script('train.py'), ['--config', str(file)])
        remedy = str(error.value).partition('Write ')[2].removesuffix('.')
        assert yaml.safe_load(remedy) == float(number)


def test_without_a_gpu_the_cpu_trains_unless_a_device_is_named(tmp_path, timm_script, monkeypatch, capsys):
    script = timm_script('train.py')
    (tmp_path / 'device.yaml').write_text('device: cuda')
    named = (['--device=cuda'], ['-c', str(tmp_path / 'device.yaml')])
    for gpu in (True, False):
        monkeypatch.setattr('torch.cuda.is_available', lambda gpu=gpu: gpu)
        assert check_arguments(script, ['--model', SMALL]) == ([] if gpu else ['--device', 'cpu'])
        assert ('There is no GPU: training on the CPU' in capsys.readouterr().err) is not gpu
        for words in named:
            with contextlib.nullcontext() if gpu else pytest.raises(ValueError, match='--device cuda: there is no GPU'):
                assert check_arguments(script, ['--model', SMALL, *words]) == []


def test_a_misspelt_model_or_folder(timm_script):
    with pytest.raises(ValueError, match=r"'resnet10_mini_g3' is no architecture .* Nearest: resnet10_mini_3g"):
        check_arguments(timm_script('train.py'), ['--model', 'resnet10_mini_g3'])
    with pytest.raises(FileNotFoundError, match='--data-dir nowhere: there is no such folder'):
        check_arguments(timm_script('train.py'), ['--model', SMALL, '--data-dir', 'nowhere'])


def test_a_tar_file_has_no_split_to_validate_on(timm_script, tmp_path):
    with tarfile.open(tmp_path / 'all.tar', 'w') as tar:
        tar.add(__file__, arcname='cat/a.png')
    line = ['--model', SMALL, '--data-dir', str(tmp_path / 'all.tar'), '--device', 'cpu']
    with pytest.raises(ValueError, match='it would validate on what it trains on'):
        check_arguments(timm_script('train.py'), line)
    assert check_arguments(timm_script('train.py'), [*line, '--val-split', '']) == []


def test_a_folder_that_holds_no_model(timm_script, tmp_path):
    for config, error, said in (
        (None, FileNotFoundError, 'there is no config.json in this folder'),
        ('{"architecture": 3}', ValueError, 'names no architecture: 3'),
    ):
        if config:
            (tmp_path / 'config.json').write_text(config)
        with pytest.raises(error, match=said):
            check_arguments(timm_script('train.py'), ['--model', f'local-dir:{tmp_path}'])


@pytest.mark.parametrize('wanted', [{'b': 0, 'a': 1}, {'a': 0, 'b': 2}, {'a\nb': 0}, None])
def test_class_names_are_kept_where_a_file_of_lines_can_keep_them(wanted, tmp_path, monkeypatch):
    dataset = SimpleNamespace(reader=SimpleNamespace(class_to_idx=wanted))
    monkeypatch.setattr(timm.data, 'create_dataset', lambda *_, **__: dataset)
    before = timm.data.create_dataset, timm.utils.CheckpointSaver
    with keep_class_names():
        timm.data.create_dataset('', is_training=True)
        timm.utils.CheckpointSaver(None, None, checkpoint_dir=str(tmp_path))
    assert (timm.data.create_dataset, timm.utils.CheckpointSaver) == before
    files = {f.name: f.read_text() for f in tmp_path.iterdir()}
    assert files == ({'class_names.txt': 'b\na\n'} if wanted == {'b': 0, 'a': 1} else {})


def test_validation_images_have_the_indices_of_the_training_images(tmp_path):
    image_folder(tmp_path, {'train': 1, 'val': 1})
    shutil.rmtree(tmp_path / 'val' / 'class0')
    with keep_class_names():
        for split, training, numbers in (('train', True, {0, 1, 2}), ('val', False, {1, 2})):
            dataset = timm.data.create_dataset('', root=str(tmp_path), split=split, is_training=training, class_map='')
            assert {label for _, label in dataset} == numbers
        (tmp_path / 'val' / 'class1').rename(tmp_path / 'val' / 'zebra')
        with pytest.raises(ValueError, match='classes that the training images do not have: zebra'):
            timm.data.create_dataset('', root=str(tmp_path), split='val', is_training=False, class_map='')


@pytest.mark.parametrize(
    ('classes', 'said'),
    [
        (3, ''),
        (10, 'The network has 10 outputs for 3 classes. --num-classes 3 leaves out the others.\n'),
        (2, 'The training images have 3 classes, the network has 2 outputs. Give --num-classes 3.'),
    ],
)
@pytest.mark.parametrize('rank', ['0', '1'])
def test_classes_and_outputs(classes, said, rank, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('RANK', rank)
    monkeypatch.setenv('WORLD_SIZE', '2')
    image_folder(tmp_path, {'train': 1})
    before = timm.models.create_model
    with keep_class_names():
        timm.models.create_model(SMALL, num_classes=classes)
        timm.models.create_model(SMALL, num_classes=1)  # a teacher
        with pytest.raises(ValueError, match=re.escape(said)) if classes < 3 else contextlib.nullcontext():
            timm.data.create_dataset('', root=str(tmp_path), split='train', is_training=True, class_map='')
    assert timm.models.create_model is before
    assert capsys.readouterr().err == (said if classes > 3 and rank == '0' else '')


def test_splits_that_are_not_there(data, timm_script):
    with pytest.raises(ValueError, match="has no split 'trian'"):  # without validation, too
        check_arguments(timm_script('train.py'), ['--data-dir', str(data), '--val-split', '', '--train-split', 'trian'])
    for option in ('--train-split', '--val-split'):
        with pytest.raises(ValueError, match="has no split 'holdout'"):
            check_arguments(timm_script('train.py'), ['--data-dir', str(data), '--val-split', 'val', option, 'holdout'])


def test_scripts_option_after_the_script_is_an_error(tmp_path, capsys):
    assert main(['run', 'validate.py', '--timm-scripts', str(tmp_path)]) == 1
    assert '--timm-scripts stands before the name of the script' in capsys.readouterr().err


def train_command(data, output, *args, processes=1):
    """`timm-3g train` on a small job: no augmentation, so that a seed settles everything."""
    launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}'] if processes > 1 else []
    job = [
        f'--model={SMALL}', '--num-classes=3', f'--data-dir={data}', '--val-split=val', '--device=cpu', '--epochs=3',
        '--opt=adamw', '--lr=1e-3', '--warmup-epochs=0', '--no-aug', '-b=8', '-j=0', '--no-prefetcher', '--log-interval=1',
        f'--output={output}', '--experiment=run', '--seed=1',
    ]  # fmt: skip
    return [sys.executable, *launch, '-m', 'timm_3g', 'train', *job, *args]


def environment():
    """Ours, with the helper modules of the tests importable and one thread a process."""
    path = os.pathsep.join([str(SUPPORT), os.environ.get('PYTHONPATH', '')])
    return {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1'}


def finish(command, timeout=900):
    """Run a command to its end; what it printed and its return code."""
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout)
    return done.stdout + done.stderr, done.returncode


# float32 sums in another order: two processes add their gradients in the order in which they come.
RESUMED = {'rtol': 1e-4, 'atol': 1e-5}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp('data'), {'train': 16, 'val': 5}, classes=3)


def kill_all(mark):
    """Kill every process with `mark` in its command line: torchrun gives its workers sessions of their own."""
    for entry in Path('/proc').glob('[0-9]*/cmdline'):
        with contextlib.suppress(OSError):
            if mark.encode() in entry.read_bytes() and int(entry.parent.name) != os.getpid():
                os.kill(int(entry.parent.name), signal.SIGKILL)


def kill_twice_then_finish(data, output, processes, shim):
    """Train into output/run, killed in the second checkpoint, and again in the second epoch of the resumed run."""
    run = output / 'run'
    killer = ['--device-modules', *shim[1:], 'die_while_saving']
    out, code = finish(train_command(data, output, *killer, processes=processes))
    assert code != 0
    # The first checkpoint is whole; the half-written second one never took a checkpoint's name.
    open_weights(run / 'last.pth.tar')
    names = sorted(f.name for f in run.glob('*.pth.tar'))
    assert names == ['checkpoint-0.pth.tar', 'last.pth.tar', 'model_best.pth.tar', 'tmp.pth.tar'], out
    out, code = finish(train_command(data, output, *shim, '--resume', str(run / 'tmp.pth.tar')))
    assert code == 1 and 'cannot be read as weights' in out and 'Traceback' not in out

    command = train_command(data, output, *shim, '--resume', str(run / 'last.pth.tar'), processes=processes)
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith('Train: 1 ['):
                kill_all(str(output))
                break
    assert process.returncode != 0

    out, code = finish(command)
    assert code == 0, out
    # The epoch whose checkpoint was lost is there twice: train.py appends to its summary before it saves.
    epochs = [line.split(',')[0] for line in (run / 'summary.csv').read_text().splitlines() if line[0] != 'e']
    assert epochs == ['0', '1', '1', '2']
    return run


@pytest.mark.slow
def test_one_process_killed_in_a_checkpoint_and_in_an_epoch_resumes(data, tmp_path, timm_script):
    timm_script('train.py')
    run = kill_twice_then_finish(data, tmp_path, 1, [])
    rows = (run / 'summary.csv').read_text().splitlines()
    first, last = (float(row.split(',')[1]) for row in (rows[1], rows[-1]))
    assert last < first, 'the loss goes on from where it was'
    assert (run / 'class_names.txt').read_text() == 'class0\nclass1\nclass2\n'


@pytest.mark.slow
def test_two_processes_killed_and_resumed_end_as_an_uninterrupted_run(data, tmp_path, timm_script):
    """There the order of images depends on the epoch alone; in one process it comes from a stream that a resume restarts."""
    timm_script('train.py')
    shim = ['--device-modules', 'ddp_on_cpu']
    out, code = finish(train_command(data, tmp_path / 'whole', *shim, processes=2))
    assert code == 0, out
    whole, broken = tmp_path / 'whole' / 'run', kill_twice_then_finish(data, tmp_path / 'broken', 2, shim)
    ours, theirs = (open_weights(tmp / 'last.pth.tar').tensors for tmp in (broken, whole))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **RESUMED, msg=name)
    figures = [(run / 'summary.csv').read_text().splitlines()[-1].split(',')[3] for run in (whole, broken)]
    assert figures[0] == figures[1]
