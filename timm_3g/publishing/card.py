"""The model card: README.md of an exported folder, rendered from the facts and the prose of one source.

A source is `hub/<arch>.<tag>.md`. The card itself holds the facts, too, in its front matter, and the prose between marks of its
own. So a card can be rendered again without its source.
"""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import nn

from timm_3g.checkpoints import CONFIG, WEIGHTS, is_tag
from timm_3g.utils.files import write_text
from timm_3g.utils.options import OptionError

from .card_facts import FACTS, LICENSE, REQUIRED, check_facts
from .card_text import render
from .folder import CARD, ExportFolder, card_in, opened
from .front_matter import read_text, split_front_matter
from .marks import license_in_text, merge, prose_of, tags_of
from .push import check_repo
from .run_facts import facts_of_run
from .run_files import RUN_FILES

SOURCES = Path('hub')  # in a checkout of timm_3g, one file per key
PLACEHOLDER = 'ORG'  # for the owner, until the folder is published


def read_source(file: Path) -> tuple[dict[str, Any], str]:
    """(facts, prose) of a source.

    Raises:
        ValueError: a fact is unknown, missing or of another type, a metric does not say who measured it, or the text contains
            a mark of ours.
    """
    try:
        facts, prose = split_front_matter(read_text(file))
    except ValueError as error:
        raise ValueError(f'{file}: {error}') from error
    check_facts(facts, prose, str(file))
    return facts, prose.strip()


def write_card(
    folder: ExportFolder | str | Path,
    card: str | Path | None = None,
    license: str | None = None,
    repo: str = '',
) -> Path:
    """Write README.md of an exported folder, whole or not at all. Text outside its marks is kept.

    Args:
        folder: what `timm_3g.export` or `timm_3g.get` wrote.
        card: a file of facts and prose. None for hub/<arch>.<tag>.md in the current folder, else the facts in the README.md
            that is there, else what config.json says.
        license: license of the weights, an identifier of the Hub. It must not contradict the facts of a file or of README.md.
        repo: ORG/NAME for the snippets. '' for ORG/<arch>.<tag>.

    Returns:
        The path of README.md.

    Raises:
        FileNotFoundError: no such folder or source.
        ValueError: the source contradicts the folder or the license, or is invalid. A repo that is no name of the Hub.

    >>> import shutil, tempfile, timm, timm_3g
    >>> weights = Path(timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     folder = shutil.copytree(weights.parent, Path(scratch, 'mine'))
    ...     readme = write_card(folder, repo='me/mine')
    ...     "timm.create_model('hf-hub:me/mine', pretrained=True)" in readme.read_text()
    True
    """
    if repo:
        check_repo(repo, 'ORG/NAME')
    folder = opened(folder)
    readme = folder.path / CARD
    write_text(readme, make_card(folder, card, license, repo=repo))
    return readme


def make_card(
    folder: ExportFolder | str | Path,
    source: str | Path | None = None,
    license: str | None = None,
    training: Mapping[str, Any] | None = None,
    repo: str = '',
    base_model: str = '',
    net: nn.Module | None = None,
) -> str:
    """The text of README.md of an exported folder: the part between the marks is new, the rest is kept.

    Args:
        folder, source, license, repo: see `write_card`. A source may state the license 'unknown', or the same.
        training: what train.py recorded (see `Record`).
        base_model: the model that the weights were fine-tuned from, if the source does not state it. Then the card in hub/ of
            a key in timm's registry does not apply.
        net: the model in the folder, on the meta device. None to build it.

    Raises:
        FileNotFoundError: no such source.
        ValueError: the source contradicts the folder (sha256) or the license, or is invalid (see `read_source`).
    """
    folder = opened(folder)
    key, readme = folder.name, folder.path / CARD
    if license and not LICENSE.fullmatch(license):
        raise OptionError('license', f'must be an identifier of the Hub, e.g. apache-2.0; got {license!r}.')
    source = Path(source) if source else _source_of(folder, bool(base_model or training))
    inside = None if source else _facts_inside(folder.card)
    said = source or (f'{readme} itself' if inside else 'config.json and the training run')
    print(f'timm-3g: facts of the card from {said}', file=sys.stderr)
    facts, prose = read_source(source) if source else inside or (facts_of_run(folder.config, training or {}), '')
    if license and (source or inside) and facts['license'] not in ('unknown', license):
        raise ValueError(f'{said} says license: {facts["license"]}, and --license says {license}. Correct one of them.')
    of_config = _stated_license(folder)
    facts['license'] = license or (of_config if facts['license'] == 'unknown' else facts['license'])
    if base_model:
        facts.setdefault('base_model', base_model)
    check_facts(facts, prose, str(said))
    if of_config not in ('unknown', facts['license']):
        raise ValueError(
            f'{CONFIG} in {folder.path} says license: {of_config}, and the card would say {facts["license"]}. Give the weights '
            f'one: export them again with --license.'
        )
    if facts['sha256'] not in (None, 'unknown', folder.sha256):
        raise ValueError(
            f'The card is of other weights: it says sha256 {facts["sha256"]}, and {WEIGHTS} in {folder.path} has '
            f'{folder.sha256}. Name the right --card, or correct it.'
        )
    facts = {name: facts[name] for name in FACTS if name in facts} | {'sha256': folder.sha256}
    net = net or timm.create_model(f'local-dir:{os.fspath(folder)}', device='meta').eval()
    run = [name for name in RUN_FILES if name in folder.files]
    return merge(folder.card, render(net, key, facts, prose, repo or f'{PLACEHOLDER}/{key}', run))


def require_current(folder: ExportFolder) -> None:
    """Raise ValueError unless the folder's card is valid and belongs to its weights."""
    facts, prose = _facts_inside(folder.card) or ({}, '')
    readme, again = folder.path / CARD, f'timm-3g card {shlex.quote(str(folder.path))}'
    check_facts(facts, prose, str(readme))
    tags_of(split_front_matter(folder.card)[0])
    said = {'its front matter': facts['license'], CONFIG: _stated_license(folder), 'its text': license_in_text(folder.card)}
    known = {place: name for place, name in said.items() if name and (name != 'unknown' or place != CONFIG)}
    if len(set(known.values())) > 1:
        listed = ', '.join(f'{place} says {name}' for place, name in known.items())
        raise ValueError(
            f'{readme} states no one licence: {listed}. Give the weights one: export them again with --license, or write the '
            f'card again with `{again}`.'
        )
    if facts['sha256'] != folder.sha256:
        raise ValueError(
            f'{readme} is of other weights: it says sha256 {facts["sha256"]}, and {WEIGHTS} beside it has {folder.sha256}. '
            f'Write it again with `{again} --card FILE`, or delete it.'
        )


def _source_of(folder: ExportFolder, is_trained: bool) -> Path | None:
    """The source in hub/. That of a key in timm's registry is of its own weights alone, whatever others are called.

    Args:
        folder: of the weights.
        is_trained: whether a run of train.py made them.
    """
    key = folder.name
    file = SOURCES / f'{key}.md'
    if not file.is_file() or not is_tag(key):
        return file if file.is_file() else None
    others = is_trained or folder.config.get('num_classes') != timm.get_pretrained_cfg(key).num_classes
    return None if others and read_source(file)[0]['sha256'] != folder.sha256 else file


def card_of_same(folder: ExportFolder, other: Path) -> str:
    """The card in another folder, if it is of the same weights, with the same name and licence. Else ''."""
    card = card_in(other)
    facts, _ = _facts_inside(card) or ({}, '')
    same = facts.get('sha256') == folder.sha256 and facts.get('license') == _stated_license(folder)
    return card if same and f'# Model card for {folder.name}\n' in card else ''


def _stated_license(folder: ExportFolder) -> str:
    """The licence of the weights according to config.json, 'unknown' where it states none."""
    return str(folder.config['pretrained_cfg'].get('license') or 'unknown')


def _facts_inside(readme: str) -> tuple[dict[str, Any], str] | None:
    """Facts and prose of a card that `render` made. None for any other text."""
    fields, body = split_front_matter(readme)
    if 'timm_3g' not in fields:
        return None
    if not isinstance(fields['timm_3g'], dict):
        raise ValueError(f"timm_3g in the card's front matter must map names to values; got {fields['timm_3g']!r}.")
    known = {'license': fields.get('license', 'unknown'), 'datasets': fields.get('datasets')}
    if isinstance(fields.get('base_model'), str):  # a list is other people's and is kept as it is
        known['base_model'] = fields['base_model']
    stated = {name: fact for name, fact in fields['timm_3g'].items() if name in FACTS}
    return {**dict.fromkeys(REQUIRED), **known, **stated}, prose_of(body)
