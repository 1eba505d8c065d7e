"""args.yaml and summary.csv of a run of timm's train.py: what it was told, and what every epoch gave."""

from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from timm_3g.utils.yaml_file import parse_yaml

ARGUMENTS = 'args.yaml'
RUN_FILES = (ARGUMENTS, 'summary.csv')


def run_files(checkpoint: Path) -> dict[str, bytes]:
    """The two files that train.py left beside a checkpoint, by name.

    Of an absolute path in args.yaml, only the last part is kept: it says nothing to others, and may name a person.

    Raises:
        FileNotFoundError: one is missing.
        ValueError: args.yaml is not a mapping in YAML, or one of them is not UTF-8.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as run:
    ...     _ = Path(run, 'args.yaml').write_text('data_dir: /home/me/birds\\nlr: 0.1\\n')
    ...     _ = Path(run, 'summary.csv').write_text('epoch,eval_top1\\n0,61.5\\n')
    ...     run_files(Path(run, 'last.pth.tar'))
    {'args.yaml': b'data_dir: birds\\nlr: 0.1\\n', 'summary.csv': b'epoch,eval_top1\\n0,61.5\\n'}
    """
    missing = [name for name in RUN_FILES if not (checkpoint.parent / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f'--with-run takes {" and ".join(RUN_FILES)} from beside {checkpoint}, as train.py leaves them; missing: '
            f'{", ".join(missing)}.'
        )
    return {name: read_run_file(checkpoint.parent / name) for name in RUN_FILES}


def read_run_file(file: Path) -> bytes:
    """The content of one of `RUN_FILES` as it may be published.

    args.yaml comes without the folders of absolute paths. summary.csv comes with one header: train.py writes another when it
    resumes.

    Raises:
        ValueError: it is not UTF-8, or args.yaml is not a mapping in YAML.
    """
    content = file.read_bytes()
    try:
        text = content.decode()
        given = parse_yaml(text) if file.name == ARGUMENTS else None
    except ValueError as error:
        raise ValueError(f'{file} cannot be read: {error}. Replace it with what train.py wrote, or remove it.') from error
    if file.name != ARGUMENTS:
        header, *rows = text.splitlines(keepends=True) or ['']
        return ''.join([header, *(row for row in rows if row != header)]).encode()
    if not isinstance(given, dict):
        raise ValueError(f'{file} must be a mapping of options, as train.py writes it. Replace it, or remove it.')
    return yaml.safe_dump(_without_folders(given)).encode()


def _without_folders(value: Any) -> Any:
    """The value with every path in it that leads out of the current folder, of either kind of system, cut to its last part."""
    if isinstance(value, dict):
        return {_without_folders(key): _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    if isinstance(value, str):
        if ',' in value:
            return ','.join(map(_without_folders, value.split(',')))
        kinds = (PurePosixPath(value), PureWindowsPath(value))
        if any(path.is_absolute() or path.parts[:1] == ('..',) or value.startswith('~') for path in kinds):
            return PureWindowsPath(value).name  # it takes both kinds of slashes
        source, colon, path = value.partition(':')
        if colon and not path.startswith('//'):  # no address of the network
            return f'{source}:{_without_folders(path)}'
    return value
