"""A model with the weights that a command was asked for. What validate, predict and export share."""

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.data.readers.class_map import load_class_map
from timm.models import load_checkpoint, resolve_pretrained_cfg
from timm.utils import ParseKwargs
from torch import Tensor, nn

from timm_3g.models import (
    RECORDED,
    check_config,
    checkpoint_filter_fn,
    is_ours,
    our_names,
    read_description,
    read_record,
    read_weights,
)


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
    parser.add_argument('--model-kwargs', nargs='*', default={}, action=ParseKwargs, metavar='KEY=VALUE', help='of the model')
    parser.add_argument('--img-size', type=int, metavar='N', help="square input (default: the model's)")
    parser.add_argument('--input-size', type=int, nargs=3, metavar='N', help='channels, height, width')
    parser.add_argument('--crop-pct', type=float, metavar='N', help='size of the crop over that of the resized image')
    parser.add_argument('--crop-mode', choices=['center', 'squash', 'border'], help="(default: the model's)")
    parser.add_argument('--interpolation', default='', metavar='NAME', help="of resizing (default: the model's)")
    parser.add_argument('--mean', type=float, nargs='+', metavar='MEAN', help="of pixels (default: the model's)")
    parser.add_argument('--std', type=float, nargs='+', metavar='STD', help="of pixels (default: the model's)")
    parser.add_argument('-j', '--workers', type=int, default=4, metavar='N', help='processes that read images (4)')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='(default: %(default)s)')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--amp-dtype', default='float16', choices=['float16', 'bfloat16'], help='of --amp (float16)')
    parser.add_argument('--channels-last', action='store_true', help='channels_last memory layout')


def model_of(args: argparse.Namespace, described: bool) -> nn.Module:
    """The model in eval mode on args.device, by the options of `add_model_options`. `described`: see `create_loaded`."""
    model = create_loaded(
        args.model,
        args.checkpoint,
        num_classes=args.num_classes,
        use_ema=args.use_ema,
        options={'in_chans': args.input_size and args.input_size[0], 'global_pool': args.gp, **args.model_kwargs},
        described=described,
    )
    model = model.to(args.device).eval()
    return model.to(memory_format=torch.channels_last) if args.channels_last else model  # type: ignore[call-overload]


def create_loaded(
    model: str,
    checkpoint: Path | None,
    num_classes: int | None = None,
    use_ema: bool = True,
    options: Mapping[str, Any] | None = None,
    described: bool = True,
) -> nn.Module:
    """A model with real weights, never random ones: from a file, or those that its tag, `hf-hub:` or `local-dir:` names.

    A file for a model of this package goes through its filter: any format of `models/_formats.py`, loaded strictly, into a
    model built with the options that are recorded with the weights. For other models of timm it is loaded strictly as it is.

    Args:
        num_classes: None for what the weights have; checked against the file.
        use_ema: take the EMA weights of a checkpoint that has both kinds.
        options: keyword arguments of the model; None values are left out. Refused where they contradict the record.
        described: take image size, normalisation and label names from what is recorded with the weights. timm's validate.py
            does not, so neither does the command that is compared with it.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: no such file or architecture; weights that cannot be read or are not of
            this model; no weights for this name.
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    if checkpoint is None:
        if model.startswith('local-dir:'):
            check_config(Path(model.removeprefix('local-dir:')))
        return timm.create_model(model, pretrained=True, num_classes=num_classes, **given)
    if not checkpoint.is_file():
        raise FileNotFoundError(f'{checkpoint} does not exist.')
    if not timm.is_model(model):
        raise ValueError(f'{model!r} is no architecture of timm or timm_3g; a checkpoint needs one, e.g. resnet50_3g.')
    if not is_ours(model):
        net = timm.create_model(model, num_classes=num_classes, **given)
        load_checkpoint(net, str(checkpoint), use_ema)
        return net

    weights = read_weights(checkpoint, use_ema)
    if num_classes is None:
        classifier = our_names(weights).get(f'{resolve_pretrained_cfg(model).classifier}.weight')
        if classifier is not None and classifier.ndim != 2:
            raise ValueError(f'The classifier in {checkpoint} must be a matrix; got shape {tuple(classifier.shape)}.')
        num_classes = 0 if classifier is None else len(classifier)
    recorded = read_record(checkpoint, model.split('.')[0])
    known = {key: value for key, value in recorded.items() if key in RECORDED}
    # What the default tag's weights were trained on says nothing about these: no labels, no licence, unless a tag was named.
    overlay: dict[str, Any] = {} if '.' in model else dict.fromkeys(('tag', 'label_names', 'label_descriptions', 'license'))
    overlay |= {'file': None, 'num_classes': num_classes}  # the number is what the filter compares the classifier's rows with
    overlay |= read_description(checkpoint, model.split('.')[0]) if described else {}
    net = timm.create_model(model, pretrained_cfg_overlay=overlay, **{**known, 'num_classes': num_classes, **given})
    net.load_state_dict(checkpoint_filter_fn(weights, net, recorded=recorded))
    return net


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
        ValueError: a file or a config with another number of names than the model has classes.
    """
    cfg, number = model.pretrained_cfg, model.num_classes
    if class_map:
        if not Path(class_map).is_file():
            raise FileNotFoundError(f'{class_map} does not exist.')
        by_index = {index: name for name, index in load_class_map(class_map).items()}
        names = [by_index[index] for index in sorted(by_index)]
    else:
        names = list(cfg.get('label_names') or ())
        descriptions = cfg.get('label_descriptions') or {}
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
