"""The command line: --help with a runnable example, export end to end, demo on a few images, errors in one line."""

import argparse
import io
import runpy
import subprocess
import sys

import pytest
import timm
import torch
from common import SMALL
from safetensors.torch import load_file

import timm_3g
from timm_3g.cli import curves
from timm_3g.training import digits_demo as demo
from timm_3g.training.curves import read_summary
from timm_3g_cli import VERBS, main


@pytest.mark.parametrize('verb', VERBS)
def test_help_shows_a_runnable_example(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, '--help'])
    assert stop.value.code == 0
    assert f'example:\n  timm-3g {verb}' in capsys.readouterr().out


def test_python_dash_m_lists_the_verbs(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['timm_3g', '--help'])
    monkeypatch.delitem(sys.modules, 'timm_3g.__main__', raising=False)  # other tests import it
    with pytest.raises(SystemExit) as stop:
        runpy.run_module('timm_3g', run_name='__main__', alter_sys=True)
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(verb in out for verb in VERBS)


def test_export(tmp_path, capsys):
    model = timm.create_model(SMALL, num_classes=4).eval()
    torch.save({'state_dict': {f'module.{k}': v for k, v in model.state_dict().items()}, 'epoch': 3}, tmp_path / 'best.pth.tar')
    assert main(['export', str(tmp_path / 'best.pth.tar'), '--model', SMALL, '--output', str(tmp_path / 'out')]) == 0
    out = capsys.readouterr().out
    assert 'read back, logits equal' in out and f"timm.create_model('local-dir:{tmp_path / 'out'}', pretrained=True)" in out
    x = torch.randn(1, 3, 32, 32)
    again = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()
    assert torch.equal(again(x), model(x))

    golden = load_file(tmp_path / 'out' / 'golden.safetensors')
    with torch.inference_mode():  # where a gradient is wanted, the root is computed in another form
        assert torch.equal(model(golden['input']), golden['logits']) and golden['input'].shape == (1, 3, 32, 32)


def test_export_keeps_how_the_run_prepared_its_images(tmp_path):
    """As train.py records it; what was not given stays the model's own."""
    args = argparse.Namespace(model=SMALL, img_size=48, mean=[0.1, 0.2, 0.3], crop_pct=0.8, std=None, interpolation='')
    state = timm.create_model(SMALL).state_dict()
    torch.save({'state_dict': state, 'args': args}, tmp_path / 'last.pth.tar')
    assert main(['export', str(tmp_path / 'last.pth.tar'), '--model', SMALL, '--output', str(tmp_path / 'out')]) == 0
    cfg = timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).pretrained_cfg
    own = timm.create_model(SMALL).pretrained_cfg
    assert [*cfg['input_size']] == [3, 48, 48] and [*cfg['mean']] == [0.1, 0.2, 0.3] and cfg['crop_pct'] == 0.8
    assert [*cfg['std']] == [*own['std']] and cfg['interpolation'] == own['interpolation']
    # What the weights of the default tag are called, licensed and trained on is not said of these.
    assert not cfg.get('label_names') and not cfg.get('license') and cfg.get('tag') != own['tag']


def test_errors_are_one_line_and_exit_code_1(tmp_path, capsys):
    assert main(['export', str(tmp_path / 'gone.pth'), '--model', SMALL, '--output', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert error.startswith('timm-3g export: ') and 'gone.pth does not exist' in error and error.count('\n') == 1


def test_missing_extras_are_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    monkeypatch.delitem(sys.modules, 'timm_3g.training.plot', raising=False)
    assert main(['demo', '--epochs', '1']) == 1
    assert "This needs an extra: pip install 'timm_3g[demo] @ git+https://" in capsys.readouterr().err


def test_missing_extras_of_scripts_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'pandas', None)
    monkeypatch.setitem(sys.modules, 'other', None)
    for name in ('pandas', 'other'):
        (tmp_path / f'{name}_user.py').write_text(f'import {name}\n')
    assert main(['run', '--timm-scripts', str(tmp_path), 'pandas_user.py']) == 1
    err = capsys.readouterr().err
    assert "This needs an extra: pip install 'timm_3g[inference] @ git+https://" in err and err.count('\n') == 1
    with pytest.raises(ModuleNotFoundError, match='other'):
        main(['run', '--timm-scripts', str(tmp_path), 'other_user.py'])


def test_demo_trains_and_draws(tmp_path, capsys, monkeypatch):
    train_x, train_y, test_x, test_y = demo.load_digits(seed=0)
    assert train_x.shape == (1437, 1, 32, 32) and test_x.shape[0] == len(test_y) == 360
    # The last batch is one image, which the BatchNorm of bcnn's vector cannot train on.
    monkeypatch.setattr(demo, 'load_digits', lambda seed: (train_x[:65], train_y[:65], test_x[:20], test_y[:20]))
    assert main(['demo', '--epochs', '1', '--pools', '3g', 'avg', 'bcnn', '--output', str(tmp_path / 'demo.png')]) == 0
    out = capsys.readouterr().out
    assert '65 images to train on, 20 held out' in out and '3g ' in out and 'avg ' in out
    assert (tmp_path / 'demo.png').read_bytes().startswith(b'\x89PNG')
    assert [p.name for p in tmp_path.iterdir()] == ['demo.png']
    assert main(['demo', '--epochs', '0']) == 1
    assert '--epochs must be at least 1; got 0' in capsys.readouterr().err


SUMMARY = """epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
0,2.0,1.9,30.0,80.0,0.1
1,1.5,1.4,50.0,90.0,0.1
epoch,train_loss,eval_loss,eval_top1,eval_top5,lr
1,1.6,1.3,60.0,90.0,0.1
2,1.2,1.5,55.0,90.0,0.1
"""


def test_curves(tmp_path, capsys):
    """Of a run that was resumed: header and second epoch are there twice."""
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'summary.csv').write_text(SUMMARY)
    summary = read_summary(tmp_path / 'a')
    columns = {column: summary.column(column) for column in ('train_loss', 'eval_loss', 'eval_top1')}
    assert columns == {'train_loss': [2.0, 1.6, 1.2], 'eval_loss': [1.9, 1.3, 1.5], 'eval_top1': [30.0, 60.0, 55.0]}
    assert main(['curves', str(tmp_path / 'a'), str(tmp_path / 'b'), '--output', str(tmp_path / 'c.png')]) == 0
    assert 'a: 3 epochs, last 55.00 %, best 60.00 % after epoch 2' in capsys.readouterr().out
    assert (tmp_path / 'c.png').read_bytes().startswith(b'\x89PNG')
    assert main(['curves', str(tmp_path)]) == 1
    assert 'holds no summary.csv' in capsys.readouterr().err
    (tmp_path / 'summary.csv').write_text('x,y\n1,2\n')
    assert main(['curves', str(tmp_path)]) == 1
    assert 'is no summary of train.py' in capsys.readouterr().err
    assert main(['curves', str(tmp_path / 'a'), str(tmp_path / 'a')]) == 1
    assert 'must have different names; got a, a' in capsys.readouterr().err
    run = tmp_path / 'a'
    assert main(['curves', str(run), '--output', str(run / 'summary.csv')]) == 1
    assert 'A picture must have a name that ends in .png; got' in capsys.readouterr().err
    (tmp_path / 'link').symlink_to(run)
    assert main(['curves', str(run), str(tmp_path / 'link'), '--output', str(tmp_path / 'd.png')]) == 0
    assert '\nlink: ' in capsys.readouterr().out


def test_curves_of_a_run_without_validation_and_of_two_runs_in_one_folder(tmp_path, capsys):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'summary.csv').write_text('epoch,train_loss,lr\n0,2.0,0.1\n1,1.5,0.1\n')
    assert main(['curves', str(tmp_path / 'a'), '--output', str(tmp_path / 'a.png')]) == 0
    assert 'a: 2 epochs, no accuracy is a number' in capsys.readouterr().out
    header = 'epoch,train_loss,eval_loss,eval_top1\n'
    first, second = '0,2,2,30\n1,2,2,40\n2,2,2,50\n', '0,2,2,20\n1,2,2,25\n'
    (tmp_path / 'a' / 'summary.csv').write_text(header + first + header + second)
    assert read_summary(tmp_path / 'a').column('eval_top1') == [20.0, 25.0]
    (tmp_path / 'a' / 'summary.csv').write_text(header + first + header + '2,2,2,55\n')  # resumed
    assert read_summary(tmp_path / 'a').column('eval_top1') == [30.0, 40.0, 55.0]
    (tmp_path / 'a' / 'summary.csv').write_text(header + first + header + '1,2,2,45\n')  # from an earlier epoch
    assert read_summary(tmp_path / 'a').column('eval_top1') == [30.0, 45.0]
    (tmp_path / 'a' / 'summary.csv').write_text('epoch,train_loss,lr\n0,2.0,0.1\n' + header + '1,2,3,40\n')
    assert read_summary(tmp_path / 'a').column('eval_top1')[1:] == [40.0]


def test_version_and_misspelt_words(capsys):
    for argv, code, said in (
        (['--version'], 0, f'timm_3g {timm_3g.__version__}'),
        (['predit'], 2, "unknown verb 'predit'. Nearest: predict."),
        (['demo', '--epoch', '1'], 2, 'unrecognized arguments: --epoch 1. Nearest: --epochs.'),
    ):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == code and said in ''.join(capsys.readouterr())


def ending_in(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(curves, 'run', run)
    return main(['curves', 'x'])


def test_interrupted_is_130_and_one_line(monkeypatch, capsys):
    assert ending_in(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == 'timm-3g curves: interrupted\n'


def test_programming_errors_keep_their_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        ending_in(monkeypatch, ZeroDivisionError())


def test_messages_are_one_line_that_the_terminal_does_not_obey(monkeypatch, capsys):
    assert ending_in(monkeypatch, ValueError('a\n  b \x1b[2J \u202e \udce9')) == 1
    assert capsys.readouterr().err == 'timm-3g curves: a b \\x1b[2J \\u202e \\udce9\n'


def test_out_of_memory_is_one_line(monkeypatch, capsys):
    assert ending_in(monkeypatch, MemoryError()) == 1
    assert capsys.readouterr().err == 'timm-3g curves: out of memory\n'


PRINTS_A_LOT = """
import sys, types
sys.modules['timm_3g.cli.get'] = types.SimpleNamespace(
    EXAMPLE='', add_arguments=lambda parser: None, run=lambda args: print('line\\n' * 100_000)
)
from timm_3g_cli import main
sys.exit(main(['get']))
"""


def test_a_closed_pipe_is_quiet():
    """As `timm-3g get --list | head -1`: nobody reads on."""
    command = [sys.executable, '-c', PRINTS_A_LOT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == '' and process.wait() == 1


def test_streams_of_any_kind(monkeypatch):
    monkeypatch.setattr(sys, 'stdout', io.StringIO())  # it cannot be configured
    assert main(['get', '--list']) == 0


def test_values_without_a_key_and_weights_that_are_no_file(tmp_path, capsys):
    for given in ('num_iters', '=5', 'num-iters=5'):
        with pytest.raises(SystemExit):
            main(['predict', 'x.png', '--model', 'resnet18_3g', '--model-kwargs', given])
        assert f"--model-kwargs takes KEY=VALUE, e.g. num_iters=5; got '{given}'." in capsys.readouterr().err
    for where, message in ((tmp_path, 'is a folder. Name the weights file in it.'), ('/dev/zero', 'is not a regular file.')):
        assert main(['export', str(where), '--model', 'resnet18_3g']) == 1
        assert capsys.readouterr().err == f'timm-3g export: {where} {message}\n'
