"""The activations of one photograph: a channel against two densities, and the covariance before and after the root."""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from timm_3g.figure1.activations import Recorder, default_layers
from timm_3g.figure1.densities import draw_fits
from timm_3g.inference.model import forward
from timm_3g.layers import second_order_pool_of
from timm_3g.ops import covariance

from .look import prepare
from .shelf import ShelfModel


@torch.inference_mode()
def draw_statistics(model: ShelfModel, file: str | Path | None, channel: int, megapixels: int) -> Figure:
    """Two pictures of one photograph.

    Left: the activations of a channel in front of the last ReLU before the covariance, as a histogram, with the Gaussian and
    the generalized Gaussian of maximum likelihood. Right: the eigenvalues of the covariance of the features, and of the matrix
    that the pooling returns, over their sums.

    Args:
        model: with a second-order pooling.
        file: the photograph.
        channel: counted from 0.
        megapixels: see `open_photo`.

    Raises:
        ValueError: see `open_photo`; a model without a second-order pooling; no such channel.

    >>> import tempfile
    >>> from PIL import Image
    >>> from timm_3g.page.shelf import Shelf
    >>> file = Path(tempfile.mkdtemp(), 'photo.png')
    >>> Image.new('RGB', (32, 32), 'skyblue').save(file)
    >>> model = Shelf(['resnet10_mini_3g.open_cifar10'], device='cpu').get('resnet10_mini_3g.open_cifar10')
    >>> len(draw_statistics(model, file, channel=0, megapixels=50).axes)
    2
    >>> draw_statistics(model, file, channel=64, megapixels=50)
    Traceback (most recent call last):
    ValueError: The channel must be from 0 to 63; got 64.
    """
    if second_order_pool_of(model.net)[1] is None:
        raise ValueError(f'{model.name} has no second-order pooling, whose statistics could be shown.')
    images = prepare(model, file, megapixels)
    layer = default_layers(model.net)[0]
    with model.lock, Recorder(model.net, [layer]) as recorder:
        forward(model.net, images, model.options)
    found = recorder.activations([Path(str(file))])
    values = found.layers[layer][0]
    if not 0 <= channel < len(values):
        raise ValueError(f'The channel must be from 0 to {len(values) - 1}; got {channel}.')
    figure = Figure(figsize=(10, 4), layout='constrained')
    left, right = figure.subplots(1, 2)
    shape = draw_fits(left, values[channel], bins=20, log=False)
    left.set(title=f'channel {channel} at {values.shape[1]} positions{shape}', xlabel='activation', ylabel='density')
    left.plot([], [], 'C0--', label='Gaussian')
    left.plot([], [], 'C3-', label='generalized Gaussian')
    left.legend(fontsize=8)
    spectra = {'covariance of the features': torch.linalg.eigvalsh(covariance(found.reduced[0].double()))}
    if found.spectrum.shape[1]:
        spectra['matrix that the pooling returns'] = found.spectrum[0]
    for name, eigenvalues in spectra.items():
        shares = eigenvalues.clamp(min=0).flip(0)
        shares = shares / shares.sum().clamp(min=1e-300)
        right.plot(range(1, len(shares) + 1), shares.clamp(min=1e-12), label=name)
    right.set(yscale='log', ylim=(1e-6, 1), xlabel='eigenvalue', ylabel='share of the sum', title='spectrum')
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    return figure
