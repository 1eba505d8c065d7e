"""Figure 1 of the paper, made measurable: is a generalized Gaussian a better law of activations than a Gaussian?"""

import argparse
import warnings
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from timm_3g.mggd import MultivariateGeneralizedGaussian, can_fit, fit_mggd
from timm_3g.utils.files import save_figure

from .activations import Activations
from .heldout import Comparison, compare, gaussian_like
from .report import table, write_csv


def measure_densities(found: Activations, args: argparse.Namespace) -> list[str]:
    """Held-out log-likelihood of activations: generalized Gaussian against Gaussian.

    Channels: all positions of all images, folds by image (by position for one image). Images: each channel of each image, and
    random groups of --dim channels, folds by position, every other one; and the same of `gaussian_like` noise. channels.csv,
    images.csv, densities.png.
    """
    shown = _shown(found, args)
    channel_rows: list[dict[str, Any]] = []
    image_rows: list[dict[str, Any]] = []
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
        for d in dict.fromkeys((1, min(args.dim, x.shape[1]))):
            if x.shape[2] // 2 < d + 2:
                notes.append(f'{layer}: {x.shape[2]} positions are too few for fits in {d} dimensions; give a smaller --dim.')
                continue
            for control, values in enumerate((x, noise)):
                images = _images(found, layer, values, d, args.groups, control)
                image_rows += images
                lines.append([f'{layer}: {"control" if control else "images"} (d = {d})', *_summary(images)])
    write_csv(channel_rows, args.output / 'channels.csv')
    write_csv(image_rows, args.output / 'images.csv')
    _draw(found, args, shown)
    header = ['', 'fitted', 'no max.', 'sets won', 'images won', 'gain', '5 %', '95 %', 'shape', 'shape < 1']
    return [*table(header, lines), *notes, *_LEGEND]


_LEGEND = [
    'fitted: sets of samples that are not degenerate. no max.: of these, not converged in one of the halves, as a rule',
    'because the likelihood grows up to a bound of the shape; they count. sets won: where the generalized Gaussian has the',
    'higher held-out log-likelihood. gain: nats a sample; of an image the median over its sets; median, 5 and 95 % over images',
    '(channels). images won: images (channels) whose gain is positive. shape: median of beta; 1 is Gaussian, less is',
    'long-tailed. control: Gaussian noise with the covariances over positions and channels of each image, in its place: what',
    'these figures are where the law is Gaussian.',
]


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    """Of channels.csv's rows, or of images.csv's."""
    sets, fitted = sum(row['sets'] for row in rows), sum(row['fitted'] for row in rows)
    gains = torch.tensor([row['gain'] for row in rows], dtype=torch.float64)
    shapes = torch.tensor([row['shape'] for row in rows], dtype=torch.float64)
    gains, shapes = gains[~gains.isnan()], shapes[~shapes.isnan()]
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
    """Three digits; beside its ellipsoid, a law at the bound of the shape has a density of e^-1e30: no figure to read."""
    return f'{gain:+.3g}' if abs(gain) < 1000 else '<-1000' if gain < 0 else '>+1000'


def _channels(layer: str, x: Tensor) -> list[dict[str, Any]]:
    """A row a channel: x (M, C, N)."""
    if len(x) > 1:
        half = len(x) // 2
        a, b = (part.movedim(1, 0).flatten(1).unsqueeze(-1) for part in (x[0::2][:half], x[1::2][:half]))
    else:
        half = x.shape[2] // 2
        a, b = (part[0].unsqueeze(-1) for part in (x[..., 0::2][..., :half], x[..., 1::2][..., :half]))
    result = compare(a, b, f'{layer}, channels')
    flat = x.movedim(1, 0).flatten(1).double()
    mean, std = flat.mean(1), flat.std(1, correction=0)
    kurtosis = ((flat - mean[:, None]) / std[:, None]).pow(4).mean(1) - 3
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


def _images(found: Activations, layer: str, x: Tensor, dim: int, groups: int, control: int) -> list[dict[str, Any]]:
    """A row an image: x (M, C, N); every channel by itself, or the same random groups of `dim` channels in every image."""
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


def _shown(found: Activations, args: argparse.Namespace) -> dict[str, list[int]]:
    """Layer -> channels to draw. Raises ValueError where --channels has others than the layer."""
    shown: dict[str, list[int]] = {}
    for layer, x in found.layers.items():
        count = x.shape[1]
        shown[layer] = args.channels or [i * count // min(8, count) for i in range(min(8, count))]
        wrong = [c for c in shown[layer] if not 0 <= c < count]
        if wrong:
            raise ValueError(f'--channels must lie in 0 to {count - 1} for {layer}; got {wrong[0]}.')
    return shown


def _draw(found: Activations, args: argparse.Namespace, shown: dict[str, list[int]]) -> None:
    """densities.png: a row a layer, a histogram a channel with both fitted laws, logarithmic so that tails are seen."""
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(max(7, 3 * columns), 2.8 * len(shown) + 0.5), layout='constrained')
    figure.suptitle(f'{args.model}: activations (histogram), Gaussian (dashed), generalized Gaussian (solid)', fontsize=10)
    grid = figure.subplots(len(shown), columns, squeeze=False)
    for axes_row, (layer, channels) in zip(grid, shown.items(), strict=True):
        for axes in axes_row:
            axes.set_axis_off()
        for axes, c in zip(axes_row, channels, strict=False):
            values = found.layers[layer][:, c].flatten()
            axes.set_axis_on()
            axes.hist(values.numpy(), bins=100, density=True, color='0.75', log=True)
            low, high = axes.get_ylim()
            title = f'{layer}\nchannel {c}'
            if bool(can_fit(values.view(1, -1, 1)).all()):
                grid_points = torch.linspace(float(values.min()), float(values.max()), 400, dtype=torch.float64)
                for shape, style in ((1.0, 'C0--'), (None, 'C3-')):
                    law = _law(values, shape)
                    axes.plot(grid_points, law.log_prob(grid_points.unsqueeze(-1)).exp(), style, linewidth=1.2)
                title += f': shape {float(law.shape):.2f}'
            axes.set_ylim(low, high)
            axes.set_title(title, fontsize=7)
            axes.tick_params(labelsize=6)
    save_figure(figure, args.output / 'densities.png')


def _law(values: Tensor, shape: float | None) -> MultivariateGeneralizedGaussian:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # drawn as far as it got
        return fit_mggd(values.double().unsqueeze(-1), shape)[0]
