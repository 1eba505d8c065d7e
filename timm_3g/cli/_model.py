"""A model with the weights that a command was asked for. What validate, predict and export share."""

import argparse
import difflib
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NoReturn

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import load_checkpoint, parse_model_name, resolve_pretrained_cfg
from torch import Tensor, nn

from timm_3g.data import CLASS_NAMES, names_in_order, read_class_map
from timm_3g.models import (
    check_config,
    checkpoint_filter_fn,
    download_config,
    is_carried_along,
    is_ours,
    is_tag,
    our_names,
    read_config,
    read_description,
    read_record,
    read_training,
    read_weights,
    recorded_options,
)

from ._argument_types import KeyValues, require_file
from ._data_config import check_options
from ._sound import require_sound

# Fields of pretrained_cfg that are of the weights of one tag, and not of the network.
OF_TAG = ('tag', 'label_names', 'label_descriptions', 'license', 'origin_url')


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Which model, which weights, and where it computes. Names as in timm's scripts."""
    parser.add_argument('--model', '-m', required=True, metavar='NAME[.TAG]', help='any model of timm, ours included')
    add_weight_options(parser)


def add_weight_options(parser: argparse.ArgumentParser) -> None:
    """The same without the model."""
    parser.add_argument('--checkpoint', type=Path, metavar='FILE', help="weights: train.py's, the authors', safetensors")
    parser.add_argument('--use-ema', action='store_true', help="the checkpoint's EMA weights instead of the plain ones")
    parser.add_argument('--num-classes', type=int, metavar='N', help='(default: those of the weights)')
    parser.add_argument('--gp', metavar='POOL', help='global pooling, where neither weights nor model settle it')
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=KeyValues, metavar='KEY=VALUE', help='of the model')
    parser.add_argument('--img-size', type=int, metavar='N', help="square input (default: the model's)")
    parser.add_argument('--input-size', type=int, nargs=3, metavar='N', help='channels, height, width')
    parser.add_argument('--crop-pct', type=float, metavar='N', help='size of the crop over that of the resized image')
    parser.add_argument('--crop-mode', choices=['center', 'squash', 'border'], help="(default: the model's)")
    parser.add_argument('--interpolation', default='', metavar='NAME', help="of resizing (default: the model's)")
    parser.add_argument('--mean', type=float, nargs='+', metavar='MEAN', help="of pixels (default: the model's)")
    parser.add_argument('--std', type=float, nargs='+', metavar='STD', help="of pixels (default: the model's)")
    parser.add_argument(
        '-j',
        '--workers',
        type=int,
        default=4,
        metavar='N',
        help='processes that read images (4, at most the cores)',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--amp-dtype', default='float16', choices=['float16', 'bfloat16'], help='of --amp (float16)')
    parser.add_argument('--channels-last', action='store_true', help='channels_last memory layout')


def model_of(args: argparse.Namespace) -> nn.Module:
    """The model in eval mode on args.device, by the options of `add_model_options`, which are checked first."""
    check_options(args)
    model = create_loaded(
        args.model,
        args.checkpoint,
        num_classes=args.num_classes,
        use_ema=args.use_ema,
        options={'in_chans': args.input_size and args.input_size[0], 'global_pool': args.gp, **args.model_kwargs},
    )
    require_sound(model)
    model = model.to(args.device).eval()
    return model.to(memory_format=torch.channels_last) if args.channels_last else model  # type: ignore[call-overload]


def create_loaded(
    model: str,
    checkpoint: Path | None,
    num_classes: int | None = None,
    use_ema: bool = True,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model with real weights, never random ones: from a file, or those that its tag, `hf-hub:` or `local-dir:` names.

    What is recorded with a file about image size, normalisation and label names goes into the model's pretrained_cfg, and so do
    the class names that `timm-3g train` keeps beside its checkpoints.

    A file for a model of this package goes through its filter: any format of `models/_formats.py`, loaded strictly, into a
    model built with the options that are recorded with the weights. For other models of timm it is loaded strictly as it is.

    Args:
        num_classes: None for what the weights have; checked against the file.
        use_ema: take the EMA weights of a checkpoint that has both kinds.
        options: keyword arguments of the model; None values are left out. Refused where they contradict the record.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: no such file or architecture; weights that cannot be read or are not of
            this model; no weights for this name.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if given.get('features_only'):
        raise ValueError('features_only=True makes a model without a classifier; leave it out of --model-kwargs.')
    if checkpoint is not None:
        require_file(checkpoint)
    require_model(model, local=checkpoint is not None)
    if checkpoint is None:
        source, name = parse_model_name(model)
        if source:
            check_config(Path(name) if source == 'local-dir' else download_config(name, given.get('cache_dir')).parent)
        net = timm.create_model(model, pretrained=True, num_classes=num_classes, **given)
        _check_classifier(net, model, num_classes)
        return net
    arch = model.split('.')[0]
    if not is_ours(model):
        net = timm.create_model(model, num_classes=num_classes, **given)
        load_checkpoint(net, str(checkpoint), use_ema)
        if checkpoint.suffix not in ('.npz', '.npy'):  # of JAX: nothing is recorded there
            net.pretrained_cfg.update(_described(checkpoint, arch, net.num_classes))
        return net

    weights = read_weights(checkpoint, use_ema)
    if num_classes is None:
        classifier = our_names(weights).get(f'{resolve_pretrained_cfg(model).classifier}.weight')
        if classifier is not None and classifier.ndim != 2:
            raise ValueError(f'The classifier in {checkpoint} must be a matrix; got shape {tuple(classifier.shape)}.')
        num_classes = 0 if classifier is None else len(classifier)
    recorded = read_record(checkpoint, arch)
    recordable = recorded_options()
    known = {key: value for key, value in recorded.items() if key in recordable}
    overlay: dict[str, Any] = {} if bears_tag(model, checkpoint, num_classes) else dict.fromkeys(OF_TAG)
    overlay |= {'file': None, 'num_classes': num_classes}  # the number is what the filter compares the classifier's rows with
    overlay |= _described(checkpoint, arch, num_classes)
    net = timm.create_model(model, pretrained_cfg_overlay=overlay, **{**known, 'num_classes': num_classes, **given})
    net.load_state_dict(checkpoint_filter_fn(weights, net, recorded=recorded))
    return net


def bears_tag(model: str, checkpoint: Path, num_classes: int) -> bool:
    """Whether weights in a file are those that the tag in `model` is of, as far as can be told.

    A tag must be named and have as many classes, and neither a run of train.py nor transformers may have made them, nor may
    their config.json name another tag. Where it is not theirs, nor are the registry's licence, labels and origin.
    """
    arch, _, tag = model.partition('.')
    if not tag or num_classes != resolve_pretrained_cfg(model).num_classes or read_training(checkpoint):
        return False
    recorded = read_description(checkpoint, arch).get('tag', tag)
    return recorded == tag and not is_carried_along(checkpoint, read_config(checkpoint))


def _described(checkpoint: Path, arch: str, num_classes: int) -> dict[str, Any]:
    """Fields of pretrained_cfg: those recorded with the file, and the class names beside it where the record has none."""
    known = read_description(checkpoint, arch)
    # What is recorded is for this evaluation, too, not only for the default tag's own.
    known |= {f'test_{name}': None for name in ('input_size', 'crop_pct') if name in known}
    beside = checkpoint.with_name(CLASS_NAMES)
    if beside.is_file() and not known.get('label_names'):
        names = names_in_order(read_class_map(beside), beside)
        if len(names) == num_classes:
            known |= {'label_names': tuple(names), 'label_descriptions': None}
    return known


def require_model(name: str, local: bool = False) -> None:
    """Raise ValueError unless timm's registry has the name, with its tag. `hf-hub:` and `local-dir:` pass where not `local`."""
    arch, _, tag = name.partition('.')
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
    arch, _, tag = name.partition('.')
    known = timm.list_models(f'{arch}.*', include_tags=True)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    listed = ', '.join(key.partition('.')[2] for key in known) or 'none'
    said = f'Nearest: {nearest[0]}.' if nearest else f'Its tags: {listed}.'
    raise ValueError(f'{name!r} names no weights: {arch} has no tag {tag!r}. {said}')


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
    """Raise ValueError where a model gives features, which are no logits."""
    if model.num_classes < 1:
        raise ValueError(f'This model has {model.num_classes} classes: what it gives are features, not logits. Give others.')


def forward(model: nn.Module, images: Tensor, args: argparse.Namespace) -> Tensor:
    """Logits of images (B, C, H, W) in the precision and memory layout that the options name."""
    images = images.to(args.device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if args.amp_dtype == 'bfloat16' else torch.float16
    with torch.autocast(torch.device(args.device).type, dtype) if args.amp else nullcontext():
        return model(images)


def class_names(model: Any, class_map: str = '') -> list[str]:
    """A name for each class: from a file, from the weights' config, ImageNet's where the model is of it, else the index.

    Raises:
        FileNotFoundError: no such file.
        ValueError: see `read_class_map` and `names_in_order`; another number of names than the model has classes.
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
        raise ValueError(f'The model has {number} classes, {class_map or "its config"} names {len(names)}.')
    return names
