"""Which distribution predicts the held-out half of samples better, for many sets at once, and noise as a control."""

import sys
import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from timm_3g.mggd import can_fit, fit_mggd, subtract

# Numbers in the sets of samples that are fitted together: 8 MB in float64 for each of a dozen copies.
_NUMBERS_AT_A_TIME = 1_000_000


class Comparison(NamedTuple):
    """Two-fold held-out comparison of S sets of samples. All tensors are (S,).

    Attributes:
        gaussian, generalized: mean held-out log-likelihood in nats per sample, float64. NaN where not fitted.
        shape: geometric mean of the two folds' shapes, float64. NaN where not fitted.
        fitted: bool, whether neither fold is degenerate.
        converged: bool, whether both fits converged. Otherwise the likelihood usually has no maximum in the shape.
    """

    gaussian: Tensor
    generalized: Tensor
    shape: Tensor
    fitted: Tensor
    converged: Tensor


def compare(a: Tensor, b: Tensor, label: str = 'comparison') -> Comparison:
    """Fit a Gaussian and a generalized Gaussian to a, compute the log-likelihood of b, and the other way round.

    A set with a degenerate fold is left out: `fitted` is False, its figures are NaN. A fit whose likelihood grows up to a bound
    of the shape is kept with that shape. Without such fits, the failures of the generalized Gaussian would not count.

    Args:
        a, b: two folds (S, n, d) of each of S sets of samples.
        label: of the progress bar.

    >>> _ = torch.manual_seed(0)
    >>> laplace = torch.distributions.Laplace(0.0, 1.0).sample((2, 1, 2000, 1))
    >>> found = compare(*laplace)
    >>> bool(found.generalized > found.gaussian), round(float(found.shape), 1)  # 0.5 is Laplace
    (True, 0.5)
    """
    parts = []
    size = max(1, _NUMBERS_AT_A_TIME // max(1, a[0].numel()))
    with tqdm(total=len(a), desc=label, unit='set', leave=False, file=sys.stderr, delay=1) as bar:
        for folds in zip(a.split(size), b.split(size), strict=True):
            parts.append(_compare(*folds))
            bar.update(len(folds[0]))
    return Comparison(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _compare(a: Tensor, b: Tensor) -> Comparison:
    fitted = can_fit(a) & can_fit(b) if a.numel() and b.numel() else torch.zeros(len(a), dtype=torch.bool)
    nan = torch.full((len(a),), torch.nan, dtype=torch.float64)
    out = Comparison(nan, nan.clone(), nan.clone(), fitted, torch.zeros_like(fitted))
    if bool(fitted.any()):
        folds = a[fitted].double(), b[fitted].double()
        gaussian = generalized = log_shape = torch.zeros((), dtype=torch.float64)
        converged = torch.ones((), dtype=torch.bool)
        for train, test in (folds, folds[::-1]):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', RuntimeWarning)  # see above
                long_tailed, record = fit_mggd(train)
            normal, _ = fit_mggd(train, 1.0)
            gaussian, generalized = (
                total + 0.5 * of.log_prob(test.movedim(1, 0)).mean(0)
                for total, of in ((gaussian, normal), (generalized, long_tailed))
            )
            log_shape = log_shape + 0.5 * long_tailed.shape.log()
            converged = converged & record.converged
        out.converged[fitted] = converged
        out.gaussian[fitted], out.generalized[fitted], out.shape[fitted] = gaussian, generalized, log_shape.exp()
    return out


def gaussian_like(x: Tensor) -> Tensor:
    """Gaussian noise with, image by image, the covariances of x over positions and channels. The same noise for the same x.

    White noise, the same for all channels of an image, is convolved with x minus its mean, circularly over the N positions:
    E[y_n y_n+k^T] is the mean over m of x_m x_m+k^T. Neighbours in a map are similar. A fit to every other position is
    therefore a good fit to the others, whatever their distribution. This noise shows that effect for a Gaussian.

    Args:
        x: (M, C, N).

    Returns:
        (M, C, N), of the dtype of x.

    >>> x = torch.arange(24.0).view(1, 2, 12)
    >>> gaussian_like(x).shape, torch.equal(gaussian_like(x), gaussian_like(x))
    (torch.Size([1, 2, 12]), True)
    """
    count, _, num = x.shape
    noise = torch.randn(count, 1, num, generator=torch.Generator().manual_seed(0))
    centred = subtract(x.mT, x.mT.mean(-2, keepdim=True)).mT
    spectrum = torch.fft.rfft(centred) * torch.fft.rfft(noise)
    return torch.fft.irfft(spectrum, num) / num**0.5
