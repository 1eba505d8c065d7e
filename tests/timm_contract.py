"""Run timm's own, unmodified tests/test_models.py on all our models: python tests/timm_contract.py [--few] [pytest args].

--few takes the smallest network of every class. The others differ in depth or pooling.

The wheel of timm does not carry its tests, the sdist does: pip fetches the one of the installed version, only its tests/ is
unpacked (its parent would shadow the installed timm), and a conftest above it limits timm's lists to our models. Nothing of
timm is copied into this repository.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from operator import itemgetter
from pathlib import Path

import timm

sys.path.insert(0, str(Path(__file__).parent / 'support'))
from common import MODELS

CONFTEST = """
import dataclasses, os

import timm, timm_3g, torch
from timm.models import _registry

OURS = set(os.environ['TIMM_3G_MODELS'].split())

# Two of the tests want pretrained weights: a state dict of the right names and shapes stands in, one number expanded.
for name in OURS:
    shapes = timm.create_model(name, device='meta').state_dict()
    state_dict = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in shapes.items()}
    _registry._model_pretrained_cfgs[name] = dataclasses.replace(_registry._model_pretrained_cfgs[name], state_dict=state_dict)


def limited(original):
    def listed(*args, module='', pretrained=False, **kwargs):  # module= would skip some tests in silence
        if pretrained:
            return sorted(OURS)
        return [name for name in original(*args, **kwargs) if name.split('.')[0] in OURS]
    return listed


timm.list_models, timm.list_pretrained = limited(timm.list_models), limited(timm.list_pretrained)


def is_ours(item):
    params = item.callspec.params if hasattr(item, 'callspec') else {}
    return str(params.get('model_name', '')).split('.')[0] in OURS  # pytest puts a marker for empty lists


def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for item in items if not is_ours(item)])
    items[:] = filter(is_ours, items)
    if not config.option.keyword:  # every test that timm runs on a model runs on each of ours
        tests = {item.originalname for item in items}
        assert len(tests) == 13, sorted(tests)
        run = {(item.originalname, item.callspec.params['model_name'].split('.')[0]) for item in items}
        assert run == {(test, model) for test in tests for model in OURS}
"""


def few() -> list[str]:
    """The smallest model of every class."""
    nets = [timm.create_model(name, device='meta') for name in MODELS]
    sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
    smallest = {
        type(net): name for _, name, net in sorted(zip(sizes, MODELS, nets, strict=True), reverse=True, key=itemgetter(0))
    }
    return list(smallest.values())


def main() -> int:
    """Exit code of pytest."""
    arguments = [word for word in sys.argv[1:] if word != '--few']
    models = few() if '--few' in sys.argv else MODELS
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '--no-binary', 'timm', '-d', folder]
        subprocess.run([*pip, f'timm=={timm.__version__}'], check=True)
        with tarfile.open(next(Path(folder).glob('timm-*.tar.gz'))) as sdist:
            members = [m for m in sdist.getmembers() if m.name.split('/')[1:2] == ['tests']]
            sdist.extractall(folder, members, filter='data')
        tests = next(Path(folder).glob('timm-*/tests'))
        (tests.parent / 'conftest.py').write_text(CONFTEST)
        command = [sys.executable, '-m', 'pytest', '-p', 'no:cacheprovider', str(tests / 'test_models.py'), *arguments]
        env = {'OMP_NUM_THREADS': '1', **os.environ, 'HF_HUB_OFFLINE': '1', 'TIMM_3G_MODELS': ' '.join(models)}
        return subprocess.run(command, cwd=tests.parent, env=env).returncode


if __name__ == '__main__':
    sys.exit(main())
