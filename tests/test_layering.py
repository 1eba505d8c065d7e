"""One room per job, imports one way, no room above a quarter of the library. And every op has its test file."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import timm_3g

PACKAGE = Path(timm_3g.__file__).parent
# Which rooms each room may import, beside itself and what those may import.
ROOMS: dict[str, list[str]] = {
    'compat': [],
    'utils': ['compat'],
    'data': ['utils'],
    'ops': ['compat'],
    'mggd': ['ops'],
    'layers': ['mggd'],
    'checkpoints': ['layers', 'utils'],
    'models': ['checkpoints', 'data'],
    'publishing': ['models'],
    'inference': ['models'],
    'training': ['models'],
    'benchmarks': ['models'],
    'figure1': ['inference'],
    'studies': ['inference', 'training'],
    'page': ['figure1', 'publishing'],
    'cli': ['benchmarks', 'studies', 'page'],
}
# What a room may import of these packages.
THIRD_PARTY = {
    'ops': {'torch'},
    'mggd': {'torch'},
    'layers': {'torch', 'timm'},
    'checkpoints': {'torch', 'timm', 'safetensors', 'huggingface_hub'},
    'models': {'torch', 'timm', 'torchvision'},
}
LARGEST_SHARE = 0.25
FILES = sorted(PACKAGE.rglob('*.py'))


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix('').parts[0]


def below(room: str) -> set[str]:
    return {room}.union(*(below(other) for other in ROOMS[room]))


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


def test_every_room_is_named():
    rooms = {room_of(file) for file in FILES} - {'__init__', '__main__'}
    assert rooms | {'compat'} == set(ROOMS)


@pytest.mark.parametrize('file', FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    room = room_of(file)
    if room not in ROOMS:  # the package's own __init__ and __main__
        return
    for name in imports(file):
        parts = name.split('.')
        if parts[0] == 'timm_3g' and len(parts) > 1 and parts[1] in ROOMS:
            assert parts[1] in below(room), f'{file} imports {name}'
        elif room in THIRD_PARTY and parts[0] in {'torch', 'timm', 'numpy', 'safetensors', 'huggingface_hub', 'torchvision'}:
            assert parts[0] in THIRD_PARTY[room], f'{file} imports {name}'


def test_no_room_holds_more_than_a_quarter_of_the_lines():
    lines = Counter()
    for file in FILES:
        lines[room_of(file)] += len(file.read_text().splitlines())
    shares = {room: count / lines.total() for room, count in lines.items()}
    assert not {room: share for room, share in shares.items() if share > LARGEST_SHARE}


def test_every_op_has_its_test_file():
    ops = {f.stem for f in (PACKAGE / 'ops').glob('[a-z]*.py')}
    assert ops == {f.stem.removeprefix('test_') for f in (Path(__file__).parent / 'ops').glob('test_*.py')}
