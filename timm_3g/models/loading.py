"""A model with the weights that were asked for, and names for its classes. What validate, predict and export share."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import load_checkpoint, parse_model_name, resolve_pretrained_cfg, split_model_name_tag
from torch import nn

from timm_3g.checkpoints import (
    CONFIG,
    Weights,
    check_config,
    checkpoint_filter_fn,
    download_config,
    is_ours,
    is_tag,
    open_weights,
    our_names,
    recorded_options,
)
from timm_3g.checkpoints.function import defaults_of
from timm_3g.data import CLASS_NAMES, names_in_order, read_class_map
from timm_3g.utils.files import require_file

JAX = ('.npz', '.npy')  # files of JAX, which timm's models read by themselves

# Fields of pretrained_cfg that are of the weights of one tag, and not of the network.
OF_TAG = ('tag', 'label_names', 'label_descriptions', 'license', 'origin_url', 'notes')


def create_loaded(
    model: str,
    checkpoint: Path | None = None,
    num_classes: int | None = None,
    use_ema: bool = True,
    options: Mapping[str, Any] | None = None,
    weights: Weights | None = None,
) -> nn.Module:
    """A model with real weights, never random ones: from a file, or those that its tag, `hf-hub:` or `local-dir:` names.

    What is recorded with a file about image size, normalisation and label names goes into the model's pretrained_cfg, and so do
    the class names that `timm-3g train` keeps beside its checkpoints.

    A file for a model of this package goes through its filter: any format of `checkpoints/formats.py`, loaded strictly, into a
    model built with the options that are recorded with the weights. For other models of timm it is loaded strictly as it is.

    Args:
        model: any name that timm.create_model takes.
        checkpoint: a weights file. None for the weights that the name stands for.
        num_classes: None for what the weights have. Checked against the file.
        use_ema: take the EMA weights of a checkpoint that has both kinds.
        options: keyword arguments of the model; None values are left out. Refused where they contradict the record, or leave
            out what it says and this function does not take from it (see `Record.require_stated`).
        weights: the checkpoint, if the caller has opened it already (see `open_weights`). Then `checkpoint` and `use_ema` do
            not count, and the file is not read again.

    Returns:
        The model in training mode, on the CPU.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: no such file or architecture; weights that cannot be read or are not of
            this model; no weights for this name.

    >>> import timm_3g
    >>> model = create_loaded('resnet10_mini_3g.cifar10')
    >>> model.num_classes, model.pretrained_cfg['label_names'][0]
    (10, 'airplane')
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if given.get('features_only'):
        raise ValueError('features_only=True makes a model without a classifier; leave it out of --model-kwargs.')
    if 'num_classes' in given:
        raise ValueError('num_classes is an option of its own; leave it out of --model-kwargs.')
    if weights is None:
        if checkpoint is None:
            return _create_named(model, num_classes, given)
        require_file(checkpoint)
        require_model(model, local=True)
        if not is_ours(model) and checkpoint.suffix in JAX:
            return _create_jax(model, checkpoint, num_classes, given)
        weights = open_weights(checkpoint, use_ema)
    require_model(model, local=True)
    weights.record.require_architecture(split_model_name_tag(model)[0], given)
    weights.record.require_stated(split_model_name_tag(model)[0], given)
    return (_create_ours if is_ours(model) else _create_timms)(model, weights, num_classes, given)


def _create_jax(model: str, checkpoint: Path, num_classes: int | None, given: Mapping[str, Any]) -> nn.Module:
    """A model of timm with weights of JAX. timm leaves a classifier of another number of classes as it is."""
    net: Any = timm.create_model(model, num_classes=num_classes, **given)
    classifier = net.get_classifier()
    before = [parameter.clone() for parameter in classifier.parameters()]
    load_checkpoint(net, str(checkpoint))
    if before and all(torch.equal(*pair) for pair in zip(before, classifier.parameters(), strict=True)):
        raise ValueError(
            f'{checkpoint} has no classifier of {net.num_classes} classes: it would be random. Name the number of classes that '
            f'the weights have: --num-classes N.'
        )
    return net


def _create_named(model: str, num_classes: int | None, given: Mapping[str, Any]) -> nn.Module:
    """A model with the weights that its name stands for."""
    require_model(model)
    _refuse_random_head(model)
    require_config(model, given.get('cache_dir'))
    net = timm.create_model(model, pretrained=True, num_classes=num_classes, **given)
    _check_classifier(net, model, num_classes)
    return net


def _refuse_random_head(model: str) -> None:
    """Raise ValueError for a network on any backbone, whose name stands for weights of the backbone alone."""
    arch = split_model_name_tag(model)[0]
    if 'backbone' in defaults_of(arch) and not (resolve_pretrained_cfg(arch, split_model_name_tag(model)[1]).has_weights):
        raise ValueError(
            f'{model} names no weights of its own: pretrained=True loads its backbone under a random head. Give a trained '
            f'file with --checkpoint, or a folder as local-dir:DIR.'
        )


def _create_timms(model: str, weights: Weights, num_classes: int | None, given: Mapping[str, Any]) -> nn.Module:
    """A model of timm's own with weights from a file, strictly as they are, and the pooling that they were trained with."""
    tensors = weights.tensors
    if num_classes is None:
        classifier = tensors.get(f'{resolve_pretrained_cfg(model).classifier}.weight')
        num_classes = None if classifier is None else len(classifier)
    arch = split_model_name_tag(model)[0]
    size = weights.description(arch).get('input_size')
    channels = {'in_chans': size[0]} if size and size[0] != 3 else {}
    net: Any = timm.create_model(model, num_classes=num_classes, **{**weights.record.pooling_of_run(arch), **channels, **given})
    net.load_state_dict(tensors)
    net.pretrained_cfg.update(_described(weights, arch, net.num_classes))
    return net


def _create_ours(model: str, weights: Weights, num_classes: int | None, given: Mapping[str, Any]) -> nn.Module:
    """A model of this package with weights from a file, through the filter, built with what is recorded with them."""
    arch, tensors = split_model_name_tag(model)[0], weights.tensors
    if num_classes is None:
        classifier = our_names(tensors).get(f'{resolve_pretrained_cfg(model).classifier}.weight')
        if classifier is not None and classifier.ndim != 2:
            raise ValueError(f'The classifier in {weights.file} must be a matrix; got shape {tuple(classifier.shape)}.')
        num_classes = 0 if classifier is None else len(classifier)
    recorded = weights.record.function(arch)
    recordable = recorded_options()
    known = {key: value for key, value in recorded.items() if key in recordable}
    pool = given.get('global_pool')
    if pool is not None and known.get('global_pool', pool) != pool:
        raise ValueError(
            f'{weights.file} was trained with global_pool={known["global_pool"]!r}; got {pool!r}. Its weights are of no use to '
            f'another pooling: leave the option out.'
        )
    overlay: dict[str, Any] = {} if bears_tag(model, weights, num_classes) else dict.fromkeys(OF_TAG)
    overlay |= {'file': None, 'num_classes': num_classes}  # the number is what the filter compares the classifier's rows with
    overlay |= _described(weights, arch, num_classes)
    net = timm.create_model(model, pretrained_cfg_overlay=overlay, **{**known, 'num_classes': num_classes, **given})
    net.load_state_dict(checkpoint_filter_fn(tensors, net, recorded=recorded))
    return net


def bears_tag(model: str, weights: Weights, num_classes: int) -> bool:
    """Whether weights are those of the tag in `model`, by all that is recorded with them.

    A tag must be named and have as many classes, and neither a run of train.py nor transformers may have made them, nor may
    their config.json name another tag. Where it is not theirs, nor are the registry's licence, labels and origin.

    >>> import timm_3g
    >>> weights = open_weights(timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file)
    >>> bears_tag('resnet10_mini_3g.cifar10', weights, 10), bears_tag('resnet10_mini_3g', weights, 10)
    (True, False)
    """
    arch, tag = split_model_name_tag(model)
    if not tag or num_classes != resolve_pretrained_cfg(model).num_classes or weights.record.training:
        return False
    return weights.description(arch).get('tag', tag) == tag and not weights.record.is_carried_along


def _described(weights: Weights, arch: str, num_classes: int) -> dict[str, Any]:
    """Fields of pretrained_cfg: those recorded with the file, and the class names beside it where the record has none."""
    known = weights.description(arch)
    # What is recorded is for evaluation, too, unless the record has sizes for that: those of the default tag are its own.
    known = {f'test_{name}': None for name in ('input_size', 'crop_pct') if name in known} | known
    beside = weights.file.with_name(CLASS_NAMES)
    if beside.is_file() and not known.get('label_names'):
        names = names_in_order(read_class_map(beside), beside)
        if len(names) == num_classes:
            known |= {'label_names': tuple(names), 'label_descriptions': None}
    return known


def require_model(name: str, local: bool = False) -> None:
    """Raise ValueError unless timm's registry has the name, with its tag. `hf-hub:` and `local-dir:` pass where not `local`.

    >>> import timm_3g
    >>> require_model('resnet50_3g.birds')
    Traceback (most recent call last):
    ValueError: 'resnet50_3g.birds' names no weights: resnet50_3g has no tag 'birds'. Its tags: orig_in1k, orig_places365.
    """
    arch, tag = split_model_name_tag(name)
    if ':' in name and not local:
        return
    if timm.is_model(arch):
        if tag and not is_tag(name):
            _refuse_tag(name)
        return
    nearest = difflib.get_close_matches(arch, timm.list_models(), n=3)
    if nearest:
        raise ValueError(f'{name!r} is no architecture of timm or timm_3g. Nearest: {", ".join(nearest)}.')
    raise ValueError(f'{name!r} is no architecture of timm or timm_3g. timm.list_models() lists them, resnet50_3g is one.')


def _refuse_tag(name: str) -> NoReturn:
    arch, tag = split_model_name_tag(name)
    known = timm.list_models(f'{arch}.*', include_tags=True)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    listed = ', '.join(split_model_name_tag(key)[1] for key in known) or 'none'
    said = f'Nearest: {nearest[0]}.' if nearest else f'Its tags: {listed}.'
    raise ValueError(f'{name!r} names no weights: {arch} has no tag {tag!r}. {said}')


def require_config(model: str, cache_dir: str | Path | None = None) -> None:
    """Raise an error where timm could not read the config.json that a name stands for. Names of its registry pass.

    That of `hf-hub:` is downloaded into the Hub's cache.

    Raises:
        FileNotFoundError: none in the folder of `local-dir:`.
        ValueError: see `check_config`.
        RuntimeError: see `download_config`.

    >>> require_config('local-dir:no such folder')
    Traceback (most recent call last):
    FileNotFoundError: 'local-dir:no such folder': there is no config.json in this folder. timm-3g export writes one.
    """
    source, name = parse_model_name(model)
    if source == 'local-dir' and not Path(name, CONFIG).is_file():
        raise FileNotFoundError(f'{model!r}: there is no {CONFIG} in this folder. timm-3g export writes one.')
    if source:
        check_config(Path(name) if source == 'local-dir' else download_config(name, cache_dir).parent)


def _check_classifier(net: Any, model: str, num_classes: int | None) -> None:
    """Raise ValueError where another number of classes than the weights' was asked for: timm makes a random classifier then."""
    cfg = net.pretrained_cfg
    own = cfg.get('num_classes')
    if num_classes is not None and own is not None and num_classes not in (own, own - (cfg.get('label_offset') or 0)):
        raise ValueError(
            f'The weights of {model} have {own} classes; with --num-classes {num_classes} the classifier would be random or '
            f'missing. Leave --num-classes out.'
        )


def require_classifier(model: Any) -> None:
    """Raise ValueError where a model has no classifier, so that it gives features instead of logits.

    >>> import timm_3g
    >>> require_classifier(timm.create_model('resnet18_3g', num_classes=10))
    """
    if model.num_classes < 1:
        raise ValueError(f'This model has {model.num_classes} classes: what it gives are features, not logits. Give others.')


def folder_names(model: Any) -> list[str]:
    """The names that folders of the classes have, by index: recorded with the weights, or WordNet's of ImageNet. Else [].

    >>> folder_names(create_loaded('resnet10_mini_3g.cifar10'))[:2]
    ['airplane', 'automobile']
    >>> folder_names(timm.create_model('resnet18'))[:2]
    ['n01440764', 'n01443537']
    """
    recorded = model.pretrained_cfg.get('label_names') or ()
    names = [] if isinstance(recorded, Mapping) else list(recorded)
    subset = None if names else infer_imagenet_subset(model)
    names = ImageNetInfo(subset).label_names() if subset else names
    return names if len(names) == model.num_classes else []


def class_names(model: Any, class_map: str = '') -> list[str]:
    """A name for each class: from a file, from the weights' config, ImageNet's where the model is of it, else the index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see `read_class_map` and `names_in_order`; another number of names than the model has classes.

    >>> class_names(create_loaded('resnet10_mini_3g.cifar10'))[:3]
    ['airplane', 'automobile', 'bird']
    """
    cfg, number = model.pretrained_cfg, model.num_classes
    if class_map:
        names = names_in_order(read_class_map(class_map), class_map)
    else:
        names = list(cfg.get('label_names') or ())
        descriptions = cfg.get('label_descriptions') or {}
        if not isinstance(descriptions, Mapping):
            raise ValueError(f'label_descriptions must map label names to texts; got {type(descriptions).__name__}.')
        names = [descriptions.get(name, name) for name in names]
    if not names:
        subset = infer_imagenet_subset(model)
        if subset:
            info = ImageNetInfo(subset)
            return [info.index_to_description(i) for i in range(number)]
        return [str(i) for i in range(number)]
    if len(names) != number:
        raise ValueError(
            f'The model has {number} classes, {class_map or "its config"} names {len(names)}. Give all names, in the '
            f'order of the index, in a file: --class-map FILE.'
        )
    return names
