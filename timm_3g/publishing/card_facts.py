"""The facts that the front matter of a source or of a card may state, and their types."""

import datetime
import re
import unicodedata
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any

from timm_3g.utils.numbers import is_finite

# The facts that a source must state, and all that it may state. Everything else is prose.
REQUIRED = ('license', 'datasets', 'metrics', 'recipe', 'sha256', 'hardware', 'hours', 'seeds', 'known_faults')
FACTS = (*REQUIRED, 'license_note', 'made_by', 'origin', 'base_model')
METRIC = ('dataset', 'dataset_id', 'split', 'protocol', 'top1', 'top5', 'measured_by', 'source_url')
LISTS = ('datasets', 'metrics', 'seeds', 'known_faults')

LICENSE = re.compile(r'[a-z0-9][a-z0-9.+-]*')  # an identifier of the Hub
HUB_ID = re.compile(r'[\w-][\w.-]*(?:/[\w-][\w.-]*)?', re.ASCII)  # what the Hub accepts as base_model

_OURS = re.compile(r'<!--\s*timm_3g:')
_PLAIN = (str, int, float, datetime.date)


def check_facts(facts: Mapping[str, Any], prose: str, source: str) -> None:
    """Raise ValueError unless the facts have the right types and no text could be mistaken for the marks of a card.

    Args:
        facts: names to values.
        prose: the text of the source.
        source: the file, for the message.
    """
    unknown, missing = facts.keys() - set(FACTS), set(REQUIRED) - facts.keys()
    if unknown or missing:
        pairs = (('unknown', unknown), ('missing', missing))
        wrong = '; '.join(f'{what} facts: {", ".join(sorted(map(str, names)))}' for what, names in pairs if names)
        raise ValueError(
            f'{source}: {wrong}. A source states {", ".join(REQUIRED)}, and may state {", ".join(FACTS[len(REQUIRED) :])}.'
        )
    for name, fact in facts.items():
        if name in LISTS:
            if not isinstance(fact, list | None):
                raise ValueError(f'{source}: {name} must be a list or null; got {fact!r:.80}.')
            if name != 'metrics' and not all(isinstance(item, _PLAIN) for item in fact or []):
                raise ValueError(f'{source}: {name} must be a list of text or numbers; got {fact!r:.80}.')
            if any(item == '' or (isinstance(item, float) and not is_finite(item)) for item in fact or []):
                raise ValueError(f'{source}: {name} must be a list of text or finite numbers, none empty; got {fact!r:.80}.')
        elif name == 'license' and not (isinstance(fact, str) and LICENSE.fullmatch(fact)):
            raise ValueError(f"{source}: license must be an identifier of the Hub, e.g. mit, or 'unknown'; got {fact!r:.80}.")
        elif name == 'base_model' and not (fact is None or (isinstance(fact, str) and HUB_ID.fullmatch(fact))):
            raise ValueError(f'{source}: base_model must be NAME or ORG/NAME of the Hub; got {fact!r:.80}.')
        elif isinstance(fact, float) and not is_finite(fact):
            raise ValueError(f'{source}: {name} must be text, a finite number or null; got {fact!r}.')
        elif not isinstance(fact, (*_PLAIN, NoneType)):
            raise ValueError(f'{source}: {name} must be text, a number or null; got {fact!r:.80}.')
    for metric in facts['metrics'] or []:
        _check_metric(metric, source)
    for text in (*_texts(facts), prose):
        if _OURS.search(text):
            raise ValueError(f'{source}: <!-- timm_3g: ... --> are the marks of a card. Facts and prose must not contain them.')
        control = control_character(text)
        if control:
            raise ValueError(f'{source}: facts and prose must be free of control characters; got {control!r}.')


def control_character(text: str) -> str | None:
    """The first control character other than a line break and a tab, or None. Terminals obey such characters."""
    return next((c for c in text if unicodedata.category(c) == 'Cc' and c not in '\n\t'), None)


def _check_metric(metric: Any, source: str) -> None:
    numbers = [metric[k] for k in ('top1', 'top5') if metric.get(k) is not None] if isinstance(metric, dict) else ['']
    named = isinstance(metric, dict) and {'dataset', 'top1', 'measured_by'} <= metric.keys() <= set(METRIC)
    plain = named and all(isinstance(value, (*_PLAIN, NoneType)) for value in metric.values())
    said = plain and all(str(metric[name] or '').strip() for name in ('dataset', 'measured_by'))
    in_range = all(is_finite(n) and 0 <= float(n) <= 100 for n in numbers)
    if not said or not in_range or metric['top1'] is None:
        raise ValueError(
            f'{source}: a metric has dataset, top1 (a number from 0 to 100), measured_by, and may have {", ".join(METRIC)}; '
            f'got {metric!r:.200}.'
        )
    if not str(metric.get('source_url') or 'https://').startswith(('http://', 'https://')):
        raise ValueError(f'{source}: source_url must begin with https:// or http://; got {metric["source_url"]!r:.80}.')


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
