"""Run timm's own, unmodified tests/test_models.py against every model of this package: python tests/timm_contract.py [pytest args].

The wheel of timm does not carry its tests, the sdist does: pip fetches the one of the installed version, only its tests/ is
unpacked (its parent would shadow the installed timm), and a conftest above it limits timm's lists to our models. Nothing of
timm is copied into this repository.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CONFTEST = '''
import timm, timm_3g

OURS = {*timm.list_models(module='resnet_3g'), *timm.list_models(module='resnet_gcp')}


def limited(original):
    def listed(*args, module='', **kwargs):  # module= would skip the intermediates and prune tests in silence
        return [name for name in original(*args, **kwargs) if name.split('.')[0] in OURS]
    return listed


timm.list_models, timm.list_pretrained = limited(timm.list_models), limited(timm.list_pretrained)


def pytest_collection_modifyitems(config, items):
    ours = [item for item in items if str(getattr(item, 'callspec', None) and item.callspec.params.get('model_name', '')).split('.')[0] in OURS]
    config.hook.pytest_deselected(items=[item for item in items if item not in ours])
    items[:] = ours
'''


def main() -> int:
    """Exit code of pytest."""
    import timm

    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', 'timm', '-d', folder]
        subprocess.run([*pip, f'timm=={timm.__version__}'], check=True)
        with tarfile.open(next(Path(folder).glob('timm-*.tar.gz'))) as sdist:
            members = [m for m in sdist.getmembers() if m.name.split('/')[1:2] == ['tests']]
            sdist.extractall(folder, members, filter='data')
        tests = next(Path(folder).glob('timm-*/tests'))
        (tests.parent / 'conftest.py').write_text(CONFTEST)
        command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', str(tests / 'test_models.py'), *sys.argv[1:]]
        return subprocess.run(command, cwd=tests.parent, env={**os.environ, 'HF_HUB_OFFLINE': '1'}).returncode


if __name__ == '__main__':
    sys.exit(main())
