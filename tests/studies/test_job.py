"""One run of a study: what is recorded when train.py is interrupted, and when the training diverges."""

import argparse
import signal
import time
from pathlib import Path

import pytest
import timm
import torch
import yaml
from common import SMALL, image_folder

from timm_3g.inference.model import load_model
from timm_3g.studies import Run, job
from timm_3g.studies.job import Job, train_and_evaluate
from timm_3g.studies.results import Row, read_figures, read_results, write_results

OPTIONS = {
    'model': SMALL,
    'num_classes': 3,
    'img_size': 32,
    'train_split': 'train',
    'val_split': 'val',
    'epochs': 2,
    'batch_size': 8,
    'opt': 'sgd',
    'lr': 0.01,
    'workers': 0,
    'no_prefetcher': True,
    'device': 'cpu',
    'model_kwargs': {'reduce_dim': 8},
}


def a_job(folder: Path, scripts: str | None = None, **options: object) -> Job:
    if not (folder / 'data').exists():
        image_folder(folder / 'data', {'train': 4, 'val': 2, 'test': 3})
    run = Run('3g-s0', 'final', '3g', {}, {}, 0, {**OPTIONS, **options, 'seed': 0}, 'test', ('jpeg-q20',))
    return Job(run, str(folder / 'runs'), str(folder / 'data'), str(folder / 'a.yaml'), scripts)


def ends_after(epoch: int, monkeypatch, of: Job, weight: float = 0.0) -> None:
    """A train.py that returns after an epoch with a checkpoint, whose classifier's weights are all `weight`."""

    def train() -> None:
        model = timm.create_model(SMALL, num_classes=3, reduce_dim=8)
        torch.nn.init.constant_(model.fc.weight, weight)
        of.file('').mkdir(parents=True, exist_ok=True)
        args = argparse.Namespace(model=SMALL, gp=None, model_kwargs={'reduce_dim': 8})
        checkpoint = {'epoch': epoch, 'arch': SMALL, 'state_dict': model.state_dict(), 'args': args}
        torch.save(checkpoint, of.file('') / 'last.pth.tar')
        (of.file('') / 'summary.csv').write_text(f'epoch,train_loss,eval_loss,eval_top1\n{epoch},{weight},{weight},0\n')

    monkeypatch.setattr(job, 'prepare_script', lambda *args: train)


def test_a_training_that_ended_early_is_no_result(tmp_path, monkeypatch):
    """train.py returns as if nothing had happened when Ctrl-C interrupts it."""
    one = a_job(tmp_path)
    ends_after(0, monkeypatch, one)
    with pytest.raises(RuntimeError, match=r'train\.py ended after 1 of 2 epochs\. Start the study again'):
        train_and_evaluate(one)
    (one.file('') / 'last.pth.tar').unlink()
    monkeypatch.setattr(job, 'prepare_script', lambda *args: lambda: None)  # not even one epoch
    with pytest.raises(RuntimeError, match=r'train\.py ended after 0 of 2 epochs'):
        train_and_evaluate(one)
    ends_after(1, monkeypatch, one)
    assert train_and_evaluate(one).val_images == 6


def test_one_gpu_trains_measures_evaluates_and_is_named(tmp_path, monkeypatch):
    """`device: cuda:1` reaches train.py, the evaluation of each split, the memory and the name of the machine."""
    one = a_job(tmp_path, device='cuda:1')
    ends_after(1, monkeypatch, one)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: {1: 300}[device.index] * 2**20)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: f'card {device.index}')
    seen = []
    monkeypatch.setattr(job, 'validate', lambda options: seen.append(options.device) or job._Score(6, 50.0, 100.0))
    found = train_and_evaluate(one)
    assert (found.device, found.memory_mib, seen) == ('card 1', 300, ['cuda:1'] * 3)
    assert yaml.safe_load(one.file('.yaml').read_text())['device'] == 'cuda:1'
    # train.py takes the first GPU where no device is named.
    one = a_job(tmp_path, device=None)
    monkeypatch.setattr(torch.cuda, 'max_memory_allocated', lambda device: {None: 200}[device.index] * 2**20)
    ends_after(1, monkeypatch, one)
    found = train_and_evaluate(one)
    assert (found.device, found.memory_mib, seen[3:]) == ('card None', 200, ['cuda'] * 3)


def test_a_training_that_diverged_counts_as_no_right_answer(tmp_path, monkeypatch, capsys):
    one = a_job(tmp_path)
    ends_after(1, monkeypatch, one, weight=float('nan'))
    found = train_and_evaluate(one)
    assert (found.val_top1, found.val_top5, found.test_top1, found.test_top5) == (0.0, 0.0, 0.0, 0.0)
    assert (found.val_images, found.test_images, found.corrupted) == (6, 9, {'jpeg-q20': 0.0})
    assert 'Counted as 0 %: Weights must be finite' in capsys.readouterr().out
    ends_after(1, monkeypatch, one, weight=3e38)  # finite weights, logits that are not
    assert train_and_evaluate(one).val_top1 == 0.0 and 'The logits of image 1' in capsys.readouterr().out
    assert found.param_count == sum(p.numel() for p in timm.create_model(SMALL, num_classes=3, reduce_dim=8).parameters())
    write_results(tmp_path / 'a.csv', [Row('a', one.run, found)])
    assert read_results(tmp_path / 'a.csv')[0].figures.val_top1 == 0.0


def test_another_error_of_the_evaluation_is_one(tmp_path, monkeypatch):
    one = a_job(tmp_path)
    ends_after(1, monkeypatch, one)
    (tmp_path / 'data' / 'val').rename(tmp_path / 'data' / 'gone')
    with pytest.raises(ValueError, match="has no split 'val'"):
        train_and_evaluate(one)


@pytest.mark.parametrize(
    ('name', 'options'),
    [(SMALL, {'model_kwargs': {'act_layer': 'silu'}}), ('resnet10t', {'gp': 'max', 'model_kwargs': {'act_layer': 'silu'}})],
)
def test_what_is_evaluated_is_the_network_that_was_trained(tmp_path, monkeypatch, name, options):
    one = a_job(tmp_path, model=name, **options)
    more = {'global_pool': options['gp']} if 'gp' in options else {}
    trained = timm.create_model(name, num_classes=3, **options['model_kwargs'], **more)
    images = torch.randn(2, 3, 32, 32)

    def train() -> None:
        one.file('').mkdir(parents=True)
        args = argparse.Namespace(model=name, gp=options.get('gp'), model_kwargs=options['model_kwargs'])
        checkpoint = {'epoch': 1, 'arch': name, 'state_dict': trained.state_dict(), 'args': args}
        torch.save(checkpoint, one.file('') / 'last.pth.tar')
        (one.file('') / 'summary.csv').write_text('epoch,train_loss,eval_loss,eval_top1\n1,0,0,0\n')

    monkeypatch.setattr(job, 'prepare_script', lambda *args: train)
    seen = []
    monkeypatch.setattr(job, 'validate', lambda o: seen.append(load_model(o)(images)) or job._Score(1, 0.0, 0.0))
    train_and_evaluate(one)
    assert len(seen) == 3 and all(torch.equal(logits, trained.eval()(images)) for logits in seen)


@pytest.mark.slow
def test_ctrl_c_and_a_rate_that_is_too_high(tmp_path, timm_script):
    scripts = str(timm_script('train.py').parent)
    one = a_job(tmp_path, scripts, epochs=1000)
    process = one.start()
    while not (one.file('') / 'last.pth.tar').exists():
        time.sleep(0.05)
        assert process.poll() is None, one.file('.log').read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait() == 1
    assert read_figures(one.file('.json'), one.run) is None and not one.file('.lock').exists()
    assert 'of 1000 epochs. Start the study again.' in one.file('.log').read_text().splitlines()[-1]
    # Diverged, by the real train.py.
    one = a_job(tmp_path, scripts, lr=1e30)
    assert one.start().wait() == 0, one.file('.log').read_text()
    found = read_figures(one.file('.json'), one.run)
    assert found is not None and (found.val_top1, found.test_top1, found.val_images) == (0.0, 0.0, 6)
