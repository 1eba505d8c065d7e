"""Figure 1 of the paper, made measurable: is a generalized Gaussian a better law of activations than a Gaussian?"""

import argparse
import sys
import warnings
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from timm_3g.mggd import MultivariateGeneralizedGaussian, can_fit, fit_mggd

from ._figure1_activations import Activations
from ._figure1_report import save_figure, table, write_csv

# Sets of samples are fitted together up to so many numbers, 32 MB in float64 for each of a handful of copies.
_NUMBERS_AT_A_TIME = 4_000_000

_CONTROL = 'control'


class Comparison(NamedTuple):
    """Two-fold held-out comparison of sets of samples, all (S,): nats a sample, the shape fitted, and whether it could be."""

    gaussian: Tensor
    generalized: Tensor
    shape: Tensor
    fitted: Tensor


def compare(a: Tensor, b: Tensor) -> Comparison:
    """Fit both laws to a and weigh them on b, and the other way round: two folds (S, n, d) of each of S sets.

    A set is left out (fitted is False, its figures NaN) if a fold is degenerate, or a fit does not converge.
    """
    usable = can_fit(a) & can_fit(b)
    out = [torch.full((len(a),), torch.nan, dtype=torch.float64) for _ in range(3)]
    fitted = usable.clone()
    if bool(usable.any()):
        totals = [torch.zeros(int(usable.sum()), dtype=torch.float64) for _ in range(3)]
        converged = torch.ones(int(usable.sum()), dtype=torch.bool)
        for train, test in ((a[usable], b[usable]), (b[usable], a[usable])):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', RuntimeWarning)  # counted by the caller
                law, record = fit_mggd(train.double())
            normal, _ = fit_mggd(train.double(), 1.0)
            converged &= record.converged
            for total, of in zip(totals, (normal, law), strict=False):
                total += 0.5 * of.log_prob(test.double().movedim(1, 0)).mean(0)
            totals[2] += 0.5 * law.shape.log()
        fitted[usable] = converged
        for column, total in zip(out, totals, strict=True):
            column[usable] = total
    gaussian, generalized, log_shape = (torch.where(fitted, column, torch.nan) for column in out)
    return Comparison(gaussian, generalized, log_shape.exp(), fitted)


def measure_densities(found: Activations, args: argparse.Namespace) -> list[str]:
    """Held-out log-likelihood of activations: generalized Gaussian against Gaussian.

    Channels: all positions of all images, folds by image (by position for one image). Images: each channel of each image, and
    random groups of --dim channels, folds by position, every other one. channels.csv, images.csv, densities.png.
    """
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
        dim = min(args.dim, x.shape[1])
        for d in dict.fromkeys((1, dim)):
            if x.shape[2] // 2 < d + 2:
                notes.append(f'{layer}: {x.shape[2]} positions are too few for fits in {d} dimensions; give a smaller --dim.')
                continue
            images = _images(found, layer, x, d, args.groups)
            image_rows += images
            lines.append([f'{layer}: images (d = {d})', *_summary(images)])
    num = min(x.shape[2] for x in found.layers.values())
    noise = torch.randn(len(found.files), min(64, args.groups * args.dim), num, generator=torch.Generator().manual_seed(0))
    for d in dict.fromkeys((1, min(args.dim, noise.shape[1]))):
        if num // 2 >= d + 2:
            control = _images(found, _CONTROL, noise, d, args.groups)
            image_rows += control
            lines.append([f'{_CONTROL}: images (d = {d})', *_summary(control)])
    write_csv(channel_rows, args.output / 'channels.csv')
    write_csv(image_rows, args.output / 'images.csv')
    _draw(found, args)
    header = ['', 'fitted', 'sets won', 'won', 'gain, nats', '5 %', '95 %', 'shape', 'shape < 1']
    return [*table(header, lines), *notes, *_LEGEND]


_LEGEND = [
    'fitted: sets of samples for which both laws could be fitted. sets won: of these, where the generalized Gaussian has the',
    'higher held-out log-likelihood; won: of the channels or images, those with a positive mean gain. gain: nats a sample,',
    'median, 5 and 95 % of them. shape: median of beta; 1 is Gaussian, less is long-tailed.',
    'control: Gaussian noise of the same numbers of positions: what few samples make of a law that is Gaussian.',
]


def _summary(rows: list[dict[str, Any]]) -> list[str]:
    """Of channels.csv's rows, or of images.csv's."""
    sets, fitted = sum(row['sets'] for row in rows), sum(row['fitted'] for row in rows)
    gains = torch.tensor([row['gain'] for row in rows], dtype=torch.float64)
    shapes = torch.tensor([row['shape'] for row in rows], dtype=torch.float64)
    gains, shapes = gains[~gains.isnan()], shapes[~shapes.isnan()]
    if not len(gains):
        return [f'0 of {sets}', *['-'] * 7]
    low, middle, high = (f'{float(gains.quantile(q)):+.3f}' for q in (0.05, 0.5, 0.95))
    sets_won, tailed = sum(row['won'] for row in rows) / fitted, float((shapes < 1).double().mean())
    return [
        f'{fitted} of {sets}',
        f'{100 * sets_won:.1f} %',
        f'{100 * float((gains > 0).double().mean()):.1f} %',
        middle,
        low,
        high,
        f'{float(shapes.median()):.2f}',
        f'{100 * tailed:.0f} %',
    ]


def _channels(layer: str, x: Tensor) -> list[dict[str, Any]]:
    """A row a channel: x (M, C, N)."""
    if len(x) > 1:
        half = len(x) // 2
        a, b = (part.movedim(1, 0).flatten(1).unsqueeze(-1) for part in (x[0::2][:half], x[1::2][:half]))
    else:
        half = x.shape[2] // 2
        a, b = (part[0].unsqueeze(-1) for part in (x[..., 0::2][..., :half], x[..., 1::2][..., :half]))
    result = compare(a, b)
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
            'won': int(result.generalized[c] > result.gaussian[c]),
            'shape': float(result.shape[c]),
            'gaussian': float(result.gaussian[c]),
            'generalized': float(result.generalized[c]),
            'gain': float(result.generalized[c] - result.gaussian[c]),
        }
        for c in range(len(flat))
    ]


def _images(found: Activations, layer: str, x: Tensor, dim: int, groups: int) -> list[dict[str, Any]]:
    """A row an image: x (M, C, N); every channel by itself, or the same random groups of `dim` channels in every image."""
    generator = torch.Generator().manual_seed(0)
    channels, num = x.shape[1:]
    if dim == 1:
        index = torch.arange(channels).unsqueeze(1)
    else:
        index = torch.stack([torch.randperm(channels, generator=generator)[:dim] for _ in range(groups)])
    results = []
    with tqdm(total=len(x), desc=f'{layer}, d = {dim}', unit='image', leave=False, file=sys.stderr) as bar:
        for block in x.split(max(1, _NUMBERS_AT_A_TIME // (index.numel() * num))):
            sets = block[:, index].mT.flatten(0, 1)  # (images x sets, N, d)
            results.append(compare(sets[:, 0::2][:, : num // 2], sets[:, 1::2]))
            bar.update(len(block))
    result = Comparison(*(torch.cat(tensors).view(len(x), -1) for tensors in zip(*results, strict=True)))
    gains, shapes = result.generalized - result.gaussian, result.shape  # NaN where not fitted
    return [
        {
            'layer': layer,
            'image': str(file),
            'dim': dim,
            'sets': len(index),
            'fitted': int(result.fitted[m].sum()),
            'won': int((gains[m] > 0).sum()),
            'shape': float(shapes[m].nanmedian()),
            'gain': float(gains[m].nanmean()),
        }
        for m, file in enumerate(found.files)
    ]


def _draw(found: Activations, args: argparse.Namespace) -> None:
    """densities.png: a row a layer, a histogram a channel with both fitted laws, logarithmic so that tails are seen."""
    shown: dict[str, list[int]] = {}
    for layer, x in found.layers.items():
        count = x.shape[1]
        shown[layer] = args.channels or [i * count // min(8, count) for i in range(min(8, count))]
        wrong = [c for c in shown[layer] if not 0 <= c < count]
        if wrong:
            raise ValueError(f'--channels must lie in 0 to {count - 1} for {layer}; got {wrong[0]}.')
    columns = max(map(len, shown.values()))
    figure = Figure(figsize=(3 * columns, 2.8 * len(shown) + 0.5), layout='constrained')
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
