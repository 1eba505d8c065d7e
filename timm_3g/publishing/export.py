"""Export a weights file to a folder that timm's `local-dir:` and the Hub read."""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
from timm.models import split_model_name_tag

from timm_3g.checkpoints import INTERPOLATIONS, WEIGHTS, Record, is_ours, is_tag, open_weights
from timm_3g.models.loading import bears_tag, class_names, create_loaded
from timm_3g.utils.files import require_file, write_text
from timm_3g.utils.options import OptionError, takes_fields_of

from .card import card_of_same, make_card
from .folder import CARD, ExportFolder
from .run_facts import base_of
from .run_files import run_files
from .write_folder import new_folder, write_folder


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """What a weights file does not say about itself, for `export` and `publish`.

    Attributes:
        model_kwargs: options of the model that neither the file nor its config.json records, e.g. {'num_reweights': 1}.
        use_ema: take the EMA weights of a checkpoint that has both kinds.
        class_map: a file of class names in the order of their index, or one of timm's other forms. '' for the recorded names.
        card: a file of facts and prose for README.md (see `write_card`).
        license: license of the weights, an identifier of the Hub.
        img_size: side of the images in pixels, in place of what is recorded. The next four are like it.
        mean: mean of the pixels, one number or one per channel.
        std: standard deviation of the pixels, one number or one per channel.
        interpolation: how images are resized, e.g. 'bicubic'.
        crop_pct: size of the crop divided by the size of the resized image.
        with_run: keep args.yaml and summary.csv, which train.py left beside a checkpoint. Of absolute paths, only the last part
            is kept.

    Raises:
        ValueError: an image size that is not positive, or an unknown interpolation.
    """

    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    use_ema: bool = True
    class_map: str | Path = ''
    card: str | Path | None = None
    license: str | None = None
    img_size: int | None = None
    mean: Sequence[float] | float | None = None
    std: Sequence[float] | float | None = None
    interpolation: str | None = None
    crop_pct: float | None = None
    with_run: bool = False

    def __post_init__(self) -> None:
        if self.img_size is not None and self.img_size < 1:
            raise OptionError('img_size', f'must be positive; got {self.img_size}.')
        if self.interpolation not in (None, *INTERPOLATIONS):
            raise OptionError('interpolation', f'must be one of {", ".join(INTERPOLATIONS)}; got {self.interpolation!r}.')

    def weights_options(self) -> dict[str, Any]:
        """These options by name, without those of a subclass."""
        return {option.name: getattr(self, option.name) for option in fields(WeightsOptions)}

    def stated(self) -> list[str]:
        """Names of these options that have another value than by default."""
        default = WeightsOptions()
        return [name for name, value in self.weights_options().items() if value != getattr(default, name)]


@dataclass(frozen=True)
class ExportOptions(WeightsOptions):
    """Options of `export`, beside those of `WeightsOptions`.

    Attributes:
        checkpoint: a .pth, .pth.tar or .safetensors file: train.py's, the authors', or any state dict that the filter takes.
        model: <arch> or <arch>.<tag>. None for the architecture that the file records. The tag may be a new one. A tag of
            timm's registry keeps its licence, origin and labels, unless the weights are not its own.
        num_classes: checked against the file. None for the rows of its classifier.
        output: the new folder. None for one named like the model in the current folder.
        tag: tag of the result, if it is not the model's.
        with_card: False to leave out README.md.

    >>> options = ExportOptions('best.pth', 'resnet50_3g.birds', license='mit')
    >>> options.use_ema, options.output
    (True, None)
    >>> ExportOptions('best.pth', img_size=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: img_size must be positive; got 0.
    """

    checkpoint: str | Path
    model: str | None = None
    num_classes: int | None = None
    output: str | Path | None = None
    tag: str = field(default='', kw_only=True)
    with_card: bool = field(default=True, kw_only=True)


@takes_fields_of(ExportOptions)
def export(options: ExportOptions) -> ExportFolder:
    """Write model.safetensors, config.json, a golden input with its logits, and the model card. Read them back.

    The model is built with the options recorded with the weights (by train.py, or in a config.json beside them) and with
    `model_kwargs`, which must not contradict the record. The folder gets its name only when it is complete and timm has read
    it back through `local-dir:` with equal logits. It makes no network request.

    Args:
        options: the fields of `ExportOptions`, by position or by name.

    Returns:
        The folder.

    Raises:
        FileNotFoundError: no such file, or `with_run` and none of a run beside it.
        FileExistsError: the output exists.
        ValueError: the weights cannot be read, are not of this model, or read back differently.

    >>> import tempfile, timm, timm_3g
    >>> from timm_3g import export
    >>> weights = timm.get_pretrained_cfg('resnet10_mini_3g.cifar10').file
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     folder = export(weights, 'resnet10_mini_3g.mine', output=Path(scratch, 'mine'), license='apache-2.0')
    ...     files = sorted(file.name for file in folder.path.iterdir())
    ...     net = timm.create_model(f'local-dir:{folder.path}', pretrained=True)
    >>> folder.name, files
    ('resnet10_mini_3g.mine', ['README.md', 'config.json', 'golden.safetensors', 'model.safetensors'])
    >>> net.num_classes
    10
    """
    return export_file(options)


def export_file(options: ExportOptions, otherwise: str = '') -> ExportFolder:
    """See `export`.

    Args:
        options: its options.
        otherwise: the architecture, if neither the options nor the file name one.
    """
    checkpoint = Path(options.checkpoint)
    require_file(checkpoint)
    of_run = run_files(checkpoint) if options.with_run else {}
    weights = open_weights(checkpoint, options.use_ema)
    model, training = options.model or weights.record.key or otherwise, weights.record.training
    _require_exportable(model, options.tag, weights.record)
    arch, own = split_model_name_tag(model)
    net: Any = create_loaded(
        model if is_tag(model) else arch, None, options.num_classes, options=options.model_kwargs, weights=weights
    ).eval()
    base_model = base_of(training)
    if is_tag(model) and not bears_tag(model, weights, net.num_classes):
        print(
            f'timm-3g: {checkpoint} contains other weights than those of {model}: {_difference(model, net)}. The result has '
            f'neither its tag nor its licence. Give it its own: --model {arch}.TAG, --license ID',
            file=sys.stderr,
        )
        own, base_model = '', base_model if training else model  # a run says what it began with, and that may be nothing
    _describe(net, options.tag or own, options)
    output = Path(options.output or (f'{arch}.{own}' if own else arch))
    with new_folder(output) as path:
        folder, again = write_folder(net, path)
        for name, content in of_run.items():
            (path / name).write_bytes(content)
        folder = replace(folder, files={**folder.files, **of_run})
        if options.with_card:
            if checkpoint.name == WEIGHTS and not training:  # of an exported folder, whose card may be of the same weights
                folder = replace(folder, card=card_of_same(folder, checkpoint.parent))
            card = make_card(
                folder, options.card, options.license, training, base_model=base_model, net=again.to(device='meta')
            )
            write_text(path / CARD, card)
            folder = replace(folder, card=card)
    return replace(folder, path=output)


def _require_exportable(model: str, tag: str, record: Record) -> None:
    """Raise ValueError unless the architecture is ours, the tag is valid, and the file is not known under another name."""
    if not model:
        raise ValueError(f'{record.file} does not say which architecture it is of. Name it: --model NAME[.TAG].')
    if not is_ours(model):
        arch = split_model_name_tag(model)[0]
        if timm.is_model(arch):
            raise ValueError(f'export takes networks with a head of timm_3g; {arch} has that of timm: timm.models.save_for_hf.')
        nearest = ', '.join(get_close_matches(arch, filter(is_ours, timm.list_models()), n=3))
        said = f'Nearest: {nearest}.' if nearest else "timm.list_models('*_3g') has some."
        raise ValueError(f'{model!r} is not an architecture of timm_3g. {said}')
    if not re.fullmatch(r'[\w.-]*', tag or split_model_name_tag(model)[1]):
        raise ValueError(f'A tag consists of letters, digits, _, - and dots; got {tag or model!r}.')
    known = record.known_file
    if known and is_tag(model) and model != known.key:
        raise ValueError(f'{record.file} is the file of {known.key}, according to its name; got {model}. Name {known.key}.')


def _difference(model: str, net: Any) -> str:
    """Why weights are not those of the tag in `model`."""
    own = timm.get_pretrained_cfg(model).num_classes
    return f'{net.num_classes} classes instead of {own}' if net.num_classes != own else 'they were trained since'


def _describe(net: Any, tag: str, options: WeightsOptions) -> None:
    """Write tag, licence, image preparation and class names into the model's pretrained_cfg.

    Raises:
        ValueError: the number of means differs from the number of channels, or the class names are invalid.
    """
    cfg = net.pretrained_cfg
    if tag:
        cfg['tag'] = tag
    if options.license:  # config.json and the card say the same
        cfg['license'] = options.license
    channels = cfg['input_size'][0]
    if options.img_size is not None:
        cfg.update(input_size=(channels, options.img_size, options.img_size), test_input_size=None)
    if options.crop_pct is not None:
        cfg.update(crop_pct=options.crop_pct, test_crop_pct=None)
    for name in ('mean', 'std'):
        values = getattr(options, name)
        if values is not None:
            values = tuple(values) if isinstance(values, Sequence) else (values,)
            if len(values) not in (1, channels):
                raise OptionError(name, f'must have 1 or {channels} numbers; got {len(values)}.')
            cfg[name] = values * (channels if len(values) == 1 else 1)
    if options.interpolation is not None:
        cfg['interpolation'] = options.interpolation
    if options.class_map:
        cfg['label_names'] = tuple(class_names(net, str(options.class_map)))
        cfg.pop('label_descriptions', None)
