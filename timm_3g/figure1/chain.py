"""From the exact estimator to the learned weights, link by link: how much of the one is left in the other?"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from timm_3g.mggd import estimator_weights, squared_distances
from timm_3g.utils.table import aligned

from .activations import Activations
from .agreement import misfit, rank_correlation
from .finding import Finding, Row
from .options import Figure1Options
from .spectra import exact_estimator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What varies by less within an image is constant but for rounding or saturation: its ranks mean nothing.
FLAT = 1e-3
_COLUMNS = ('misfit', 'rank_correlation', 'variation')


class Link(NamedTuple):
    """How well a stands for b, image by image. Tensors are (M,), float64.

    Attributes:
        misfit: see `agreement.misfit`.
        rank: rank correlation, NaN for a constant a. None for matrices without a diagonal to compare.
        variation: standard deviation of a over its mean. None for matrices.
    """

    misfit: Tensor
    rank: Tensor | None
    variation: Tensor | None


def measure_chain(found: Activations, options: Figure1Options) -> Finding:
    """Exact estimator, its one-step approximation, the learned weights: misfit and rank correlation, image by image.

    X are the centred features, Sigma is the exact estimator. Its weights are beta u^(beta - 1) of the distances u, the diagonal
    of Y = X^T Sigma^-1 X (the paper's eq. (9)). One step: (3I - A) / 2 of Newton-Schulz for Sigma^(-1/2), A = Sigma over its
    trace or its largest eigenvalue (eqs. (10), (11)). Z^T Z / 4 with Z = (3I - A) X approximates Y. Learned: the square of the
    product of the maps w, or of the map of one block, which is the factor of x x^T.
    """
    links = chain_of(found, options)
    rows: list[Row] = []
    lines = []
    for name, link in links.items():
        for m, file in enumerate(found.files):
            figures = {key: float(t[m]) if t is not None else '' for key, t in zip(_COLUMNS, link, strict=True)}
            rows.append({'image': str(file), 'link': name, **figures})
        lines.append([name, _median(link.misfit), *_spread(link.rank), _median(link.variation)])
    header = ['', 'misfit', 'rank', '5 %', '95 %', 'images', 'variation']
    return Finding({'chain': rows}, [*aligned([header, *lines]), *_notes(found, options)])


def _notes(found: Activations, options: Figure1Options) -> list[str]:
    direction = 'fall' if options.beta < 1 else 'rise'
    return [
        'a for b: how well a stands for b. misfit: min over c of |c a - b| / |b|, median over images. 0 is proportional, 1 is',
        'orthogonal. variation: standard deviation of a over its mean within an image, median. rank: Spearman, median, 5 and',
        f'95 % over the images whose a varies by more than {FLAT:g}.',
        'exact weights are all equal, since beta is 1.'
        if options.beta == 1
        else f'exact weights {direction} with the distance from the mean, since beta is {options.beta:g}.',
        *([] if found.maps.shape[1] else ['No learned weights: the pooling has no re-weighting.']),
    ]


def chain_of(found: Activations, options: Figure1Options) -> dict[str, Link]:
    """Every link by its name."""
    x = found.reduced.double()
    x = x - x.mean(-1, keepdim=True)
    scatter = exact_estimator(found, options.beta, options.lam)
    values, vectors = torch.linalg.eigh(scatter)
    inverse_root = (vectors * values.rsqrt().unsqueeze(-2)) @ vectors.mT
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    gram = (inverse_root @ x).mT @ (inverse_root @ x)
    u = squared_distances(x.mT, scatter)
    exact = estimator_weights(u, x.shape[1], options.beta, False)
    links: dict[str, Link] = {}
    stepped: dict[str, Tensor] = {}
    for name, scale in (('trace', values.sum(-1)), ('largest eigenvalue', values[:, -1])):
        step = 3 * eye - scatter / scale[:, None, None]
        z = step @ x
        links[f'one step by {name} for Sigma^(-1/2)'] = Link(misfit(step, inverse_root), None, None)
        y = z.mT @ z / 4
        diagonal = y.diagonal(dim1=1, dim2=2)
        links[f'one step by {name} for Y'] = Link(misfit(y, gram), _rank(diagonal, u), None)
        stepped[name] = estimator_weights(diagonal, x.shape[1], options.beta, False)
        links[f'its weights, by {name}, for the exact'] = _weights(stepped[name], exact)
    norm = estimator_weights(x.square().sum(1), x.shape[1], options.beta, False)
    links['weights of the plain norm for the exact'] = _weights(norm, exact)
    links['equal weights for the exact'] = _weights(torch.ones_like(exact), exact)
    maps = found.maps.double().square()
    if maps.shape[1]:
        learned = maps.prod(1)
        links['learned weights for the exact'] = _weights(learned, exact)
        links['learned weights for those of one step by trace'] = _weights(learned, stepped['trace'])
        links['learned weights for those of the plain norm'] = _weights(learned, norm)
        for t in range(maps.shape[1]):
            links[f'learned weights of block {t + 1} for the exact'] = _weights(maps[:, t], exact)
    return links


def _weights(a: Tensor, b: Tensor) -> Link:
    variation = a.std(1, correction=0) / a.mean(1)
    return Link(misfit(a, b), _rank(a, b), variation)


def _rank(a: Tensor, b: Tensor) -> Tensor:
    flat = a.std(1, correction=0) <= FLAT * a.mean(1)
    return torch.where(flat, torch.nan, rank_correlation(a, b))


def _median(figures: Tensor | None) -> str:
    return '' if figures is None else f'{float(figures.nanmedian()):.3f}'


def _spread(figures: Tensor | None) -> list[str]:
    if figures is None:
        return [''] * 4
    count = int((~figures.isnan()).sum())
    return [*([f'{float(figures.nanquantile(q)):+.2f}' for q in (0.5, 0.05, 0.95)] if count else [''] * 3), str(count)]


def draw_chain(found: Activations, finding: Finding, options: Figure1Options) -> 'Figure':
    """Boxes over images: misfit to the left, rank correlation to the right."""
    from matplotlib.figure import Figure  # an extra

    rows = finding.tables['chain']
    names = list(dict.fromkeys(row['link'] for row in rows))
    figure = Figure(figsize=(11, 1.5 + 0.35 * len(names)), layout='constrained')
    figure.suptitle(f'{options.name}: each link of the chain, boxes over images', fontsize=10)
    left, right = figure.subplots(1, 2, sharey=True)
    panels = ((left, 'misfit', 'misfit', (0, 1.05)), (right, 'rank_correlation', 'rank correlation', (-1.05, 1.05)))
    for axes, column, label, limits in panels:
        for i, name in enumerate(names):
            figures = [row[column] for row in rows if row['link'] == name and row[column] != '' and row[column] == row[column]]
            if figures:
                axes.boxplot(figures, positions=[i], orientation='horizontal', widths=0.6)
        axes.set(xlabel=label, xlim=limits)
        axes.grid(alpha=0.3)
    right.axvline(0, color='0.5', linewidth=0.8)
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.invert_yaxis()
    return figure
