"""Eigenvalues of the covariance of the features, before and after what the head does to it."""

import argparse
import sys
from functools import lru_cache
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from timm_3g.mggd import regularized_covariance
from timm_3g.ops import covariance
from timm_3g.utils.files import save_figure

from .activations import Activations
from .report import table, write_csv

_IMAGES_AT_A_TIME = 8


def reweighted(found: Activations) -> Tensor:
    """(M, d, N): the features times the product of the learned weights."""
    return found.reduced * found.maps.prod(1, keepdim=True) if found.maps.shape[1] else found.reduced


@lru_cache(maxsize=1)  # two parts want it, and nothing else takes so long
def estimate(found: Activations, beta: float, lam: float) -> Tensor:
    """The exact estimator of the features, centred: (M, d, d), float64."""
    dim, num = found.reduced.shape[1:]
    if lam <= 1 and num <= dim:
        raise ValueError(f'--lam must be above 1 where there are no more positions ({num}) than channels ({dim}); got {lam:g}.')
    with tqdm(total=len(found.files), desc='exact estimator', unit='image', leave=False, file=sys.stderr, delay=1) as bar:
        parts = []
        for part in found.reduced.split(_IMAGES_AT_A_TIME):
            parts.append(regularized_covariance(part.double().mT, beta, lam))
            bar.update(len(part))
    return torch.cat(parts)


def measure_spectra(found: Activations, args: argparse.Namespace) -> list[str]:
    """Eigenvalues over their sum, mean over images: covariance, its root, the model's own root, the exact estimator.

    Images whose matrix is zero have none. Effective rank: exp of the entropy of the eigenvalues over their sum. spectra.csv,
    spectra.png.
    """
    values = torch.linalg.eigvalsh(covariance(found.reduced.double())).clamp(min=0)
    spectra = {
        'covariance': values,
        'its exact root': values.sqrt(),
        f'exact estimator, beta {args.beta:g}, lambda {args.lam:g}': torch.linalg.eigvalsh(
            estimate(found, args.beta, args.lam)
        ),
    }
    if found.maps.shape[1]:
        spectra['covariance, re-weighted'] = torch.linalg.eigvalsh(covariance(reweighted(found).double()))
    if found.spectrum.shape[1]:
        spectra["the model's own matrix"] = found.spectrum
    for name, values in spectra.items():
        values = values.clamp(min=0).flip(-1)
        some = values[values.sum(-1) > 0]  # a map of zeros has no shares
        spectra[name] = some / some.sum(-1, keepdim=True)
    rows: list[dict[str, Any]] = [
        {'matrix': name, 'index': i + 1, 'mean': float(column.mean()), 'std': float(column.std(correction=0))}
        for name, values in spectra.items()
        for i, column in enumerate(values.T)
    ]
    write_csv(rows, args.output / 'spectra.csv')
    _draw(spectra, args)
    lines = []
    for name, values in spectra.items():
        rank = torch.special.entr(values).sum(-1).exp()
        first = [f'{100 * float(values[:, :k].sum(-1).mean()):.1f} %' for k in (1, 10)]
        lines.append([name, *first, f'{float(rank.mean()):.1f} of {values.shape[1]}', str(len(values))])
    return table(['', 'largest', 'ten largest', 'effective rank', 'images'], lines)


def _draw(spectra: dict[str, Tensor], args: argparse.Namespace) -> None:
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for name, values in spectra.items():
        axes.plot(range(1, values.shape[1] + 1), values.mean(0).clamp(min=1e-12), label=name)
    axes.set(yscale='log', ylim=(1e-8, 1), xlabel='eigenvalue', ylabel='share of the sum, mean over images', title=args.model)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, args.output / 'spectra.png')
