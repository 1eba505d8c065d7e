"""Which checkpoints load, how their names become ours, and what is refused. Formats: `formats.py`.

timm reads the file, strips 'module.', and calls `checkpoint_filter_fn`. Shapes alone prove little here: the two triangles have
equal length, and eps, steps and root leave no trace in a state dict. So what a format implies, or config.json or train.py
records (`record.py`), is compared with the model, and a mismatch is an error.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.ops import TRIANGLES, triangle_index
from timm_3g.utils.abbreviated import abbreviated

from .decode import require_tensors
from .formats import format_of, our_names, unwrapped
from .known_files import options_of_tag

_logger = logging.getLogger(__name__)


_INDEX = 'global_pool.to_vec.index'
_POOL = 'global_pool.'  # what the names of the pooling begin with; the classifier's name is in the model's cfg
_NORM = 'head_norm.'


def _check_options(model: nn.Module, source: str, recorded: Mapping[str, Any]) -> None:
    """Refuse weights whose order, eps, steps, ... are known and differ from those of the model."""
    head: Any = model
    differing = head.differing_options(recorded)
    if differing:
        raise ValueError(
            f'These weights were made for another function, as {source} says ({"; ".join(differing)}). They would load and '
            f'give wrong logits. Build the model with the options of the weights.'
        )


def _without_index(weights: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights without the index of the triangle, which TorchScript keeps as if it had been learned.

    Raises:
        ValueError: it reads the matrix in another order than the model.
    """
    pool: Any = model.global_pool
    index = weights.get(_INDEX)
    if index is None:
        return weights
    triangle = pool.options.get('triangle')
    dim = math.isqrt(int(index.max()) + 1) if index.numel() == pool.out_features else 0
    orders = [t for t in TRIANGLES if 0 < dim <= index.numel() and torch.equal(index.long(), triangle_index(dim, t))]
    if triangle is not None and triangle not in orders:
        raise ValueError(
            f'These weights were made for another function: {_INDEX} in the file reads the matrix in '
            f'{f"the order {orders[0]!r}" if orders else "no order that is known here"}, and the model has '
            f'triangle={triangle!r}. Build the model with the options of the weights.'
        )
    return {key: value for key, value in weights.items() if key != _INDEX}


def _check_kinds(weights: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    """Raise ValueError for weights that PyTorch would cast without a word: integers, truth values or complex numbers."""
    other = [
        f'{key} ({weights[key].dtype})'
        for key in weights.keys() & target.keys()
        if weights[key].is_floating_point() != target[key].is_floating_point() or weights[key].is_complex()
    ]
    if other:
        raise ValueError(
            f'Weights must be of floating point, and counters integers; got {abbreviated(other)}. Quantised weights cannot be '
            f'loaded: convert them back first.'
        )


def _warn_of_guess(model: nn.Module, form: str, usual: Mapping[str, Any]) -> None:
    """Say where the model has another option than files in this format usually have: it may be right, and nobody can tell."""
    pool: Any = model.global_pool
    for name, value in usual.items():
        built = pool.options.get(name, value)
        if built != value:
            _logger.warning(
                f'Files in the format of {form} usually have {name}={value!r}; these are loaded with {name}={built!r}, as the '
                f'model has it. Nothing in the file can tell. Compare the accuracy on a hundred images with both.'
            )


def checkpoint_filter_fn(
    state_dict: dict[str, Any],
    model: nn.Module,
    features_only: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Weights in the names of this package, checked against the model. timm calls it between reading and loading.

    Takes our own state dicts, the authors' (FORMATS), and those of the plain backbone, timm's or torchvision's. A complete set
    is demanded unless timm was asked to adapt: another num_classes than the weights' declared one (train.py's
    --pretrained-path declares -1), or features_only. Then the backbone must be complete, a head for the same pooling is taken
    without its classifier, any other is left out, and a warning says what stays random. A network that has `resized` resizes
    what belongs to another size of images.

    Args:
        state_dict: names to tensors, or a checkpoint that holds them under 'state_dict'.
        model: a built model with our head and timm's pretrained_cfg, which names its classifier and first convolution.
        features_only: the head will be thrown away.
        recorded: options of the weights' function where they are known: by default config.json's, as timm hands it on.

    Returns:
        Names of this package to tensors, unchanged in value.

    Raises:
        ValueError: not tensors; another number of classes than declared; weights of another network, pooling, order, eps or
            number of steps. Nothing else: timm answers a TypeError by calling again.

    >>> import timm, timm_3g
    >>> model = timm.create_model('resnet10_mini_3g.cifar10')
    >>> weights = checkpoint_filter_fn(model.state_dict(), model)
    >>> weights.keys() == model.state_dict().keys()
    True
    """
    if isinstance(state_dict, Mapping) and isinstance(state_dict.get('state_dict'), Mapping):
        state_dict = state_dict['state_dict']
    require_tensors(state_dict)
    cfg: Any = model.pretrained_cfg
    form, implied, guessed = format_of(unwrapped(state_dict))
    source = f'the format ({form})' if form else 'the header of the file, config.json or the training run'
    stated = getattr(model, 'pretrained_model_args', {}) if recorded is None else recorded
    known = {**options_of_tag(f'{cfg.get("architecture")}.{cfg.get("tag")}'), **stated} if form else stated
    if form and known:
        source = f'{source}, config.json, the training run or the name of the file'
    recorded = {**implied, **known}
    _warn_of_guess(model, form, {name: recorded.pop(name) for name in guessed - known.keys()})
    weights = _without_index(our_names(state_dict), model)
    resize: Any = getattr(model, 'resized', None)
    weights = resize(weights) if resize else weights

    num_classes: Any = model.num_classes
    declared = cfg.get('num_classes', -1)
    adapting = features_only or num_classes != declared
    classifier = f'{cfg.get("classifier")}.'
    matrix = weights.get(f'{classifier}weight')
    rows = declared if matrix is None or not matrix.ndim else matrix.shape[0]
    undeclared = rows != declared and declared >= 0 and (num_classes > 0 or not adapting) and not features_only
    if undeclared or not adapting:
        _refuse_plain(weights, model)
    if undeclared:
        _match_names(weights, model, adapting=True)  # of another network, no declaration would help
        raise ValueError(
            f'{classifier}weight has {rows} rows, but these weights are declared to have num_classes={declared}; loading them '
            f'so would leave a random classifier, or none. Declare it: pretrained_cfg_overlay=dict(file=..., '
            f'num_classes={rows}); on the command line, leave --num-classes out.'
        )

    pool: Any = model.global_pool
    if recorded.get('global_pool', pool.pool_type) == pool.pool_type:
        _check_options(model, source, recorded)
    elif not adapting:
        theirs = recorded['global_pool']
        raise ValueError(
            f'These weights are of global_pool={theirs!r}, as {source} says; the model has {pool.pool_type!r}. Build it with '
            f'theirs, or take only the backbone: pretrained_cfg_overlay=dict(file=..., num_classes=-1).'
        )
    else:
        weights = {key: value for key, value in weights.items() if not key.startswith((_POOL, _NORM, classifier))}
    weights, random = _match_names(weights, model, adapting)
    if random and not features_only:
        level = logging.WARNING if any(not key.startswith(classifier) for key in random) else logging.INFO
        _logger.log(
            level,
            f'{len(weights.keys() - random)} tensors come from the checkpoint; randomly initialised stay: '
            f'{abbreviated(random, 8)}.',
        )
    return weights


def _refuse_plain(weights: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise ValueError where all of the backbone is there, and nothing of the head: the files of timm and torchvision."""
    cfg: Any = model.pretrained_cfg
    target, classifier = model.state_dict(), f'{cfg.get("classifier")}.'
    head = {key for key in target if key.startswith((_POOL, _NORM, classifier)) and not key.endswith('num_batches_tracked')}
    wide = [k for k in head & weights.keys() if k.startswith(classifier) and weights[k].shape[1:] != target[k].shape[1:]]
    missing = {key for key in head if key.startswith((_POOL, _NORM))}
    backbone = {k: t.shape for k, t in target.items() if k not in head and not k.endswith('num_batches_tracked')}
    fits = all(key in weights and (key in _first(cfg) or weights[key].shape == shape) for key, shape in backbone.items())
    if not fits or not (missing or wide) or any(key.startswith((_POOL, _NORM)) for key in weights):
        return
    parts = ', '.join(f'{part}*' for part in (_POOL, _NORM) if any(key.startswith(part) for key in missing))
    what = [f'missing: {parts} ({len(missing)} tensors)'] if missing else []
    what += [f'other shapes: {k} {tuple(weights[k].shape)} for {tuple(target[k].shape)}' for k in wide]
    raise ValueError(
        f'These are not weights of this network, but of the plain one without its head ({"; ".join(what)}). To train, '
        f'start from its backbone: pretrained_cfg_overlay=dict(file=..., num_classes=-1), or --pretrained '
        f'--pretrained-path FILE of train.py.'
    )


def _first(cfg: Mapping[str, Any]) -> set[str]:
    """The weights of the first convolution. Some networks have several, side by side."""
    names = cfg.get('first_conv') or ()
    return {f'{name}.weight' for name in ([names] if isinstance(names, str) else names)}


def _match_names(weights: dict[str, Tensor], model: nn.Module, adapting: bool) -> tuple[dict[str, Tensor], set[str]]:
    """The weights that the model takes, and the names of the model that stay random (empty unless timm is adapting).

    Raises:
        ValueError: unknown or missing names, or other shapes; while adapting, in the backbone only.
    """
    target = model.state_dict()
    _check_kinds(weights, target)
    cfg: Any = model.pretrained_cfg
    name = f'{cfg.get("classifier")}.'
    classifier = {key for key in target.keys() | weights.keys() if key.startswith(name)}
    if adapting:
        others = classifier - {f'{name}weight', f'{name}bias'}  # timm itself leaves those two out
        weights = {key: value for key, value in weights.items() if key not in others}
        for prefix in (_POOL, _NORM):  # each whole or not at all
            part = {key: value for key, value in weights.items() if key.startswith(prefix)}
            wanted = {key for key in target if key.startswith(prefix) and not key.endswith('num_batches_tracked')}
            if not wanted <= part.keys() or any(key not in target or target[key].shape != t.shape for key, t in part.items()):
                weights = {key: value for key, value in weights.items() if key not in part}
                if part and prefix == _NORM:
                    _logger.warning(f'{_NORM[:-1]} of the checkpoint does not fit this model, and is left out.')
    checked = target.keys() - classifier if adapting else target.keys()
    missing = {key for key in checked - weights.keys() if not key.endswith('num_batches_tracked')}
    required = {key for key in missing if not (adapting and key.startswith((_POOL, _NORM)))}
    unknown = weights.keys() - target.keys() - (classifier if adapting else set())
    # timm itself adapts the first convolution to in_chans.
    common = weights.keys() & checked - _first(cfg)
    shapes = {
        f'{k} {tuple(weights[k].shape)} for {tuple(target[k].shape)}' for k in common if weights[k].shape != target[k].shape
    }
    if required or unknown or shapes:
        raise ValueError(
            f'These are not weights of this network. Unknown names: {abbreviated(unknown) or "none"}; missing: '
            f'{abbreviated(required) or "none"}; other shapes: {abbreviated(shapes) or "none"}. Name the architecture, '
            f'global_pool, reduce_dim and head_norm that they were made with.'
        )
    return weights, missing | (classifier & target.keys() if adapting else set())
