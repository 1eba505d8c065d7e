"""The facts of a card without a source: from config.json and the arguments of a run of train.py."""

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from timm.models import resolve_pretrained_cfg, split_model_name_tag

from timm_3g.checkpoints import is_ours, is_tag
from timm_3g.checkpoints.function import defaults_of
from timm_3g.checkpoints.source_name import split_source
from timm_3g.utils.numbers import is_finite

from .card_facts import HUB_ID, REQUIRED

# Arguments of train.py that a recipe names, and their names there.
RECIPE = {'batch_size': 'batch size', 'opt': 'optimizer', 'lr': 'learning rate', 'weight_decay': 'weight decay'}


def facts_of_run(config: Mapping[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of exported weights.

    Args:
        config: the content of config.json.
        training: what train.py recorded (see `Record`), or {}.
    """
    cfg = config['pretrained_cfg']
    data, seed = _name_of_data(training), training.get('seed')
    metrics = []
    if is_finite(training.get('metric')) and training.get('eval_metric', 'top1') == 'top1':
        said = f"timm's train.py, after {_epochs(training)} of the run, not verified"
        split = training.get('val_split') or 'validation'
        metrics = [{'dataset': data or 'unknown', 'split': split, 'top1': training['metric'], 'measured_by': said}]
    return {
        **dict.fromkeys(REQUIRED),
        'license': cfg.get('license') or 'unknown',
        'datasets': [data] if data and HUB_ID.fullmatch(data) else None,
        'recipe': _recipe(training, config.get('num_classes')) if training else None,
        'metrics': metrics,
        'seeds': [seed] if type(seed) is int else None,
        'known_faults': ['Not documented. This card was made without a source.'],
        **({'origin': cfg['origin_url']} if cfg.get('origin_url') else {}),
    }


def _name_of_data(training: Mapping[str, Any]) -> str | None:
    """The data set of timm, without what reads it, or the last part of the folder. None where neither says a name."""
    given = training.get('dataset') or training.get('data_dir') or training.get('data')
    if not isinstance(given, str):
        return None
    if training.get('dataset'):
        return given.removeprefix(f'{given.partition("/")[0]}/') or None
    # PureWindowsPath takes both kinds of slashes.
    return next((part for part in reversed(PureWindowsPath(given).parts) if part.strip('./\\')), None)


def base_of(training: Mapping[str, Any]) -> str:
    """The weights that a run started from: <arch>.<tag>, ORG/NAME or the name of a file. '' for a name that the Hub refuses.

    >>> base_of({'model': 'resnet50_3g', 'initial_checkpoint': '/runs/birds.pth'})
    'birds.pth'
    >>> base_of({'model': 'resnet50_3g', 'initial_checkpoint': '/runs/all birds.pth'})
    ''
    """
    name = _began_with(training)
    return name if HUB_ID.fullmatch(name) else ''


def _began_with(training: Mapping[str, Any]) -> str:
    """The name of the weights that a run started from. '' for random weights.

    Only the recorded arguments are read. Nothing is opened.
    """
    model, given = training.get('model'), training.get('pretrained_path') if training.get('pretrained') else None
    given = given or training.get('initial_checkpoint')
    if isinstance(given, str) and given:
        path = Path(given)
        return next((name for name in (path.parent.name, path.stem, path.name) if is_tag(name)), path.name)
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
            return backbone if isinstance(backbone, str) else ''
        name = f'{arch}.{tag}' if tag else arch
    return name


def _epochs(training: Mapping[str, Any]) -> str:
    """'epoch N', counted from 1 as in `timm-3g curves`. train.py counts from 0."""
    epoch = training.get('epoch')
    return f'epoch {epoch + 1}' if type(epoch) is int else 'an unknown epoch'


def _recipe(training: Mapping[str, Any], classes: Any) -> str:
    base, total, resumed = _began_with(training), training.get('epochs'), training.get('resume')
    began = f'fine-tuned from {base}' if base else 'trained from random weights'
    if isinstance(resumed, str) and resumed and not base:  # of another run, which may have begun anywhere
        began = f'resumed from {PureWindowsPath(resumed).name}'
    parts = [f'{label} {training[name]}' for name, label in RECIPE.items() if training.get(name) is not None]
    return ', '.join(
        [f"{began} by timm's train.py", f'{classes} classes', f'{_epochs(training)}{f" of {total}" if total else ""}', *parts]
    )
