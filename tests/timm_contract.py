"""Run timm's own, unmodified tests/test_models.py on all our models: python tests/timm_contract.py [--few] [pytest args].

--few takes the smallest network of every class. The others differ in depth or pooling.

The wheel of timm does not carry its tests, the sdist does: pip fetches the one of the installed version, only its tests/ is
unpacked (its parent would shadow the installed timm), and support/contract_conftest.py above it limits timm's lists to our
models. Nothing of timm is copied into this repository.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent / 'support'


def main() -> int:
    """Exit code of pytest."""
    arguments = [word for word in sys.argv[1:] if word != '--few']
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', 'timm', '-d', folder]
        subprocess.run([*pip, f'timm=={version("timm")}'], check=True)
        with tarfile.open(next(Path(folder).glob('timm-*.tar.gz'))) as sdist:
            members = [m for m in sdist.getmembers() if m.name.split('/')[1:2] == ['tests']]
            sdist.extractall(folder, members, filter='data')
        tests = next(Path(folder).glob('timm-*/tests'))
        shutil.copy(SUPPORT / 'contract_conftest.py', tests.parent / 'conftest.py')
        command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', str(tests / 'test_models.py'), *arguments]
        env = {'OMP_NUM_THREADS': '1', **os.environ, 'HF_HUB_OFFLINE': '1'}
        env['PYTHONPATH'] = os.pathsep.join([str(SUPPORT), *filter(None, [env.get('PYTHONPATH')])])
        env['TIMM_3G_CONTRACT'] = 'few' if '--few' in sys.argv else 'all'
        return subprocess.run(command, cwd=tests.parent, env=env).returncode


if __name__ == '__main__':
    sys.exit(main())
