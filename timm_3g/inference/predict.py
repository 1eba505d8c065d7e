"""Top-k classes of images, and pictures of the re-weighting maps."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from timm_3g.layers import record_weights
from timm_3g.models.loading import class_names, require_classifier
from timm_3g.utils.options import require_at_least, takes_fields_of
from timm_3g.utils.terminal import one_line

from .data_config import data_config
from .images import ReadImage, find_images, read_batches
from .model import forward, load_model
from .options import ModelOptions


@dataclass(frozen=True)
class PredictOptions(ModelOptions):
    """A model (see `ModelOptions`) and the images that it classifies.

    Attributes:
        images: files, folders (searched recursively for .png, .jpg, .jpeg) or glob patterns, one or several.
        class_map: a file of class names in the order of their index. '' for the names recorded with the weights, or
            class_names.txt beside them.
        topk: classes per image.
        batch_size: images per step.
        explain: a folder for one PNG per image: input, re-weighting maps, and their product. Needs matplotlib.

    Raises:
        ValueError: a number out of range.

    >>> PredictOptions('resnet10_mini_3g.cifar10', 'photo.jpg', topk=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: topk must be at least 1; got 0.
    """

    images: Path | str | Sequence[Path | str]
    class_map: Path | str = ''
    topk: int = 5
    batch_size: int = 32
    explain: Path | str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, topk=self.topk, batch_size=self.batch_size)


@dataclass(frozen=True)
class ClassProbability:
    """One class of one image.

    >>> ClassProbability('cat', 3, 0.75)
    ClassProbability(name='cat', index=3, probability=0.75)
    """

    name: str
    index: int
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The classes of one image, or why there are none.

    Attributes:
        file: the image.
        classes: in descending order of probability. Empty if the image could not be read or classified.
        failed: '', or what could not be done: 'read', 'classified' or 'drawn'.
        error: why, or ''.

    >>> Prediction(Path('photo.jpg'), (ClassProbability('cat', 3, 0.75),)).classes[0].name
    'cat'
    """

    file: Path
    classes: tuple[ClassProbability, ...] = ()
    failed: str = ''
    error: str = ''


@takes_fields_of(PredictOptions)
def predict(options: PredictOptions) -> list[Prediction]:
    """Classify images.

    A damaged image does not end the call: its `Prediction` has the error. A progress bar is written to stderr if there are
    more images than `batch_size`.

    Args:
        options: the fields of `PredictOptions`, by position or by name, or one `PredictOptions`.

    Returns:
        One prediction per file, in order. Probabilities are the softmax of the logits in float32.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: an option out of range, missing images or weights, or a model without a
            classifier.

    >>> import tempfile
    >>> from PIL import Image
    >>> import timm_3g
    >>> file = Path(tempfile.mkdtemp(), 'photo.png')
    >>> Image.new('RGB', (32, 32), 'skyblue').save(file)
    >>> (found,) = timm_3g.predict('resnet10_mini_3g.cifar10', file, topk=3, workers=0, device='cpu')
    >>> found.file == file, len(found.classes)
    (True, 3)
    >>> found.classes[0].name
    'airplane'
    """
    return list(_predictions(options, find_images(options.images)))


@torch.inference_mode()
def _predictions(options: PredictOptions, files: Sequence[Path]) -> Iterator[Prediction]:
    """One prediction per file, in order. Writes the pictures of `explain`."""
    model: Any = load_model(options)
    require_classifier(model)
    config = data_config(options, model)
    names = class_names(model, str(options.class_map))
    explainer: Any = None
    if options.explain:
        from .explain import Explainer  # needs matplotlib, an extra

        explainer = Explainer(Path(options.explain), files, config['mean'], config['std'])
    hidden = len(files) <= options.batch_size
    with tqdm(total=len(files), desc='predict', unit='image', disable=hidden, file=sys.stderr) as bar:
        for batch in read_batches(files, config, options, options.batch_size):
            outputs = _outputs(model, batch, options)
            for i, pixels, error in batch:
                if pixels is None:
                    yield Prediction(files[i], failed='read', error=error)
                    continue
                logits, maps = next(outputs)
                if not logits.isfinite().all():
                    why = 'its logits are not finite. The weights, mean or std are damaged.'
                    yield Prediction(files[i], failed='classified', error=why)
                    continue
                prediction = Prediction(files[i], _top(logits, options.topk, names))
                if explainer:
                    best = prediction.classes[0]
                    try:
                        explainer.draw(i, pixels, maps, f'{best.name} {100 * best.probability:.1f} %')
                    except OSError as reason:
                        prediction = replace(prediction, failed='drawn', error=one_line(str(reason)))
                yield prediction
            bar.update(len(batch))


def _outputs(model: Any, batch: Iterable[ReadImage], options: PredictOptions) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (classes,) and re-weighting maps (T, h, w) of each readable image, float32 on the CPU."""
    readable = [image.pixels for image in batch if image.pixels is not None]
    if not readable:
        return iter(())
    with record_weights(model) as recorded:
        logits = forward(model, torch.stack(readable), options).float().cpu()
    maps = torch.cat(recorded, 1).float().cpu() if recorded else logits.new_zeros(len(logits), 0, 1, 1)
    return zip(logits, maps, strict=True)


def _top(logits: Tensor, k: int, names: Sequence[str]) -> tuple[ClassProbability, ...]:
    values, indices = logits.softmax(0).topk(min(k, len(logits)))
    return tuple(ClassProbability(names[i], i, p) for p, i in zip(values.tolist(), indices.tolist(), strict=True))
