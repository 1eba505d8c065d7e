"""All runs of a study: what is missing is trained, whatever was killed goes on, and many processes share the work."""

import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from timm_3g.data import require_data, require_split
from timm_3g.training import check_arguments, find_script
from timm_3g.utils.files import require_writable, require_writable_folder, write_text
from timm_3g.utils.options import OptionError, takes_fields_of

from .board import Board, estimate
from .config import Study, read_study
from .job import TAKEN, Job
from .results import Row
from .run import Run


@dataclass(frozen=True)
class StudyOptions:
    """The options of `study`.

    Attributes:
        config: the study's YAML file.
        data_dir: an ImageFolder with the splits that the study names.
        output: folder of the runs. None for `output/study/NAME`. Processes that share it share the work.
        results: the CSV. None for `results.csv` in `output`. Runs whose rows it has are done.
        dry_run: train nothing.
        timm_scripts: a checkout of timm. None for $TIMM_SCRIPTS, then the cache, then a download of the pinned commit.
        poll: seconds between two looks at what other processes do.

    Raises:
        ValueError: poll is not positive.

    >>> StudyOptions('a.yaml', 'cifar10', poll=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: poll must be positive; got 0.
    """

    config: Path | str
    data_dir: Path | str
    output: Path | str | None = None
    results: Path | str | None = None
    dry_run: bool = False
    timm_scripts: Path | str | None = None
    poll: float = 5.0

    def __post_init__(self) -> None:
        if not self.poll > 0:
            raise OptionError('poll', f'must be positive; got {self.poll}.')


@dataclass(frozen=True)
class StudyProgress:
    """Where a study stands.

    Attributes:
        results: the CSV.
        rows: of the runs that are done, in the order of the study.
        missing: the runs that are not done.
        seconds: an estimate for those, one after the other, from the runs that are done. None if none is.

    >>> StudyProgress(Path('results.csv'), [], [], 0.0).missing
    []
    """

    results: Path
    rows: list[Row]
    missing: list[Run]
    seconds: float | None


@takes_fields_of(StudyOptions)
def study(options: StudyOptions) -> StudyProgress:
    """Train and evaluate what is missing of a study. Rows go to its CSV as runs end.

    Each run is timm's unmodified train.py in a process of its own, then `validate` on the held-out images, and after runs that
    count once on the test images. It holds a lock. A killed run goes on from its last checkpoint, here or in another process.

    Args:
        options: see StudyOptions. Each field may be given by name.

    Returns:
        Where the study stands.

    Raises:
        ValueError: an invalid study (see `read_study`) or option of train.py, a missing split, rows in the CSV that are of
            another recipe.
        OSError: a missing file or folder, or one that cannot be written.
        RuntimeError: runs that failed. The others were done first.

    >>> study('missing.yaml', 'cifar10')
    Traceback (most recent call last):
    FileNotFoundError: missing.yaml is not there. Name a YAML file.
    """
    content = read_study(options.config)
    root = Path(options.output or Path('output', 'study', content.name))
    file = Path(options.results or root / 'results.csv')
    _require_data(content, str(options.data_dir))
    board = Board(content, root / 'runs', file)
    board.update()
    if options.dry_run:
        return _progress(board)
    require_writable_folder(root)
    require_writable(file)
    _require_options(board, str(options.data_dir), root, options.timm_scripts)
    failed = _work(board, options, root / 'runs')
    if failed:
        name, log = next(iter(failed.items()))
        raise RuntimeError(f'{len(failed)} runs failed, {name} first: {_last_line(log)} The whole output is in {log}.')
    return _progress(board)


def _progress(board: Board) -> StudyProgress:
    return StudyProgress(board.file, board.done(), board.missing(), estimate(board.done(), board.missing()))


def _work(board: Board, options: StudyOptions, folder: Path) -> dict[str, Path]:
    """Do runs until none is left, neither here nor elsewhere. Returns the logs of those that failed here, by name."""
    failed: dict[str, Path] = {}
    with tqdm(total=len(board.runs), desc=board.study.name, unit='run') as bar:
        while True:
            board.save()
            jobs = [_job(run, options, folder) for run in board.ready() if run.name not in failed]
            mine = next((job for job in jobs if board.claim(job)), None)
            if mine:
                bar.set_description(f'{board.study.name}: {mine.run.name}')
                try:
                    process = mine.start()
                    while (code := process.poll()) is None:
                        _show(bar, board)
                        time.sleep(options.poll)
                finally:
                    board.release(mine)
                if code not in (0, TAKEN):
                    failed[mine.run.name] = mine.file('.log')
            elif jobs:  # other processes have them
                _show(bar, board)
                time.sleep(options.poll)
            else:
                _show(bar, board)
                return failed


def _job(run: Run, options: StudyOptions, folder: Path) -> Job:
    scripts = str(options.timm_scripts) if options.timm_scripts else None
    return Job(run, str(folder), str(Path(options.data_dir).resolve()), str(options.config), scripts)


def _show(bar: tqdm, board: Board) -> None:
    """How many runs are done, by whomever, and an estimate of the rest."""
    board.update()
    bar.n = len(board.rows)
    bar.set_postfix_str(_rest(_progress(board).seconds))


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(59), duration(600), duration(5400), duration(200_000)
    ('59 s', '10 min', '1.5 h', '2.3 days')
    """
    for unit, size in (('days', 86400.0), ('h', 3600.0)):
        if seconds >= 1.5 * size:
            return f'{seconds / size:.1f} {unit}'
    return f'{seconds / 60:.0f} min' if seconds >= 90 else f'{seconds:.0f} s'


def _rest(seconds: float | None) -> str:
    return '' if not seconds else f'{duration(seconds)} of one process to go'


def _require_data(content: Study, root: str) -> None:
    """Raise OSError or ValueError unless the data has every split."""
    require_data(root)
    if not Path(root).is_dir():
        raise NotADirectoryError(f'{root} must be a folder of images, SPLIT/CLASS/file; it is a file.')
    for run in content.runs({}):
        for split in (run.options['train_split'], run.options['val_split'], run.test_split):
            if split:
                require_split(root, str(split))


def _require_options(board: Board, data: str, root: Path, scripts: Path | str | None) -> None:
    """Check the options of one run per arm with train.py's own parser, before anything is trained."""
    script, seen = find_script('train.py', scripts), set()
    for run in board.runs:
        if run.arm not in seen and run.name not in board.rows:
            seen.add(run.arm)
            file = root / 'runs' / f'{run.stem}.yaml'
            write_text(file, yaml.safe_dump(dict(run.options), sort_keys=False))
            try:
                check_arguments(script, ['--config', str(file), '--data-dir', data])
            except ValueError as error:
                raise ValueError(f'The arm {run.arm}: {error}') from error


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    return lines[-1].strip() if lines else 'it printed nothing.'
