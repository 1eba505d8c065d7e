"""The package as a whole: version and changelog, README's tables and commands, what `.ci/run` runs, types."""

import itertools
import re
from pathlib import Path

import pytest
import timm
from common import FIRST_ORDER, MODELS, ROOT

import timm_3g
from timm_3g.layers.create_pool import POOLS
from timm_3g.publishing.card_text import model_stats

README = (ROOT / 'README.md').read_text()
SHELL = [line for code in re.findall(r'```bash\n(.*?)```', README, re.DOTALL) for line in code.splitlines()]


def test_the_version_has_a_changelog_entry():
    headings = re.findall(r'^## (.*)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert headings[0] == 'Unreleased' and re.fullmatch(rf'{timm_3g.__version__} \(20\d\d-\d\d-\d\d\)', headings[1])


def test_the_citation_is_of_this_version():
    citation = (ROOT / 'CITATION.cff').read_text()
    date = re.search(rf'## {timm_3g.__version__} \((.*)\)', (ROOT / 'CHANGELOG.md').read_text())[1]
    assert f'\nversion: {timm_3g.__version__}\n' in citation and f'\ndate-released: "{date}"\n' in citation


def test_py_typed_ships():
    assert (Path(timm_3g.__file__).parent / 'py.typed').is_file()


NETWORKS = (ROOT / 'docs' / 'guides' / 'networks.md').read_text()
POOLINGS = (ROOT / 'docs' / 'guides' / 'poolings.md').read_text()


@pytest.mark.parametrize('page', [README, NETWORKS], ids=['README', 'networks'])
def test_the_tables_of_networks_are_complete(page):
    cells = re.findall(r'`([\w{},]+)`', '\n'.join(line for line in page.splitlines() if line.startswith('|')))
    names = {name for cell in cells for name in expanded(cell)}
    assert {name for name in names if name == 'gcp' or ('_' in name and name.rsplit('_', 1)[1] in POOLS)} <= set(MODELS)
    assert {*MODELS, *FIRST_ORDER} <= names


def expanded(text: str) -> list[str]:
    """The names that braces stand for, as in a shell: a{b,c} is ab and ac."""
    parts = [part.split(',') for part in re.split(r'[{}]', text)]
    return [''.join(name) for name in itertools.product(*parts)]


@pytest.mark.parametrize('page', [README, POOLINGS], ids=['README', 'poolings'])
def test_the_tables_of_poolings_are_complete(page):
    table = '\n'.join(line for line in page.splitlines() if line.startswith('|'))
    assert not [pool for pool in timm_3g.list_pools() if f'`{pool}`' not in table and not pool.startswith('fast')]


@pytest.mark.parametrize(
    ('row', 'size', 'model', 'options', 'head'),
    [
        ('`resnet50_3g`, 224 px', 224, 'resnet50_3g', {}, {}),
        ('`resnet18_3g`, 64 px', 64, 'resnet18_3g', {}, {}),
        ('`resnet10_mini_3g`, 32 px', 32, 'resnet10_mini_3g', {'num_classes': 10}, {}),
        (
            'EfficientNet-Lite0, 224 px, `3g` of stride 16',
            224,
            'gcp',
            {'backbone': 'tf_efficientnet_lite0', 'num_classes': 6},
            {'global_pool': '3g', 'out_index': -2, 'first_order': True},
        ),
    ],
    ids=['resnet50_3g', 'resnet18_3g', 'resnet10_mini_3g', 'gcp'],
)
def test_the_costs_in_the_readme(row, size, model, options, head):
    """With 3G, and in brackets with average pooling, as model cards count them."""
    cells = []
    for pool in (head, {'global_pool': 'avg'}):
        net = timm.create_model(model, **options, **pool, device='meta').eval()
        net.pretrained_cfg = {**net.pretrained_cfg, 'input_size': (3, size, size)}
        stats = model_stats(net)
        cells.append([stats['Params (M)'], stats['GMACs'], f'{net.head_hidden_size:,}'])
    assert f'| {row} | {" | ".join(f"{with_3g} ({average})" for with_3g, average in zip(*cells, strict=True))} |' in README


def test_the_readme_is_short():
    """It has one table of results and one of what there is. Everything else has a page in docs/."""
    assert len(README.split()) <= 1200


def test_ci_pins_the_floor_that_pyproject_allows():
    allowed = (ROOT / 'pyproject.toml').read_text()
    for pin in re.findall(r'^(\w+)==([\d.]+)$', (ROOT / '.ci' / 'floor.txt').read_text(), re.MULTILINE):
        name, version = pin
        assert name == 'torchvision' or f'"{name}>={version.removesuffix(".0")}' in allowed


def test_ci_runs_the_readmes_test_command():
    (command,) = [line for line in SHELL if 'pytest' in line]
    assert command in (ROOT / '.ci' / 'run').read_text().splitlines()


SUFFIXES = ('.py', '.md', '.toml', '.yaml', '.yml', '.cff', '.txt')


def test_no_paths_of_a_machine_in_our_files():
    folders = [ROOT, *(ROOT / name for name in ('timm_3g', 'tests', 'hub', 'train_configs', 'docs', '.ci', '.github'))]
    files = [f for folder in folders for f in folder.glob('*' if folder == ROOT else '**/*') if f.suffix in SUFFIXES]
    marks = ['/' + folder + '/' for folder in ('work', 'root', 'farm')]
    assert files and not [f for f in files if any(m in f.read_text() for m in marks)]
