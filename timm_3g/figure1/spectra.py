"""Eigenvalues of the covariance of the features, before and after what the head does to it."""

import sys
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import scipy.stats
import torch
from torch import Tensor
from tqdm import tqdm

from timm_3g.mggd import regularized_covariance
from timm_3g.ops import covariance
from timm_3g.utils.options import OptionError
from timm_3g.utils.table import aligned

from .activations import Activations
from .finding import Finding, Row
from .options import Figure1Options

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES_AT_A_TIME = 8


def reweighted(found: Activations) -> Tensor:
    """(M, d, N): the features times the product of the re-weighting maps.

    >>> x, maps = torch.full((1, 2, 3), 4.0), torch.full((1, 2, 3), 0.5)
    >>> reweighted(Activations([], {}, x, maps, x)).unique()
    tensor([1.])
    """
    return found.reduced * found.maps.prod(1, keepdim=True) if found.maps.shape[1] else found.reduced


def require_estimator(found: Activations, options: Figure1Options) -> None:
    """Raise ValueError if the exact estimator does not exist.

    >>> x = torch.zeros(1, 4, 4)
    >>> require_estimator(Activations([], {}, x, x, x), Figure1Options('any', [], lam=1.0))
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: lam must be above 1 with no more positions (4) than channels (4); got 1.
    """
    dim, num = found.reduced.shape[1:]
    if options.lam <= 1 and num <= dim:
        raise OptionError('lam', f'must be above 1 with no more positions ({num}) than channels ({dim}); got {options.lam:g}.')


@lru_cache(maxsize=1)  # two parts need it, and nothing else takes so long
def exact_estimator(found: Activations, beta: float, lam: float) -> Tensor:
    """The exact estimator of the centred features: (M, d, d), float64. See `regularized_covariance`.

    >>> x = torch.randn(2, 3, 20)
    >>> exact_estimator(Activations([], {}, x, x[:, :0], x), beta=0.5, lam=1.1).shape
    torch.Size([2, 3, 3])
    """
    with tqdm(total=len(found.files), desc='exact estimator', unit='image', leave=False, file=sys.stderr, delay=1) as bar:
        parts = []
        for part in found.reduced.split(_IMAGES_AT_A_TIME):
            parts.append(regularized_covariance(part.double().mT, beta, lam))
            bar.update(len(part))
    return torch.cat(parts)


def measure_spectra(found: Activations, options: Figure1Options) -> Finding:
    """Eigenvalues over their sum, mean and standard deviation over images.

    Images whose matrix is zero are left out. The effective rank is exp of the entropy of the eigenvalues over their sum.
    """
    values = torch.linalg.eigvalsh(covariance(found.reduced.double())).clamp(min=0)
    estimator = exact_estimator(found, options.beta, options.lam)
    spectra = {
        'covariance': values,
        'its exact root': values.sqrt(),
        f'exact estimator, beta {options.beta:g}, lambda {options.lam:g}': torch.linalg.eigvalsh(estimator),
    }
    if found.maps.shape[1]:
        spectra['covariance, re-weighted'] = torch.linalg.eigvalsh(covariance(reweighted(found).double()))
    if found.spectrum.shape[1]:
        spectra["the model's own matrix"] = found.spectrum
    rows: list[Row] = []
    lines = []
    for name, values in spectra.items():
        shares = _shares(values)
        for i, column in enumerate(shares.T, start=1):
            rows.append({'matrix': name, 'index': i, 'mean': float(column.mean()), 'std': float(column.std(correction=0))})
        rank = torch.from_numpy(scipy.stats.entropy(shares.numpy(), axis=1)).exp().mean()
        first = [f'{100 * float(shares[:, :k].sum(-1).mean()):.1f} %' for k in (1, 10)]
        lines.append([name, *first, f'{float(rank):.1f} of {shares.shape[1]}', str(len(shares))])
    return Finding({'spectra': rows}, aligned([['', 'largest', 'ten largest', 'effective rank', 'images'], *lines]))


def _shares(values: Tensor) -> Tensor:
    """Eigenvalues (M, k), ascending, to their shares of the sum, descending, of the images whose sum is positive."""
    values = values.clamp(min=0).flip(-1)
    positive = values[values.sum(-1) > 0]
    return positive / positive.sum(-1, keepdim=True)


def draw_spectra(found: Activations, finding: Finding, options: Figure1Options) -> 'Figure':
    """Mean shares against their index, one line per matrix."""
    from matplotlib.figure import Figure  # an extra

    figure = Figure(figsize=(7, 4.5), layout='constrained')
    axes = figure.subplots()
    for name, rows in groupby(finding.tables['spectra'], key=lambda row: row['matrix']):
        means = [max(row['mean'], 1e-12) for row in rows]
        axes.plot(range(1, len(means) + 1), means, label=name)
    axes.set(yscale='log', ylim=(1e-8, 1), xlabel='eigenvalue', ylabel='share of the sum, mean over images')
    axes.set_title(options.name, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
