"""Figure 1 of the paper as a measurement: does a generalized Gaussian describe activations better than a Gaussian?"""

import warnings
from typing import TYPE_CHECKING, Any

import scipy.stats
import torch
from torch import Tensor

from timm_3g.mggd import MultivariateGeneralizedGaussian, can_fit, fit_mggd
from timm_3g.utils.options import OptionError
from timm_3g.utils.table import aligned

from .activations import Activations
from .finding import Finding, Row
from .heldout import Comparison, compare, gaussian_like
from .options import Figure1Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure_densities(found: Activations, options: Figure1Options) -> Finding:
    """Held-out log-likelihood of activations under both distributions.

    - `channels`: one set of samples per channel, all positions of all images. The two folds are even and odd images (even and
      odd positions of a single image).
    - `images`: one row per image, over its channels, then over random groups of `dim` channels. The two folds are even and odd
      positions. The control rows are the same for noise that `gaussian_like` makes.
    """
    channel_rows: list[Row] = []
    image_rows: list[Row] = []
    lines: list[list[str]] = []
    notes: list[str] = []
    for layer, x in found.layers.items():
        channels = _channels(layer, x)
        channel_rows += channels
        lines.append([f'{layer}: channels (d = 1, all images)', *_summary(channels)])
        zeros = float((x == 0).double().mean())
        if zeros > 0.01:
            notes.append(f'{layer}: {100 * zeros:.1f} % of the values are exactly 0 (ReLU): no density fits such an atom.')
        noise = gaussian_like(x)
        for d in dict.fromkeys((1, min(options.dim, x.shape[1]))):
            if x.shape[2] // 2 < d + 2:
                remedy = 'Choose a smaller dim.' if d > 1 else 'Choose larger images.'
                notes.append(f'{layer}: {x.shape[2]} positions are too few for fits in {d} dimensions. {remedy}')
                continue
            for control, values in enumerate((x, noise)):
                images = _images(found, layer, values, d, options.groups, control)
                image_rows += images
                lines.append([f'{layer}: {"control" if control else "images"} (d = {d})', *_summary(images)])
    header = ['', 'fitted', 'no max.', 'sets won', 'images won', 'gain', '5 %', '95 %', 'shape', 'shape < 1']
    return Finding({'channels': channel_rows, 'images': image_rows}, [*aligned([header, *lines]), *notes, *_LEGEND])


_LEGEND = [
    'fitted: sets of samples that are not degenerate. no max.: those of them that did not converge in one of the folds,',
    'usually because the likelihood grows up to a bound of the shape. They count. sets won: sets for which the generalized',
    'Gaussian has the higher held-out log-likelihood. gain: nats per sample, of an image the median over its sets. Shown are',
    'its median, 5 and 95 % over images (channels). images won: images (channels) with a positive gain. shape: median of',
    'beta. 1 is Gaussian, less is long-tailed. control: the same for Gaussian noise with the covariances over positions and',
    'channels of each image. It shows these figures for a Gaussian distribution.',
]


def _summary(rows: list[Row]) -> list[str]:
    """One line about rows of channels.csv or images.csv."""
    sets, fitted = sum(row['sets'] for row in rows), sum(row['fitted'] for row in rows)
    gains = torch.tensor([row['gain'] for row in rows], dtype=torch.float64)
    shapes = torch.tensor([row['shape'] for row in rows], dtype=torch.float64)
    gains, shapes = gains[~gains.isnan()].clamp(min=-1e300), shapes[~shapes.isnan()]  # between two infinities lies nan
    if not len(gains):
        return [f'0 of {sets}', *['-'] * 8]
    low, middle, high = (_nats(float(gains.quantile(q))) for q in (0.05, 0.5, 0.95))
    no_maximum, sets_won = (f'{100 * sum(row[key] for row in rows) / fitted:.1f} %' for key in ('no_maximum', 'won'))
    return [
        f'{fitted} of {sets}',
        no_maximum,
        sets_won,
        f'{100 * float((gains > 0).double().mean()):.1f} %',
        middle,
        low,
        high,
        f'{float(shapes.median()):.2f}',
        f'{100 * float((shapes < 1).double().mean()):.0f} %',
    ]


def _nats(gain: float) -> str:
    """Three digits. Outside its ellipsoid, a distribution at the bound of the shape has a density of e^-1e30."""
    return f'{gain:+.3g}' if abs(gain) < 1000 else '<-1000' if gain < 0 else '>+1000'


def _channels(layer: str, x: Tensor) -> list[Row]:
    """One row per channel of x (M, C, N)."""
    if len(x) > 1:
        half = len(x) // 2
        x = x[: 2 * half]  # what the two folds have, and nothing else, is described below
        a, b = (part.movedim(1, 0).flatten(1).unsqueeze(-1) for part in (x[0::2], x[1::2]))
    else:
        half = x.shape[2] // 2
        a, b = (part[0].unsqueeze(-1) for part in (x[..., 0::2][..., :half], x[..., 1::2][..., :half]))
    result = compare(a, b, f'{layer}, channels')
    flat = x.movedim(1, 0).flatten(1).double()
    mean, std = flat.mean(1), flat.std(1, correction=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # of constant channels
        kurtosis = scipy.stats.kurtosis(flat.numpy(), axis=1)
    return [
        {
            'layer': layer,
            'channel': c,
            'samples': flat.shape[1],
            'zeros': float((flat[c] == 0).double().mean()),
            'mean': float(mean[c]),
            'std': float(std[c]),
            'excess_kurtosis': float(kurtosis[c]),
            'sets': 1,
            'fitted': int(result.fitted[c]),
            'no_maximum': int(result.fitted[c] & ~result.converged[c]),
            'won': int(result.generalized[c] > result.gaussian[c]),
            'shape': float(result.shape[c]),
            'gaussian': float(result.gaussian[c]),
            'generalized': float(result.generalized[c]),
            'gain': float(result.generalized[c] - result.gaussian[c]),
        }
        for c in range(len(flat))
    ]


def _images(found: Activations, layer: str, x: Tensor, dim: int, groups: int, control: int) -> list[Row]:
    """One row per image of x (M, C, N): each channel alone, or the same random groups of `dim` channels in every image."""
    generator = torch.Generator().manual_seed(0)
    channels, num = x.shape[1:]
    if dim == 1:
        index = torch.arange(channels).unsqueeze(1)
    else:
        index = torch.stack([torch.randperm(channels, generator=generator)[:dim] for _ in range(groups)])
    sets = x[:, index].mT.flatten(0, 1)  # (images x sets, N, d)
    result = compare(sets[:, 0::2][:, : num // 2], sets[:, 1::2], f'{layer}, d = {dim}{", control" * control}')
    result = Comparison(*(tensor.view(len(x), -1) for tensor in result))
    gains, shapes = result.generalized - result.gaussian, result.shape  # NaN where not fitted
    return [
        {
            'layer': layer,
            'control': control,
            'image': str(file),
            'dim': dim,
            'sets': len(index),
            'fitted': int(result.fitted[m].sum()),
            'no_maximum': int((result.fitted[m] & ~result.converged[m]).sum()),
            'won': int((gains[m] > 0).sum()),
            'shape': float(shapes[m].nanmedian()),
            'gain': float(gains[m].nanmedian()),
        }
        for m, file in enumerate(found.files)
    ]


def require_channels(found: Activations, options: Figure1Options) -> None:
    """Raise ValueError if a channel to draw does not exist in every layer.

    >>> x = torch.zeros(1, 4, 9)
    >>> found = Activations([], {'layer1': x}, x, x, x)
    >>> require_channels(found, Figure1Options('any', [], channels=[4]))
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: channels must lie in 0 to 3 for layer1; got 4.
    """
    for layer, x in found.layers.items():
        wrong = [c for c in options.channels or () if not 0 <= c < x.shape[1]]
        if wrong:
            raise OptionError('channels', f'must lie in 0 to {x.shape[1] - 1} for {layer}; got {wrong[0]}.')


def _shown(found: Activations, options: Figure1Options) -> dict[str, list[int]]:
    """Layer -> channels to draw."""
    counts = {layer: x.shape[1] for layer, x in found.layers.items()}
    return {
        layer: list(options.channels or [i * count // min(8, count) for i in range(min(8, count))])
        for layer, count in counts.items()
    }


def draw_densities(found: Activations, finding: Finding, options: Figure1Options) -> 'Figure':
    """One row per layer, one panel per channel: a histogram with both fitted distributions, logarithmic to show the tails."""
    from matplotlib.figure import Figure  # an extra

    shown = _shown(found, options)
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(max(7, 3 * columns), 2.8 * len(shown) + 0.5), layout='constrained')
    figure.suptitle(f'{options.name}: activations (histogram), Gaussian (dashed), generalized Gaussian (solid)', fontsize=10)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for axes_row, (layer, channels) in zip(grid, shown.items(), strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, c in zip(axes_row, channels, strict=False):
            axes.set_axis_on()
            shape = draw_fits(axes, found.layers[layer][:, c].flatten(), bins=100)
            axes.set_title(f'{layer}\nchannel {c}{shape}', fontsize=7, parse_math=False)
            axes.tick_params(labelsize=6)
    return figure


def draw_fits(axes: Any, values: Tensor, bins: int, log: bool = True) -> str:
    """Draw values (N,) as a histogram, with the density of the fitted Gaussian, dashed, and of the generalized one.

    Returns:
        ': shape ' and that of the generalized Gaussian, or '' for values that no density fits.

    >>> from matplotlib.figure import Figure
    >>> draw_fits(Figure().subplots(), torch.linspace(-1, 1, 500), bins=20)[:8]
    ': shape '
    """
    axes.hist(values.numpy(), bins=bins, density=True, color='0.75', log=log)
    low, high = axes.get_ylim()
    text = ''
    if bool(can_fit(values.view(1, -1, 1)).all()):
        points = torch.linspace(float(values.min()), float(values.max()), 400, dtype=torch.float64)
        for shape, style in ((1.0, 'C0--'), (None, 'C3-')):
            fitted = _fit(values, shape)
            axes.plot(points, fitted.log_prob(points.unsqueeze(-1)).exp(), style, linewidth=1.2)
        text = f': shape {float(fitted.shape):.2f}'
    axes.set_ylim(low, high)
    return text


def _fit(values: Tensor, shape: float | None) -> MultivariateGeneralizedGaussian:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # a fit that did not converge is drawn as it is
        return fit_mggd(values.double().unsqueeze(-1), shape)[0]
