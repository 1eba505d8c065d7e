"""timm's own scripts: where they come from, and how they run with this plugin registered. They are run, never copied here."""

import os
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

from timm_3g.checkpoints import cache_root, sha256_of
from timm_3g.utils.download import download
from timm_3g.utils.lock import locked

ENV = 'TIMM_SCRIPTS'
COMMIT = 'aa4b5850c1543fa488abf260f18390eda46cf85d'  # huggingface/pytorch-image-models, 2026-08-08
URL = f'https://raw.githubusercontent.com/huggingface/pytorch-image-models/{COMMIT}'

# One place to add a script, and to move to another commit.
SHA256 = {
    'train.py': 'f0bb70b9e1c8c576eb1f7beba9cb46953d01ec1308d68c59ec055a6266f76388',
    'validate.py': '1ff87867c808997ce443eb8ff8b2c7324519cdd0ec9dafbc3d5e666f89436749',
    'benchmark.py': 'c2257b70ef9cd6e1dbc19a86cc5d0daea0505649a82352add58013d0382ed1ba',
    'onnx_export.py': 'f685366d0f814c3764445b3d2edb2966f0e3194b19511a280d9e3cbb72c82418',
    'inference.py': 'fc36c81ae3372b60fb7dc3a2b8676fd3de84afb79152134073109ac0333c95d4',
}


def cache_dir() -> Path:
    """The user's cache of timm's scripts, one folder per commit.

    >>> cache_dir().name == COMMIT[:12]
    True
    """
    return cache_root() / 'timm_scripts' / COMMIT[:12]


def find_script(name: str, folder: str | Path | None = None, url: str = URL) -> Path:
    """The path of one of timm's scripts: in `folder`, in $TIMM_SCRIPTS, in the cache, or downloaded into the cache.

    A file in the user's own folder is used as it is, whatever its version. The cache holds one pinned commit, and a file in it
    is used only if its SHA-256 is the pinned one. One process downloads while others (the ranks of torchrun) wait.

    Args:
        name: a key of SHA256. With a folder of the user's, any file name.
        folder: a checkout of timm's repository (`--timm-scripts`).
        url: where the pinned scripts are.

    Returns:
        The path of the script.

    Raises:
        ValueError: a name that is not pinned, without a folder.
        FileNotFoundError: the folder does not have the file.
        OSError: the download failed, or its SHA-256 is not the pinned one.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> Path(folder, 'train.py').touch()
    >>> find_script('train.py', folder).name
    'train.py'
    """
    given = folder or os.environ.get(ENV)
    if given:
        script = Path(given, name)
        if not script.is_file():
            source = '--timm-scripts' if folder else f'${ENV}'
            raise FileNotFoundError(f'{source} is {str(given)!r}, which holds no {name}. Name a checkout of timm.')
        return script
    if name not in SHA256:
        raise ValueError(
            f'{name!r} is none of the scripts known here: {", ".join(SHA256)}. For others, pass a checkout of timm: '
            f'--timm-scripts DIR.'
        )
    script = cache_dir() / name
    if not is_pinned(script):
        try:
            script.parent.mkdir(parents=True, exist_ok=True)
            with locked(script):
                if not is_pinned(script):  # nobody else fetched it while we waited
                    print(f'timm_3g: fetching {url}/{name} into {script.parent}', file=sys.stderr)
                    _fetch(f'{url}/{name}', script)
        except OSError as error:
            raise OSError(
                f'{name} of timm could not be fetched from {url}: {error}. Get it once where there is a network: git clone '
                f'https://github.com/huggingface/pytorch-image-models, then pass --timm-scripts DIR or set ${ENV}.'
            ) from error
    return script


def _fetch(url: str, script: Path) -> None:
    """Download a script. Raises OSError if that fails or the file is not the pinned one, which is then deleted."""
    arrived = script.with_suffix('.new')
    arrived.unlink(missing_ok=True)
    download(url, arrived, checked=True, tries=2)
    if sha256_of(arrived) != SHA256[script.name]:
        arrived.unlink()
        raise OSError(f'what came is not the pinned file (its sha256 must be {SHA256[script.name]})')
    arrived.replace(script)


def is_pinned(script: Path) -> bool:
    """Whether this file is the pinned version of the script of its name."""
    return script.is_file() and sha256_of(script) == SHA256[script.name]


def run_script(script: Path, args: Sequence[str]) -> None:
    """Run the script in this process as `python script args...` would, with the plugin imported.

    Its folder does not join sys.path: the `timm` beside the scripts in a checkout would shadow the installed one. (With
    `python -m timm_3g` inside a checkout, Python itself puts that folder first. `timm-3g` does not.)

    >>> import tempfile
    >>> script = Path(tempfile.mkdtemp(), 'hello.py')
    >>> _ = script.write_text('import sys; print(__name__, sys.argv[1:])')
    >>> run_script(script, ['--epochs', '1'])
    __main__ ['--epochs', '1']
    """
    sys.argv = [str(script), *args]
    runpy.run_path(str(script), run_name='__main__')
