"""From the exact estimator to the learned weights, link by link: how much of the one is left in the other?"""

import argparse
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from timm_3g.mggd import estimator_weights, squared_distances

from ._figure1_activations import Activations
from ._figure1_report import misfit, spearman, table, write_csv
from ._figure1_spectra import estimate
from ._whole import save_figure

Links = dict[str, tuple[Tensor | None, Tensor | None]]  # name -> misfit (M,), rank correlation (M,)


def measure_chain(found: Activations, args: argparse.Namespace) -> list[str]:
    """Exact estimator, its one-step approximation, the learned weights: misfit and rank correlation, image by image.

    With Sigma the exact estimator and A = Sigma / s, s its trace or its largest eigenvalue: Sigma^(-1/2) against one
    Newton-Schulz step (3I - A) / 2 (the paper's eqs. (10), (11)); Y = X^T Sigma^-1 X (eq. (9)) against Z^T Z / 4 with
    Z = (3I - A) X; the weights beta u^(beta - 1), u the diagonal of either; and the square of the product of the learned w,
    which is what multiplies x x^T. chain.csv, chain.png.
    """
    links = chain_of(found, args)
    rows: list[dict[str, Any]] = []
    lines = []
    for name, (error, rank) in links.items():
        for m, file in enumerate(found.files):
            figures = {key: float(t[m]) if t is not None else '' for key, t in (('misfit', error), ('rank_correlation', rank))}
            rows.append({'image': str(file), 'link': name, **figures})
        lines.append([name, _median(error), *_spread(rank)])
    write_csv(rows, args.output / 'chain.csv')
    _draw(links, args)
    header = ['', 'misfit', 'rank correlation', '5 %', '95 %']
    notes = [
        'misfit: min over c of |c a - b| / |b|, median over images: 0 is proportional, 1 orthogonal.',
        'Rank correlation: Spearman, median over images, 5 and 95 % of them.',
    ]
    if found.maps.shape[1]:
        product = found.maps.double().prod(1).square()
        variation = (product.std(1, correction=0) / product.mean(1).clamp(min=1e-300)).median()
        notes.append(
            f'Learned weights vary by {100 * float(variation):.1f} % of their mean within an image (median over images).'
        )
    else:
        notes.append('No learned weights: the pooling has no re-weighting.')
    return [*table(header, lines), *notes]


def chain_of(found: Activations, args: argparse.Namespace) -> Links:
    """Every link with its two figures, where they make sense."""
    x = found.reduced.double()
    x = x - x.mean(-1, keepdim=True)
    scatter = estimate(found, args.beta, args.lam)
    values, vectors = torch.linalg.eigh(scatter)
    inverse_root = (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    gram = (inverse_root @ x).mT @ (inverse_root @ x)
    u = squared_distances(x.mT, scatter)
    exact = estimator_weights(u, x.shape[1], args.beta, False)
    links: Links = {}
    approximate: dict[str, Tensor] = {}
    for name, scale in (('trace', values.sum(-1)), ('largest eigenvalue', values[:, -1])):
        step = 3 * eye - scatter / scale[:, None, None]
        z = step @ x
        links[f'(3I - A)/2 for Sigma^(-1/2), A by its {name}'] = (misfit(step, inverse_root), None)
        y = z.mT @ z / 4
        diagonal = y.diagonal(dim1=1, dim2=2)
        links[f'Z^T Z / 4 for Y, A by its {name}'] = (misfit(y, gram), spearman(diagonal, u))
        approximate[name] = estimator_weights(diagonal, x.shape[1], args.beta, False)
        links[f'weights of Z^T Z / 4 for the exact ones, A by its {name}'] = (
            misfit(approximate[name], exact),
            spearman(approximate[name], exact),
        )
    norm = estimator_weights(x.square().sum(1), x.shape[1], args.beta, False)
    links['weights of the plain norm |x|^2 for the exact ones'] = (misfit(norm, exact), spearman(norm, exact))
    if found.maps.shape[1]:
        learned = found.maps.double().prod(1).square()
        for name, weights in (
            ('exact weights', exact),
            ('weights of Z^T Z / 4, A by its trace', approximate['trace']),
            ('weights of the plain norm |x|^2', norm),
        ):
            links[f'learned weights for the {name}'] = (misfit(learned, weights), spearman(learned, weights))
        for t in range(found.maps.shape[1]):
            w = found.maps[:, t].double()
            links[f'learned w of block {t + 1} for the exact weights'] = (misfit(w, exact), spearman(w, exact))
    return links


def _median(figures: Tensor | None) -> str:
    return '' if figures is None else f'{float(figures.nanmedian()):.3f}'


def _spread(figures: Tensor | None) -> list[str]:
    if figures is None or bool(figures.isnan().all()):
        return ['', '', '']
    return [f'{float(figures.nanquantile(q)):+.2f}' for q in (0.5, 0.05, 0.95)]


def _draw(links: Links, args: argparse.Namespace) -> None:
    """Boxes over images: misfit to the left, rank correlation to the right."""
    figure = Figure(figsize=(11, 1.5 + 0.35 * len(links)), layout='constrained')
    figure.suptitle(f'{args.model}: each link of the chain, boxes over images', fontsize=10)
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, which, label, limits in ((left, 0, 'misfit', (0, 1.05)), (right, 1, 'rank correlation', (-1.05, 1.05))):
        for i, pair in enumerate(links.values()):
            figures = pair[which]
            if figures is not None and not bool(figures.isnan().all()):
                axes.boxplot(figures[~figures.isnan()].numpy(), positions=[i], orientation='horizontal', widths=0.6)
        axes.set(xlabel=label, xlim=limits)
        axes.grid(alpha=0.3)
    right.axvline(0, color='0.5', linewidth=0.8)
    left.set_yticks(range(len(links)), list(links), fontsize=8)
    left.invert_yaxis()
    save_figure(figure, args.output / 'chain.png')
