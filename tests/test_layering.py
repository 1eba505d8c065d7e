"""Imports point down: ops, mggd, layers, models, command line. And every op has its test file."""

import ast
from pathlib import Path

import pytest

import timm_3g

PACKAGE = Path(timm_3g.__file__).parent
TIERS = ['ops', 'mggd', 'layers', 'models', 'cli']
# What each tier may import, beside the standard library and the tiers below.
THIRD_PARTY = {
    'ops': {'torch'},
    'mggd': {'torch'},
    'layers': {'torch', 'timm'},
    'models': {'torch', 'timm', 'safetensors', 'huggingface_hub'},
}


def imports(file: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ['timm_3g', *file.relative_to(PACKAGE).parts[:-1]]
            base = package[: len(package) - node.level + 1] if node.level else []
            names |= {'.'.join([*base, node.module or alias.name]) for alias in node.names}
    return names


@pytest.mark.parametrize('file', sorted(PACKAGE.rglob('*.py')), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_down(file):
    tier = file.relative_to(PACKAGE).parts[0]
    for name in imports(file):
        parts = name.split('.')
        if parts[0] == 'timm_3g' and tier in TIERS and len(parts) > 1 and parts[1] in TIERS:
            assert TIERS.index(parts[1]) <= TIERS.index(tier), f'{file} imports {name}'
        elif tier in THIRD_PARTY and parts[0] in {'torch', 'timm', 'numpy', 'safetensors', 'huggingface_hub', 'torchvision'}:
            assert parts[0] in THIRD_PARTY[tier], f'{file} imports {name}'


@pytest.mark.parametrize('file', sorted(PACKAGE.rglob('*.py')), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_data_stands_beside_the_tiers(file):
    """`timm_3g.data` imports none of them, and only the command line imports it."""
    tier = file.relative_to(PACKAGE).parts[0]
    ours = {name.split('.')[1] for name in imports(file) if name.startswith('timm_3g.')}
    assert ours <= {'data'} if tier == 'data' else tier == 'cli' or 'data' not in ours


def test_every_op_has_its_test_file():
    ops = {f.stem for f in (PACKAGE / 'ops').glob('[a-z]*.py')}
    assert ops == {f.stem.removeprefix('test_ops_') for f in Path(__file__).parent.glob('test_ops_*.py')}
