"""Eigenvalues of the covariance of the features, before and after what the head does to it."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from timm_3g.mggd import regularized_covariance
from timm_3g.ops import covariance

from ._figure1_activations import Activations
from ._figure1_report import save_figure, table, write_csv

_IMAGES_AT_A_TIME = 8


def reweighted(found: Activations) -> Tensor:
    """(M, d, N): the features times the product of the learned weights."""
    return found.reduced * found.maps.prod(1, keepdim=True) if found.maps.shape[1] else found.reduced


def estimate(reduced: Tensor, args: argparse.Namespace) -> Tensor:
    """The exact estimator of features (M, d, N), centred: (M, d, d), float64."""
    dim, num = reduced.shape[1:]
    if args.lam <= 1 and num <= dim:
        raise ValueError(
            f'--lam must be above 1 where there are no more positions ({num}) than channels ({dim}); got {args.lam:g}.'
        )
    parts = [regularized_covariance(part.double().mT, args.beta, args.lam) for part in reduced.split(_IMAGES_AT_A_TIME)]
    return torch.cat(parts)


def measure_spectra(found: Activations, args: argparse.Namespace) -> list[str]:
    """Eigenvalues over their sum, mean over images: covariance, its root, the model's own root, the exact estimator.

    spectra.csv, spectra.png. Effective rank: exp of the entropy of the eigenvalues over their sum.
    """
    x, x_hat = found.reduced.double(), reweighted(found).double()
    forms: dict[str, Callable[[], Tensor]] = {
        'covariance': lambda: torch.linalg.eigvalsh(covariance(x)),
        'its exact root': lambda: torch.linalg.eigvalsh(covariance(x)).clamp(min=0).sqrt(),
        f'exact estimator, beta {args.beta:g}, lambda {args.lam:g}': lambda: torch.linalg.eigvalsh(
            estimate(found.reduced, args)
        ),
    }
    if found.maps.shape[1]:
        forms['covariance, re-weighted'] = lambda: torch.linalg.eigvalsh(covariance(x_hat))
    if found.spectrum.shape[1]:
        forms["the model's own matrix"] = lambda: found.spectrum
    spectra: dict[str, Tensor] = {}
    for name, form in forms.items():
        values = form().clamp(min=0).flip(-1)
        spectra[name] = values / values.sum(-1, keepdim=True).clamp(min=1e-300)
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
        lines.append([name, *first, f'{float(rank.mean()):.1f} of {values.shape[1]}'])
    return table(['', 'largest', 'ten largest', 'effective rank'], lines)


def _draw(spectra: dict[str, Tensor], args: argparse.Namespace) -> None:
    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for name, values in spectra.items():
        axes.plot(range(1, values.shape[1] + 1), values.mean(0).clamp(min=1e-12), label=name)
    axes.set(yscale='log', ylim=(1e-8, 1), xlabel='eigenvalue', ylabel='share of the sum, mean over images', title=args.model)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save_figure(figure, args.output / 'spectra.png')
