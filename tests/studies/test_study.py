"""Runs of a study: what is missing is done once, by whoever is free, and nothing that is done is lost."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import timm.data
import yaml
from common import SMALL, image_folder
from filelock import SoftFileLease
from test_report import FIGURES

import timm_3g
from timm_3g.studies import read_study, study
from timm_3g.studies.board import Board, estimate
from timm_3g.studies.job import LEASE, TAKEN, Job, commit_of
from timm_3g.studies.results import Row, read_figures, read_results, write_figures, write_results
from timm_3g.studies.subset import take_fraction
from timm_3g.utils.temporary import start_of

OPTIONS = f'options: {{model: {SMALL}, num_classes: 3, epochs: 1, train_split: train, val_split: val}}\ntest_split: test\n'
GRID = 'grid: {lr: [0.1, 0.2]}\ngrid_seeds: [9]\n'
# The held-out accuracy of a fake run: the arms want different rates.
HELD_OUT = {('avg', 0.1): 70.0, ('avg', 0.2): 60.0, ('3g', 0.1): 50.0, ('3g', 0.2): 80.0, ('avg', 0.3): 99.0}


@pytest.fixture
def folder(tmp_path):
    """A study of two arms and its data."""
    image_folder(tmp_path / 'data', {'train': 1, 'val': 1, 'test': 1})
    (tmp_path / 'a.yaml').write_text(OPTIONS + GRID + 'arms: {avg: {gp: avg}, 3g: {gp: 3g}}\nseeds: [0, 1]\n')
    return tmp_path


class Process:
    """A run that ends at once, with invented figures."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def poll(self) -> int:
        if 'broken' in self.job.run.arm:
            self.job.file('.log').write_text('first\nValueError: it broke.\n\n')
            return 1
        write_figures(self.job.file('.json'), figures(self.job.run))
        return 0


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were started. They end at once, with invented figures."""
    names: list[str] = []

    def start(job):
        names.append(job.run.name)
        return Process(job)

    monkeypatch.setattr(Job, 'start', start)
    monkeypatch.setattr('timm_3g.studies.run_study._require_options', lambda *args: None)  # it needs train.py
    return names


def figures(run):
    found = replace(FIGURES, sha256=run.sha256, val_top1=HELD_OUT.get((run.arm, run.options.get('lr')), 50.0))
    return found if run.test_split else replace(found, test_images=None, test_top1=None, test_top5=None)


def do(folder: Path, **options):
    return study(folder / 'a.yaml', folder / 'data', output=folder / 'out', poll=0.05, **options)


def test_all_runs_in_the_order_of_the_study(folder, trained):
    progress = do(folder)
    grid = [f'grid-{arm}-lr={lr}-s9' for arm in ('avg', '3g') for lr in (0.1, 0.2)]
    assert trained[:4] == grid and set(trained) == {row.run.name for row in progress.rows} and len(trained) == 8
    rows = read_results(folder / 'out' / 'results.csv')
    assert rows == progress.rows and not progress.missing and progress.seconds == 0.0
    assert [row.run.name for row in rows] == [*grid, 'avg-s0', 'avg-s1', '3g-s0', '3g-s1']
    assert {row.run.arm: row.run.options['lr'] for row in rows if row.run.phase == 'final'} == {'avg': 0.1, '3g': 0.2}
    assert not list((folder / 'out' / 'runs').glob('*.lock'))


def test_what_is_done_is_not_done_again(folder, trained):
    do(folder)
    (folder / 'out' / 'results.csv').unlink()  # what the runs left is enough
    do(folder)
    assert len(trained) == 8 and len(read_results(folder / 'out' / 'results.csv')) == 8
    (folder / 'out').rename(folder / 'gone')  # the CSV is enough
    do(folder, results=folder / 'gone' / 'results.csv')
    assert len(trained) == 8
    text = (folder / 'a.yaml').read_text()
    (folder / 'a.yaml').write_text(text.replace('seeds: [0, 1]', 'seeds: [2, 0]'))
    progress = do(folder, results=folder / 'gone' / 'results.csv')
    assert trained[8:] == ['avg-s2', '3g-s2'], 'a new seed alone'
    assert len(progress.rows) == 8 and len(read_results(folder / 'gone' / 'results.csv')) == 10, 'rows of a seed that left'


def test_a_run_of_two_studies_that_share_a_folder_is_done_once(folder, trained):
    do(folder)
    (folder / 'b.yaml').write_text(OPTIONS + GRID + 'arms: {3g: {gp: 3g}, cov: {gp: cov}}\nseeds: [0, 1]\n')
    progress = study(folder / 'b.yaml', folder / 'data', output=folder / 'out', results=folder / 'b.csv', poll=0.05)
    assert trained[8:] == ['grid-cov-lr=0.1-s9', 'grid-cov-lr=0.2-s9', 'cov-s0', 'cov-s1']
    assert len(progress.rows) == 8 and {row.study for row in read_results(folder / 'b.csv')} == {'b'}


def test_a_study_that_gets_another_name_goes_on(folder, trained):
    do(folder)
    (folder / 'b.yaml').write_text((folder / 'a.yaml').read_text().replace('seeds: [0, 1]', 'seeds: [0, 1, 2]'))
    study(folder / 'b.yaml', folder / 'data', output=folder / 'b', results=folder / 'out' / 'results.csv', poll=0.05)
    assert trained[8:] == ['avg-s2', '3g-s2']
    assert {row.study for row in read_results(folder / 'out' / 'results.csv')} == {'b'}


def test_rows_of_other_options_are_not_mixed_in(folder, trained):
    do(folder)
    text = (folder / 'a.yaml').read_text()
    (folder / 'a.yaml').write_text(text.replace('epochs: 1', 'epochs: 2'))
    with pytest.raises(ValueError, match=r'results\.csv has a row of grid-avg-lr=0\.1-s9 with other options'):
        do(folder)
    assert len(trained) == 8
    do(folder, results=folder / 'new.csv')  # what the old runs left does not count either
    assert len(trained) == 16 and {row.run.epochs for row in read_results(folder / 'new.csv')} == {2}


def test_a_larger_grid_that_changes_the_choice_is_not_mixed_with_the_old(folder, trained):
    do(folder)
    text = (folder / 'a.yaml').read_text()
    (folder / 'a.yaml').write_text(text.replace('lr: [0.1, 0.2]', 'lr: [0.1, 0.2, 0.3]'))
    with pytest.raises(ValueError, match=r'results\.csv has a row of avg-s0 with other options'):
        do(folder)


def test_a_file_of_another_kind_is_not_written_over(folder, trained):
    (folder / 'notes.txt').write_text('one line\n')
    with pytest.raises(ValueError, match='its columns must be study'):
        do(folder, results=folder / 'notes.txt')
    assert (folder / 'notes.txt').read_text() == 'one line\n' and not trained
    (folder / 'empty.csv').touch()
    assert len(do(folder, results=folder / 'empty.csv').rows) == 8


def test_a_study_without_a_test_split(folder, trained):
    text = (folder / 'a.yaml').read_text()
    (folder / 'a.yaml').write_text(text.replace('test_split: test', 'test_split:'))
    assert do(folder).rows == read_results(folder / 'out' / 'results.csv')
    do(folder)
    assert len(trained) == 8


def test_a_dry_run_leaves_nothing(folder, trained):
    progress = do(folder, dry_run=True)
    assert not trained and not (folder / 'out').exists()
    assert len(progress.missing) == 8 and progress.rows == [] and progress.seconds is None


def test_a_run_of_another_process_is_waited_for(folder, trained):
    first = next(read_study(folder / 'a.yaml').runs({}))
    job = Job(first, str(folder / 'out' / 'runs'), 'data', 'a.yaml', None)
    lock = job.lock()
    lock.acquire()

    def finish():
        time.sleep(0.5)
        assert len(trained) >= 3, 'the others do not wait'
        write_figures(job.file('.json'), figures(first))
        lock.release()

    other = threading.Thread(target=finish)
    other.start()
    progress = do(folder)
    other.join()
    assert first.name not in trained and len(trained) == 7 and len(progress.rows) == 8


def test_processes_that_start_together_do_not_start_the_same_runs(folder, trained, monkeypatch):
    """A run is taken from the moment it is started: a process imports for seconds before it holds the run's own lock."""
    (folder / 'a.yaml').write_text(OPTIONS + f'arms: {{avg: {{gp: avg}}}}\nseeds: {list(range(8))}\n')
    start = Job.start

    class Slow:
        def __init__(self, job):
            self.process, self.ends = start(job), time.monotonic() + 0.3

        def poll(self):
            return None if time.monotonic() < self.ends else self.process.poll()

    monkeypatch.setattr(Job, 'start', lambda job: Slow(job))
    with ThreadPoolExecutor(4) as pool:
        for progress in pool.map(lambda _: do(folder), range(4)):
            assert len(progress.rows) == 8
    assert sorted(trained) == [f'avg-s{seed}' for seed in range(8)]
    assert not list((folder / 'out' / 'runs').glob('*.lock'))


def test_a_run_whose_owner_died_is_taken_over(folder, trained):
    runs = folder / 'out' / 'runs'
    runs.mkdir(parents=True)
    first = next(read_study(folder / 'a.yaml').runs({}))
    code = (
        f'import filelock, os; lock = filelock.SoftFileLease({str(runs / first.stem)!r} + ".lock", lease_duration={LEASE})\n'
        'lock.acquire(); print("held", flush=True); os.kill(os.getpid(), 9)'
    )
    dead = subprocess.run([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    assert dead.stdout == 'held\n' and (runs / f'{first.stem}.lock').exists()
    do(folder)
    assert first.name in trained and len(trained) == 8


def test_a_run_of_a_machine_that_fell_silent_is_taken_over(folder, trained, monkeypatch):
    monkeypatch.setattr('timm_3g.studies.job.LEASE', 0.5)
    first = next(read_study(folder / 'a.yaml').runs({}))
    file = folder / 'out' / 'runs' / f'{first.stem}.lock'
    file.parent.mkdir(parents=True)
    with SoftFileLease(file, lease_duration=0.5):
        mark = file.read_text()
    host = next(line for line in mark.splitlines() if line.startswith('host='))
    file.write_text(mark.replace(host, 'host=elsewhere'))
    do(folder)
    assert first.name in trained and len(trained) == 8


def test_a_silent_machine_that_started_and_trained_is_waited_for_once(folder, monkeypatch):
    monkeypatch.setattr('timm_3g.studies.job.LEASE', 0.5)
    board = Board(read_study(folder / 'a.yaml'), folder / 'runs', folder / 'results.csv')
    board.update()
    job = Job(board.runs[0], str(folder / 'runs'), 'data', 'a.yaml', None)
    for suffix, lock in (('.lock', job.lock()), ('.starter.lock', job.starter_lock())):
        with lock:
            mark = job.file(suffix).read_text()
        host = next(line for line in mark.splitlines() if line.startswith('host='))
        job.file(suffix).write_text(mark.replace(host, 'host=elsewhere'))
    assert not board.claim(job)
    time.sleep(0.6)
    assert board.claim(job)
    board.release(job)


def test_a_run_that_ended_since_the_board_was_read_is_not_claimed(folder):
    board = Board(read_study(folder / 'a.yaml'), folder / 'runs', folder / 'results.csv')
    board.update()
    job = Job(board.runs[0], str(folder / 'runs'), 'data', 'a.yaml', None)
    assert board.claim(job)
    board.release(job)
    write_figures(job.file('.json'), figures(job.run))
    assert not board.claim(job) and not list((folder / 'runs').glob('*.lock'))


def test_a_failure_does_not_stop_the_others(folder, trained):
    (folder / 'a.yaml').write_text(OPTIONS + 'arms: {broken: , avg: }\nseeds: [0, 1]\n')
    with pytest.raises(RuntimeError, match=r'2 runs failed, broken-s0 first: ValueError: it broke\. .*broken-s0-\w{8}\.log'):
        do(folder)
    assert trained == ['broken-s0', 'broken-s1', 'avg-s0', 'avg-s1']
    assert [row.run.name for row in read_results(folder / 'out' / 'results.csv')] == ['avg-s0', 'avg-s1']


def test_an_arm_whose_grid_failed_has_no_other_runs(folder, trained):
    (folder / 'a.yaml').write_text(OPTIONS + GRID + 'arms: {broken: , avg: }\nseeds: [0]\n')
    with pytest.raises(RuntimeError, match='2 runs failed'):
        do(folder)
    assert trained == ['grid-broken-lr=0.1-s9', 'grid-broken-lr=0.2-s9', 'grid-avg-lr=0.1-s9', 'grid-avg-lr=0.2-s9', 'avg-s0']


def test_a_row_that_another_process_adds_meanwhile_is_kept(folder, trained, monkeypatch):
    *_, last = read_study(folder / 'a.yaml').runs({})
    calls = []

    def write(file, rows):
        write_results(file, rows)
        names = [row.run.name for row in rows]
        if len(names) == 7 and not calls:  # as if the other process wrote its row now, and its CSV just before ours
            chosen = next(run for run in read_study(folder / 'a.yaml').runs(held_out(rows)) if run.name == last.name)
            write_figures(folder / 'out' / 'runs' / f'{chosen.stem}.json', figures(chosen))
            calls.append(names)

    def held_out(rows):
        return {row.run.name: row.figures.val_top1 for row in rows}

    monkeypatch.setattr('timm_3g.studies.board.write_results', write)
    do(folder)
    assert calls and last.name not in trained and len(read_results(folder / 'out' / 'results.csv')) == 8


def test_missing_data_and_splits(folder, trained):
    with pytest.raises(FileNotFoundError, match=r'--data-dir .*nowhere'):
        study(folder / 'a.yaml', folder / 'nowhere')
    (folder / 'a.yaml').write_text((folder / 'a.yaml').read_text().replace('val_split: val', 'val_split: holdout'))
    with pytest.raises(ValueError, match="has no split 'holdout'"):
        do(folder)
    with pytest.raises(NotADirectoryError, match='must be a folder of images'):
        import tarfile

        with tarfile.open(folder / 'data.tar', 'w') as tar:
            tar.add(folder / 'data', arcname='.')
        study(folder / 'a.yaml', folder / 'data.tar')
    assert not trained


def test_the_estimate_is_of_the_arm_and_the_share_of_the_images(folder):
    (folder / 'a.yaml').write_text(
        OPTIONS + 'arms: {avg: , 3g: , cov: }\nseeds: [0]\naxes: {epochs: [1, 10], fraction: [0.5, 1.0]}\n'
    )
    runs = {run.name: run for run in read_study(folder / 'a.yaml').runs({})}

    rows = [
        Row('a', runs[name], replace(FIGURES, seconds_per_epoch=seconds))
        for name, seconds in (('avg-epochs=1-fraction=0.5-s0', 5.0), ('3g-epochs=1-fraction=1.0-s0', 30.0))
    ]
    missing = [runs[f'{arm}-epochs=10-fraction=0.5-s0'] for arm in ('avg', '3g', 'cov')]
    assert estimate(rows, missing) == pytest.approx(10 * 0.5 * (10 + 30 + 20))
    assert estimate([], missing) is None and estimate([], []) == 0.0


def test_a_share_of_the_images(tmp_path):
    image_folder(tmp_path, {'train': 8, 'val': 2}, classes=2)
    for n in range(20):
        (tmp_path / 'train' / 'class1' / f'{n}.txt').touch()  # no image
    shares = [take_fraction(tmp_path, 'train', f, tmp_path / 'shares') for f in (0.01, 0.25)]
    dead = subprocess.Popen([sys.executable, '-c', ''])
    dead.wait()
    half = shares[1].name.replace('0.25', '0.5')
    (tmp_path / 'shares' / f'{start_of(half)}a'.replace(f'.{os.getpid()}.', f'.{dead.pid}.')).mkdir()  # a leftover
    shares.append(take_fraction(tmp_path, 'train', 0.5, tmp_path / 'shares'))
    files = [{f.relative_to(share).as_posix() for f in (share / 'train').rglob('*.png')} for share in shares]
    assert [len(f) for f in files] == [2, 4, 8] and files[0] < files[1] < files[2]
    dataset = timm.data.create_dataset('', root=str(shares[1]), split='train')
    assert len(dataset) == 4 and dataset.reader.class_to_idx == {'class0': 0, 'class1': 1}
    assert len(timm.data.create_dataset('', root=str(shares[1]), split='val')) == 4
    assert take_fraction(tmp_path, 'train', 1.0, tmp_path / 'shares') == tmp_path
    assert take_fraction(tmp_path, 'train', 0.25, tmp_path / 'shares') == shares[1]
    assert {f.name for f in (tmp_path / 'shares').iterdir()} == {share.name for share in shares}


def test_a_share_of_files_with_odd_names_and_of_linked_splits(tmp_path):
    image_folder(tmp_path, {'train': 2}, classes=1)
    odd = os.fsdecode(b'caf\xe9')  # no UTF-8
    (tmp_path / 'train' / 'class0' / '0.png').rename(tmp_path / 'train' / 'class0' / f'{odd}.png')
    (tmp_path / 'train' / 'class0').rename(tmp_path / 'train' / odd)
    (tmp_path / 'holdout').symlink_to('train')
    share = take_fraction(tmp_path, 'train', 0.5, tmp_path / 'shares')
    assert len(list((share / 'train' / odd).iterdir())) == 1 and len(list((share / 'holdout' / odd).iterdir())) == 2


def test_a_share_of_other_images_is_another(tmp_path):
    image_folder(tmp_path, {'train': 4}, classes=2)
    before = take_fraction(tmp_path, 'train', 0.5, tmp_path / 'shares')
    assert take_fraction(tmp_path, 'train', 0.5000001, tmp_path / 'shares') != before
    (tmp_path / 'holdout' / 'class0').mkdir(parents=True)
    image = next(file for file in (tmp_path / 'train' / 'class0').iterdir())
    image.rename(tmp_path / 'holdout' / 'class0' / image.name)
    again = take_fraction(tmp_path, 'train', 0.5, tmp_path / 'shares')
    assert again != before and (again / 'holdout').is_dir()
    assert all(file.exists() for file in (again / 'train').rglob('*'))


def test_a_share_where_the_split_is_a_link(tmp_path):
    image_folder(tmp_path / 'disk', {'cifar': 4})
    image_folder(tmp_path / 'data', {'val': 1})
    (tmp_path / 'data' / 'train').symlink_to(tmp_path / 'disk' / 'cifar')
    share = take_fraction(tmp_path / 'data', 'train', 0.5, tmp_path / 'shares')
    assert sorted(f.name for f in share.iterdir()) == ['train', 'val']
    assert len(timm.data.create_dataset('', root=str(share), split='train')) == 6


def test_the_options_of_every_arm_are_checked_as_they_were_written(folder, monkeypatch):
    """YAML reads 1e-05, which JSON writes, as a string."""
    (folder / 'a.yaml').write_text(OPTIONS + 'arms: {3g: {opt_kwargs: {eps: 1.0e-5}}}\nseeds: [0]\n')
    checked = []
    monkeypatch.setattr('timm_3g.studies.run_study.find_script', lambda *args: 'train.py')
    monkeypatch.setattr(
        'timm_3g.studies.run_study.check_arguments', lambda _, words: checked.append(yaml.safe_load(Path(words[1]).read_text()))
    )
    run = next(read_study(folder / 'a.yaml').runs({}))
    monkeypatch.setattr(Job, 'start', lambda job: Process(job))
    do(folder)
    assert checked == [run.options] and checked[0]['opt_kwargs'] == {'eps': 1e-5}


def test_the_commit(tmp_path, monkeypatch):
    assert commit_of(tmp_path) == ''
    if shutil.which('git'):  # a machine with Python and pip alone has none, and then the answer is ''
        git = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b.c']
        for words in (['init', '-q'], ['add', '.'], ['commit', '-q', '--allow-empty', '-m', 'one']):
            (tmp_path / 'a').write_text('a')
            subprocess.run([*git, *words], check=True)
        head = subprocess.run([*git, 'rev-parse', 'HEAD'], capture_output=True, text=True, check=True).stdout
        assert commit_of(tmp_path) == head[:12]
        (tmp_path / 'a').write_text('b')
        assert commit_of(tmp_path) == f'{head[:12]}+'
    monkeypatch.setenv('PATH', '')
    assert commit_of(tmp_path) == ''


REAL = (
    f'options: {{model: {SMALL}, num_classes: 3, img_size: 32, train_split: train, val_split: val, epochs: 2, batch_size: 8, '
    'opt: adamw, lr: 0.001, workers: 0, no_prefetcher: true, model_kwargs: {reduce_dim: 8}}\n'
    'arms: {avg: {gp: avg}, 3g: {gp: 3g}}\nseeds: [0]\ncorruptions: [noise-std0.5, jpeg-q20]\n'
)


@pytest.mark.slow
def test_two_processes_kills_and_the_real_train_py(tmp_path, timm_script):
    scripts = str(timm_script('train.py').parent)
    image_folder(tmp_path / 'data', {'train': 20, 'val': 4, 'test': 4})
    (tmp_path / 'real.yaml').write_text(REAL)
    words = [str(tmp_path / 'real.yaml'), '--data-dir', str(tmp_path / 'data'), '--output', str(tmp_path / 'out')]
    command = [sys.executable, '-m', 'timm_3g', 'study', *words, '--timm-scripts', scripts]
    # One starter is killed: its run goes on alone, and nobody does it twice.
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    runs = tmp_path / 'out' / 'runs'
    while not list(runs.glob('*.lock')):
        time.sleep(0.1)
        assert first.poll() is None
    first.kill()
    first.wait()
    done = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    out = [process.communicate() for process in done]
    assert [process.returncode for process in done] == [0, 0], out
    rows = read_results(tmp_path / 'out' / 'results.csv')
    assert [row.run.name for row in rows] == ['avg-s0', '3g-s0']
    for row in rows:
        stem = row.run.stem
        assert (runs / f'{stem}.log').read_text().count('Scheduled epochs') == 1, 'trained once'
        assert (row.figures.val_images, row.figures.test_images, row.figures.train_images) == (12, 12, 60)
        assert row.figures.seconds_per_epoch > 0 and row.figures.memory_mib > 100 and not row.figures.resumed
        last = {'model': SMALL, 'checkpoint': runs / stem / 'last.pth.tar', 'data_dir': tmp_path / 'data', 'split': 'test'}
        for name, top1 in row.figures.corrupted.items():
            assert top1 == timm_3g.validate(**last, corruption=name, device='cpu', workers=0).top1
        assert list(row.figures.corrupted) == ['noise-std0.5', 'jpeg-q20']
        summary = (runs / stem / 'summary.csv').read_text().splitlines()
        assert len(summary) == 3 and row.figures.val_top1 == pytest.approx(float(summary[-1].split(',')[3]), abs=1e-3)
    # A run that was killed after the second line of summary.csv, before the checkpoint, goes on from the first epoch's.
    for name in (f'{stem}.json', f'{stem}/checkpoint-1.pth.tar'):
        (runs / name).unlink()
    (runs / stem / 'checkpoint-0.pth.tar').replace(runs / stem / 'last.pth.tar')
    (tmp_path / 'out' / 'results.csv').unlink()
    progress = study(*words[:1], tmp_path / 'data', output=tmp_path / 'out', timm_scripts=scripts)
    row = progress.rows[1]
    assert row.figures.resumed and (runs / f'{stem}.log').read_text().count('Scheduled epochs') == 2
    assert row.figures.val_images == 12 and row.figures.seconds_per_epoch > 0
    # With its own seed the second epoch would draw again what the first drew.
    assert row.run.options['seed'] == 0 and yaml.safe_load((runs / stem / 'args.yaml').read_text())['seed'] == 1000
    # A process that finds the run taken says so.
    run = read_study(tmp_path / 'real.yaml').final_runs('avg', {}, {})[0]
    job = Job(run, str(runs), str(tmp_path / 'data'), words[0], scripts)
    with job.lock():
        assert job.start().wait() == TAKEN
    assert json.loads(job.file('.json').read_text())['sha256'] == job.run.sha256


@pytest.mark.parametrize('text', ['', '{"sha256": "ab"', '[]', '{}'])
def test_figures_that_are_none(tmp_path, text, folder):
    run = next(read_study(folder / 'a.yaml').runs({}))
    (tmp_path / 'a.json').write_text(text)
    assert read_figures(tmp_path / 'a.json', run) is None and read_figures(tmp_path / 'missing.json', run) is None
    write_figures(tmp_path / 'a.json', figures(run))
    assert read_figures(tmp_path / 'a.json', run) == figures(run)
    write_figures(tmp_path / 'a.json', replace(figures(run), sha256='0' * 64))
    assert read_figures(tmp_path / 'a.json', run) is None
