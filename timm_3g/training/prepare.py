"""One of timm's scripts, found and checked, ready to run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from timm_3g.data import install_augmentations
from timm_3g.utils.options import takes_fields_of

from .keep_class_names import keep_class_names
from .timm_scripts import find_script, run_script
from .train_arguments import check_arguments


@dataclass(frozen=True)
class ScriptOptions:
    """The options of `prepare_script`.

    Args:
        script: name of the script, with or without `.py`.
        arguments: of the script, as on a command line.
        timm_scripts: a checkout of timm. None for $TIMM_SCRIPTS, then the cache, then a download of the pinned commit.

    >>> ScriptOptions('validate').file_name
    'validate.py'
    """

    script: str
    arguments: Sequence[str] = ()
    timm_scripts: str | Path | None = None

    @property
    def file_name(self) -> str:
        """The script's name with `.py`."""
        return self.script if self.script.endswith('.py') else f'{self.script}.py'


@takes_fields_of(ScriptOptions)
def prepare_script(options: ScriptOptions) -> Callable[[], None]:
    """Find one of timm's scripts. For train.py, also check its arguments and install our augmentations.

    Args:
        options: see ScriptOptions. Each field may be given by name.

    Returns:
        A function that runs the script in this process. Errors of the script itself pass through it.

    Raises:
        ValueError: a script that is not known, an invalid argument of train.py.
        OSError: the script cannot be found or downloaded, a missing config file or checkpoint.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> _ = Path(folder, 'hello.py').write_text('import sys; print("hello", *sys.argv[1:])')
    >>> prepare_script('hello', ['--loud'], timm_scripts=folder)()
    hello --loud
    """
    script, args = find_script(options.file_name, options.timm_scripts), list(options.arguments)
    if script.name == 'train.py':
        args += check_arguments(script, args, for_run=True)
        install_augmentations()
        return partial(_train, script, args)
    return partial(run_script, script, args)


def _train(script: Path, args: Sequence[str]) -> None:
    with keep_class_names():
        run_script(script, args)
