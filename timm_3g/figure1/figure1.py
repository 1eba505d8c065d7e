"""The statistical claim of the 3G paper, measured on a model and images: CSVs and pictures."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from tqdm import tqdm

from timm_3g.inference import find_images
from timm_3g.inference.data_config import data_config
from timm_3g.inference.images import read_batches
from timm_3g.inference.model import forward, load_model
from timm_3g.layers import second_order_pool_of
from timm_3g.utils.files import is_own_picture, require_writable_folder, save_figure
from timm_3g.utils.options import OptionError, takes_fields_of

from .activations import Activations, Recorder, default_layers
from .chain import draw_chain, measure_chain
from .csv_file import write_csv
from .densities import draw_densities, measure_densities, require_channels
from .finding import Finding
from .options import Figure1Options
from .spectra import draw_spectra, measure_spectra, require_estimator

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Part:
    """One part of the figure.

    Attributes:
        title: one line.
        measure: from activations to numbers.
        draw: from activations and numbers to a picture.
        tables: names of its CSVs.
        needs_pooling: whether the model must have a second-order pooling of this package.

    >>> PARTS['densities'].needs_pooling
    False
    """

    title: str
    measure: Callable[[Activations, Figure1Options], Finding]
    draw: 'Callable[[Activations, Finding, Figure1Options], Figure]'
    tables: tuple[str, ...]
    needs_pooling: bool = True


# One place to add a part. Its picture is NAME.png, its numbers are the CSVs that its finding names.
PARTS = {
    'densities': Part(
        'Held-out log-likelihood of activations: generalized Gaussian against Gaussian.',
        measure_densities,
        draw_densities,
        ('channels', 'images'),
        needs_pooling=False,
    ),
    'spectra': Part(
        "Eigenvalues over their sum, mean over images: covariance, its root, the model's own root, the exact estimator.",
        measure_spectra,
        draw_spectra,
        ('spectra',),
    ),
    'chain': Part(
        'Exact estimator, its one-step approximation, the learned weights: misfit and rank correlation, image by image.',
        measure_chain,
        draw_chain,
        ('chain',),
    ),
}


@dataclass(frozen=True)
class Figure1:
    """What `figure1` found.

    Attributes:
        model: its name.
        files: the images.
        layers: the modules whose activations were fitted.
        findings: name of a part -> its numbers. A part that the model's pooling does not allow is missing.

    >>> Figure1('resnet50_3g', (), ('layer4',), {}).layers
    ('layer4',)
    """

    model: str
    files: tuple[Path, ...]
    layers: tuple[str, ...]
    findings: dict[str, Finding]


@takes_fields_of(Figure1Options)
def figure1(options: Figure1Options) -> Figure1:
    """Measure whether activations are long-tailed, and whether learned weights follow the exact estimator.

    CSVs and pictures are written to `output`. Progress bars are written to stderr. Needs matplotlib and scipy.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, figure 1 and equations (9) to (11).

    Args:
        options: the fields of `Figure1Options`, by position or by name, or one `Figure1Options`.

    Returns:
        The numbers of every part that the model allows.

    Raises:
        FileExistsError: a file of another origin has the name of a result.
        FileNotFoundError, ValueError, RuntimeError: an option out of range, missing images or weights, an image that cannot be
            read, a layer that does not exist or gives no maps, or parts that need another pooling.

    >>> import tempfile
    >>> import numpy as np
    >>> from PIL import Image
    >>> import timm_3g.figure1
    >>> root = Path(tempfile.mkdtemp())
    >>> for i, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)):
    ...     Image.fromarray(pixels).save(root / f'{i}.png')
    >>> found = timm_3g.figure1.figure1(
    ...     'resnet10_mini_3g.cifar10', root, root / 'out', parts=['spectra'], workers=0, device='cpu'
    ... )
    >>> [row['index'] for row in found.findings['spectra'].tables['spectra'][:3]]
    [1, 2, 3]
    >>> sorted(file.name for file in (root / 'out').iterdir())
    ['spectra.csv', 'spectra.png']
    """
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        raise OptionError('parts', f'must be among {", ".join(PARTS)}; got {unknown[0]!r}.')
    if not options.parts:
        raise OptionError('parts', f'must name at least one of {", ".join(PARTS)}.')
    output = Path(options.output)
    require_writable_folder(output)
    for part in options.parts:
        _require_own(output, part)
    importlib.import_module('matplotlib')  # an extra: where it is missing, nothing is measured
    files = find_images(options.images)
    if options.num_images and options.num_images < len(files):
        files = [files[i * len(files) // options.num_images] for i in range(options.num_images)]
    model: Any = load_model(options)
    second_order = second_order_pool_of(model)[1] is not None
    parts = [part for part in options.parts if second_order or not PARTS[part].needs_pooling]
    if not parts:
        raise ValueError(
            f'{" and ".join(options.parts)} need a second-order pooling of timm_3g, which {options.name} does not have. The '
            f'part densities takes any model.'
        )
    found = collect(model, files, options)
    require_channels(found, options)
    if parts != ['densities']:
        require_estimator(found, options)
    output.mkdir(parents=True, exist_ok=True)
    findings = {part: write_part(part, found, options) for part in parts}
    return Figure1(options.name, tuple(files), tuple(found.layers), findings)


def _require_own(output: Path, part: str) -> None:
    """Raise FileExistsError where files of a part have names of files that `figure1` did not write: a user's own pictures."""
    picture = output / f'{part}.png'
    there = [file for file in (picture, *(output / f'{table}.csv' for table in PARTS[part].tables)) if os.path.lexists(file)]
    if there and not is_own_picture(picture):
        raise FileExistsError(f'{there[0]} exists, and figure1 did not write it. Name another folder: --output DIR.')


def write_part(name: str, found: Activations, options: Figure1Options) -> Finding:
    """Measure one part, and write its picture and its CSVs."""
    finding = PARTS[name].measure(found, options)
    save_figure(PARTS[name].draw(found, finding, options), Path(options.output, f'{name}.png'))  # first: it marks the others
    for table, rows in finding.tables.items():
        write_csv(rows, Path(options.output, f'{table}.csv'))
    return finding


@torch.inference_mode()
def collect(model: nn.Module, files: list[Path], options: Figure1Options) -> Activations:
    """Run the images through the model and keep the activations of the layers, and what its pooling sees.

    Raises:
        ValueError: no such module, or one that does not run once; an image that cannot be read; features that are not maps.
    """
    config = data_config(options, model)
    recorder = Recorder(model, options.layers or default_layers(model))
    seen = 0
    with recorder, tqdm(total=len(files), desc='figure1', unit='image', file=sys.stderr) as bar:
        for batch in read_batches(files, config, options, options.batch_size):
            unreadable = [f'{files[i]}: {error}' for i, _, error in batch if error]
            if unreadable:
                raise ValueError(f'{len(unreadable)} of the images cannot be read, the first {unreadable[0]}.')
            forward(model, torch.stack([image.pixels for image in batch if image.pixels is not None]), options)
            seen += len(batch)
            recorder.require(seen)
            bar.update(len(batch))
    return recorder.activations(files)
