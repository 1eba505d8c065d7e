"""The README and docs/: their Python blocks and the commands of the tutorial run, options and links exist.

A comment before a block says what it needs:
`<!-- test: scripts -->` timm's scripts, `<!-- test: network -->` the Hub, `<!-- test: source -->` an edit of the package,
`<!-- test: needs timm_3g.NAME -->` this function. Blocks of scripts, network and source are not run here.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from common import ROOT, SMALL

import timm_3g
from timm_3g.__main__ import main

DOCS = ROOT / 'docs'
TUTORIAL = ['first-model', 'fine-tune', 'evaluate', 'publish', 'add-pooling']
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(DOCS.rglob('*.md'))]
NOT_RUN = ('scripts', 'network', 'source')
BLOCK = re.compile(r'(?:<!-- test: (.*?) -->\n)?```(\w*)\n(.*?)```', re.DOTALL)


class Block(NamedTuple):
    mark: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """Those that run: without a mark, or with one that is met."""
    found = [Block(*groups) for groups in BLOCK.findall(page.read_text())]
    marks = {block.mark for block in found if not block.mark.startswith('needs timm_3g.')}
    assert marks <= {'', *NOT_RUN}, f'{page}: {marks}'
    return [b for b in found if not b.mark or (b.mark not in NOT_RUN and hasattr(timm_3g, b.mark.rpartition('.')[2]))]


def run_python(page: Path) -> None:
    """All blocks of a page in order, as one program."""
    names: dict[str, object] = {}
    for block in blocks(page):
        if block.language == 'python':
            exec(compile(block.text, str(page), 'exec'), names)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


PYTHON = [p for p in PAGES if '```python' in p.read_text() and p.parent.name != 'tutorial']


@pytest.mark.parametrize('page', PYTHON, ids=lambda page: page.stem)
def test_python_blocks_run(page, scratch):
    run_python(page)


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> Path:
    """Where a reader stands after "Fine-tune your images": its images, and a checkpoint in place of the run's."""
    folder = tmp_path_factory.mktemp('tutorial')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_python(DOCS / 'tutorial' / 'fine-tune.md')
    run = folder / 'output' / 'train' / 'toy'
    run.mkdir(parents=True)
    state = timm.create_model(SMALL, num_classes=2).state_dict()
    torch.save({'state_dict': state}, run / 'model_best.pth.tar')
    (run / 'class_names.txt').write_text('horizontal\nvertical\n')
    return folder


@pytest.mark.parametrize('page', TUTORIAL)
def test_the_tutorial_runs(page, trained, monkeypatch):
    """Python and commands of a page in their order."""
    monkeypatch.chdir(trained)
    names: dict[str, object] = {}
    for block in blocks(DOCS / 'tutorial' / f'{page}.md'):
        if block.language == 'python':
            exec(compile(block.text, page, 'exec'), names)
        elif block.language == 'bash':
            for line in block.text.splitlines():
                verb, *arguments = shlex.split(line)
                assert verb == 'timm-3g' and main(arguments) == 0, line


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """(page, verb, options) of every `timm-3g` command in the pages, those that run scripts of timm excepted."""
    for page in PAGES:
        for line in re.findall(r'^(?:.*?&& )?timm-3g (.+)$', page.read_text(), re.MULTILINE):
            verb, *words = line.partition('#')[0].split()
            if verb not in ('train', 'run'):
                yield f'{page.relative_to(ROOT)}: {line}', verb, [word for word in words if re.match(r'--?[a-z]', word)]


def test_the_options_of_all_commands_exist(capsys):
    helps: dict[str, str] = {}
    for where, verb, options in commands():
        if verb not in helps:
            with pytest.raises(SystemExit) as end:
                main([verb, '--help'])
            assert end.value.code == 0, where
            helps[verb] = capsys.readouterr().out
        for option in options:
            assert re.search(rf'(?<![\w-]){option}\b', helps[verb]), f'{where}: no {option}'
    assert len(helps) >= 6


@pytest.mark.parametrize('page', [ROOT / 'README.md', *sorted(DOCS.rglob('*.md'))], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    """Those of docs/ to pages and pictures of docs/, as in the built site."""
    links = [link.partition('#')[0] for link in re.findall(r'\]\((?!https?:|#)(.*?)\)', page.read_text())]
    site = ROOT if page.parent == ROOT else DOCS
    there = [(page.parent / link).resolve() for link in links]
    assert not [file for file in there if not (file.exists() and file.is_relative_to(site))]


def test_the_site_shows_every_page():
    nav = (ROOT / 'mkdocs.yml').read_text()
    assert not [page for page in DOCS.rglob('*.md') if str(page.relative_to(DOCS)) not in nav]
