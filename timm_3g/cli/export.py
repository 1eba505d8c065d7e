"""`timm-3g export`: any weight file that the filter takes, to the folder that timm's `local-dir:` and the Hub read."""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm

from timm_3g.checkpoints import INTERPOLATIONS, is_ours, is_tag, open_weights
from timm_3g.models.loading import bears_tag, class_names, create_loaded
from timm_3g.publishing.card import add_card_options, write_card
from timm_3g.publishing.folder import key_of, new_folder, write_folder
from timm_3g.publishing.run_facts import base_of
from timm_3g.utils.files import require_file

from ._arguments import KeyValues

IMAGES = ('img_size', 'mean', 'std', 'interpolation', 'crop_pct')
NAMES = 'class_names.txt'  # what `timm-3g train` keeps beside its checkpoints

EXAMPLE = 'timm-3g export ResNet50-3G-ImageNet.pth.tar --model resnet50_3g.orig_in1k --output resnet50_3g.orig_in1k'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('checkpoint', type=Path, metavar='FILE', help='.pth, .pth.tar or .safetensors')
    add_export_options(parser)
    parser.add_argument('--output', type=Path, metavar='DIR', help='new folder (default: NAME[.TAG] in the current one)')


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """What settles the model that a weight file is of. `publish` has the same."""
    parser.add_argument('--model', metavar='NAME[.TAG]', help='architecture (default: as train.py recorded it in the file)')
    parser.add_argument('--num-classes', type=int, metavar='N', help='checked against the file (default: its rows of fc)')
    parser.add_argument(
        '--model-kwargs',
        nargs='*',
        default={},
        action=KeyValues,
        metavar='KEY=VALUE',
        help='options of the weights, where neither the file nor its config.json records them, e.g. num_reweights=1',
    )
    parser.add_argument('--no-ema', action='store_true', help='the plain weights of a checkpoint that has EMA weights, too')
    parser.add_argument('--img-size', type=int, metavar='N', help='side of the images, where no record says it')
    parser.add_argument('--mean', type=float, nargs='+', metavar='N', help='of their pixels')
    parser.add_argument('--std', type=float, nargs='+', metavar='N', help='of their pixels')
    parser.add_argument('--interpolation', metavar='NAME', help='of resizing')
    parser.add_argument('--crop-pct', type=float, metavar='N', help='size of the crop over that of the resized image')
    parser.add_argument('--class-map', default='', metavar='FILE', help='class names in the order of their index, to keep')
    add_card_options(parser)


def run(args: argparse.Namespace) -> None:
    """Export, and say where the result is and how to load it."""
    folder = export(args.checkpoint, model_name(args.checkpoint, args.model), output=args.output, **export_options(args))
    print(f'{folder}/ written: model.safetensors, config.json, golden.safetensors, README.md; read back, logits equal.')
    print(f"import timm, timm_3g; timm.create_model('local-dir:{folder}', pretrained=True)")
    print(f'timm-3g publish {folder} --repo ORG/{key_of(folder)}')


def export_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `export` from the options of `add_export_options`."""
    return {
        'num_classes': args.num_classes,
        'model_kwargs': args.model_kwargs,
        'use_ema': not args.no_ema,
        'images': {name: getattr(args, name) for name in IMAGES},
        'class_map': args.class_map,
        'card': args.card,
        'license': args.license,
    }


def model_name(checkpoint: Path, given: str | None, otherwise: str = '') -> str:
    """The architecture that is asked for, else what the file says it is of (see `read_key`), else `otherwise`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: none of them.
    """
    require_file(checkpoint)
    name = given or open_weights(checkpoint).record.key or otherwise
    if not name:
        raise ValueError(f'{checkpoint} does not say which architecture it is of. Name it: --model NAME[.TAG].')
    return name


def export(
    checkpoint: Path,
    model: str,
    num_classes: int | None = None,
    output: Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    use_ema: bool = True,
    class_map: str = '',
    card: Path | None = None,
    license: str | None = None,
    with_card: bool = True,
    tag: str = '',
    images: Mapping[str, Any] | None = None,
) -> Path:
    """Write model.safetensors, config.json, a golden input with its logits, and the model card; prove that they read back.

    The model is built with the options recorded with the weights (by train.py, or in a config.json beside them) and with
    model_kwargs, which are refused where they contradict the record; config.json says how the run prepared its images. The
    folder appears under its name only when it is whole and has been read back through `local-dir:`. No network.

    Args:
        checkpoint: train.py's, the authors', or any state dict that the filter takes.
        model: <arch> or <arch>.<tag>. The tag may be a new one; of one in timm's registry, licence, origin and labels are kept,
            unless the weights are not its own (see `bears_tag`): then not even the tag.
        num_classes: None for the rows of the classifier.
        output: the new folder; None for one of the model's name in the current folder.
        model_kwargs: options of the model, where nothing recorded them.
        use_ema: EMA weights where the checkpoint has both kinds.
        class_map: a file of class names in the order of their index, or timm's other forms; '' for those of the config.
        card, license: see `write_card`.
        with_card: False leaves README.md out.
        images: img_size, mean, std, interpolation, crop_pct of the images that the weights want; None values are left out.
        tag: of the result, instead of the model's; says nothing about the weights.

    Returns:
        The folder.

    Raises:
        FileNotFoundError, FileExistsError: no such file; an output that exists already.
        ValueError: weights that cannot be read or are not of this model, or that read back differently.
    """
    if not is_ours(model):
        raise ValueError(f'{model!r} is no architecture of timm_3g: {", ".join(filter(is_ours, timm.list_models()))}.')
    if not re.fullmatch(r'[\w.-]*', tag or model.partition('.')[2]):
        raise ValueError(f'A tag is made of letters, digits, _, - and dots; got {tag or model!r}.')
    weights = open_weights(checkpoint, use_ema)
    known = weights.record.known_file
    if known and is_tag(model) and model != known.key:
        raise ValueError(f'{checkpoint} is the file of {known.key}, as its name says; got {model}. Name {known.key}.')
    arch, _, own = model.partition('.')
    net: Any = create_loaded(
        model if is_tag(model) else arch, num_classes=num_classes, options=model_kwargs, weights=weights
    ).eval()
    training = weights.record.training
    base_model = base_of(training)
    if is_tag(model) and not bears_tag(model, weights, net.num_classes):
        print(
            f'timm-3g: {checkpoint} holds other weights than those of {model}: {_difference(model, net)}. The result '
            f'has neither its tag nor its licence. Give it its own: --model {arch}.TAG, --license ID',
            file=sys.stderr,
        )
        own, base_model = '', base_model or model
    output = output or Path(f'{arch}.{own}' if own else arch)
    with new_folder(output) as folder:
        if tag or own:
            net.pretrained_cfg['tag'] = tag or own
        _set_images(net.pretrained_cfg, images or {})
        beside = checkpoint.with_name(NAMES)
        if not class_map and not net.pretrained_cfg.get('label_names') and beside.is_file():
            names = beside.read_text(encoding='utf-8').splitlines()
            if len(names) == net.num_classes:
                net.pretrained_cfg['label_names'] = tuple(names)
        if class_map:
            net.pretrained_cfg['label_names'] = tuple(class_names(net, class_map))
            net.pretrained_cfg.pop('label_descriptions', None)
        write_folder(net, folder)
        if with_card:
            write_card(folder, card, license, training=training, base_model=base_model)
    return output


def _difference(model: str, net: Any) -> str:
    """Why weights are not those of the tag in `model`."""
    own = timm.get_pretrained_cfg(model).num_classes
    return f'{net.num_classes} classes in place of {own}' if net.num_classes != own else 'they were trained since'


def _set_images(cfg: dict[str, Any], images: Mapping[str, Any]) -> None:
    """Write into a pretrained_cfg how images are prepared.

    Raises:
        ValueError: a size that is not positive, or as many means as the images have no channels.
    """
    given = {name: value for name, value in images.items() if value is not None}
    channels = cfg['input_size'][0]
    size = given.pop('img_size', None)
    if size is not None:
        if size < 1:
            raise ValueError(f'--img-size must be positive; got {size}.')
        cfg['input_size'] = (channels, size, size)
    for name in ('mean', 'std'):
        if name in given and len(given[name]) not in (1, channels):
            raise ValueError(f'--{name} must have 1 or {channels} numbers; got {len(given[name])}.')
        if name in given:
            given[name] = tuple(given[name]) * (channels if len(given[name]) == 1 else 1)
    if given.get('interpolation', 'bilinear') not in INTERPOLATIONS:
        raise ValueError(f'--interpolation must be one of {", ".join(INTERPOLATIONS)}; got {given["interpolation"]!r}.')
    cfg.update(given)
