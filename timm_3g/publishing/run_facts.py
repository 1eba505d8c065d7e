"""The facts of a card without a source: from config.json and the arguments of a run of train.py."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import resolve_pretrained_cfg, split_model_name_tag

from timm_3g.checkpoints import is_ours, is_tag
from timm_3g.checkpoints.function import defaults_of
from timm_3g.checkpoints.source_name import split_source
from timm_3g.utils.numbers import is_finite

from .card_facts import REQUIRED

# Arguments of train.py that a recipe names, and their names there.
RECIPE = {'batch_size': 'batch size', 'opt': 'optimizer', 'lr': 'learning rate', 'weight_decay': 'weight decay'}

_ID = re.compile(r'[\w-][\w.-]*(?:/[\w-][\w.-]*)?', re.ASCII)  # what the Hub accepts as base_model


def facts_of_run(config: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of exported weights.

    Args:
        config: the content of config.json.
        training: what train.py recorded (see `Record`), or {}.
    """
    cfg = config['pretrained_cfg']
    where = training.get('data_dir') or training.get('data')
    data = training.get('dataset') or (Path(where).name if isinstance(where, str) else None)
    metrics = []
    if is_finite(training.get('metric')) and training.get('eval_metric', 'top1') == 'top1':
        said = f"timm's train.py, after {_epochs(training)} of the run, not verified"
        split = training.get('val_split') or 'validation'
        metrics = [{'dataset': data or 'unknown', 'split': split, 'top1': training['metric'], 'measured_by': said}]
    return {
        **dict.fromkeys(REQUIRED),
        'license': cfg.get('license') or 'unknown',
        'datasets': [data] if data else None,
        'recipe': _recipe(training, config.get('num_classes')) if training else None,
        'metrics': metrics,
        'seeds': [training['seed']] if 'seed' in training else None,
        'known_faults': ['Not documented. This card was made without a source.'],
        **({'origin': cfg['origin_url']} if cfg.get('origin_url') else {}),
    }


def base_of(training: Mapping[str, Any]) -> str:
    """The weights that a run started from: <arch>.<tag>, ORG/NAME or the name of a file. '' for random weights.

    Only the recorded arguments are read. Nothing is opened.

    >>> base_of({'model': 'resnet50_3g', 'initial_checkpoint': '/runs/birds.pth'})
    'birds.pth'
    """
    model, given = training.get('model'), training.get('pretrained_path') if training.get('pretrained') else None
    given = given or training.get('initial_checkpoint')
    if isinstance(given, str) and given:
        path = Path(given)
        named = next((name for name in (path.parent.name, path.stem, path.name) if is_tag(name)), path.name)
        return named if _ID.fullmatch(named) else ''
    if not training.get('pretrained') or not isinstance(model, str):
        return ''
    source, rest = split_source(model)
    if source:
        name = rest.split('@')[0] if source == 'hf-hub' else Path(rest).name
    else:
        arch, tag = split_model_name_tag(model)
        tag = tag or (resolve_pretrained_cfg(arch).tag if is_ours(arch) else None)
        more = training.get('model_kwargs')
        backbone = {**defaults_of(arch), **(more if isinstance(more, Mapping) else {})}.get('backbone')
        if backbone and tag in (None, 'untrained'):  # its weights are all that such a name stands for
            return backbone if isinstance(backbone, str) and _ID.fullmatch(backbone) else ''
        name = f'{arch}.{tag}' if tag else arch
    return name if _ID.fullmatch(name) else ''


def _epochs(training: Mapping[str, Any]) -> str:
    """'epoch N', counted from 1 as in `timm-3g curves`. train.py counts from 0."""
    epoch = training.get('epoch')
    return f'epoch {epoch + 1}' if type(epoch) is int else 'an unknown epoch'


def _recipe(training: Mapping[str, Any], classes: Any) -> str:
    base, total = base_of(training), training.get('epochs')
    began = f'fine-tuned from {base}' if base else 'trained from random weights'
    parts = [f'{label} {training[name]}' for name, label in RECIPE.items() if training.get(name) is not None]
    return ', '.join(
        [f"{began} by timm's train.py", f'{classes} classes', f'{_epochs(training)}{f" of {total}" if total else ""}', *parts]
    )
