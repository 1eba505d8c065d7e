"""The package as a whole: version and changelog, README's snippets and commands, what `.ci/run` runs, types."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from common import MODELS, ROOT

import timm_3g

README = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```(\w+)\n(.*?)```', README, re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == 'python']
SHELL = [line for language, code in BLOCKS if language == 'bash' for line in code.splitlines() if line and line[0] != '#']


def test_the_version_has_a_changelog_entry():
    assert f'## {timm_3g.__version__}' in (ROOT / 'CHANGELOG.md').read_text()


def test_py_typed_ships():
    assert (Path(timm_3g.__file__).parent / 'py.typed').is_file()


@pytest.mark.parametrize('code', PYTHON, ids=lambda code: code.splitlines()[0][:50])
def test_readme_snippets_run(code, tmp_path):
    """In a fresh interpreter each, as a reader would; the network is never asked."""
    done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_names_every_model_and_pool():
    written = set()
    for prefix, numbers, suffix in re.findall(r'`(resnet)\{([\d,]+)\}(_\w+)`', README):
        written |= {f'{prefix}{number}{suffix}' for number in numbers.split(',')}
    written |= set(re.findall(r'^\| `(\w+_3g)` \|', README, re.MULTILINE))
    assert written == set(MODELS)
    assert not [pool for pool in timm_3g.list_pools() if f'`{pool}`' not in README and not pool.startswith('fast')]


def test_ci_runs_the_readmes_test_command():
    (command,) = [line for line in SHELL if 'pytest' in line]
    assert command in (ROOT / '.ci' / 'run').read_text().splitlines()


SUFFIXES = ('.py', '.md', '.toml', '.yaml')


def test_no_paths_of_a_machine_in_our_files():
    folders = [ROOT, *(ROOT / name for name in ('timm_3g', 'tests', 'hub', 'train_configs', '.ci'))]
    files = [f for folder in folders for f in folder.glob('*' if folder == ROOT else '**/*') if f.suffix in SUFFIXES]
    marks = ['/' + folder + '/' for folder in ('work', 'root', 'farm')]
    assert files and not [f for f in files if any(m in f.read_text() for m in marks)]
