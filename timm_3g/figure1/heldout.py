"""Which law predicts the held-out half of some samples better, for many sets at once; and noise to compare that with."""

import sys
import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from timm_3g.mggd import can_fit, fit_mggd, subtract

# Sets of samples are fitted together up to so many numbers, 8 MB in float64 for each of a dozen copies.
_NUMBERS_AT_A_TIME = 1_000_000


class Comparison(NamedTuple):
    """Two-fold held-out comparison of sets of samples, all (S,)."""

    gaussian: Tensor  # nats a sample
    generalized: Tensor
    shape: Tensor  # geometric mean of the two folds
    fitted: Tensor  # not degenerate
    converged: Tensor  # in both folds; if not, as a rule the likelihood has no maximum in the shape


def compare(a: Tensor, b: Tensor, label: str = 'comparison') -> Comparison:
    """Fit both laws to a and weigh them on b, and the other way round: two folds (S, n, d) of each of S sets.

    A set is left out (fitted is False, its figures NaN) where a fold is degenerate, so that no law has a fit. A fit whose
    likelihood grows up to a bound of the shape stays in, with that shape: without it the generalized Gaussian would be spared
    its failures.
    """
    parts = []
    size = max(1, _NUMBERS_AT_A_TIME // a[0].numel())
    with tqdm(total=len(a), desc=label, unit='set', leave=False, file=sys.stderr, delay=1) as bar:
        for folds in zip(a.split(size), b.split(size), strict=True):
            parts.append(_compare(*folds))
            bar.update(len(folds[0]))
    return Comparison(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _compare(a: Tensor, b: Tensor) -> Comparison:
    fitted = can_fit(a) & can_fit(b)
    nan = torch.full((len(a),), torch.nan, dtype=torch.float64)
    out = Comparison(nan, nan.clone(), nan.clone(), fitted, torch.zeros_like(fitted))
    if bool(fitted.any()):
        folds = a[fitted].double(), b[fitted].double()
        gaussian = generalized = log_shape = torch.zeros((), dtype=torch.float64)
        converged = torch.ones((), dtype=torch.bool)
        for train, test in (folds, folds[::-1]):
            with warnings.catch_warnings():
                warnings.simplefilter('ignore', RuntimeWarning)  # see above
                law, record = fit_mggd(train)
            normal, _ = fit_mggd(train, 1.0)
            gaussian, generalized = (
                total + 0.5 * of.log_prob(test.movedim(1, 0)).mean(0) for total, of in ((gaussian, normal), (generalized, law))
            )
            log_shape = log_shape + 0.5 * law.shape.log()
            converged = converged & record.converged
        out.converged[fitted] = converged
        out.gaussian[fitted], out.generalized[fitted], out.shape[fitted] = gaussian, generalized, log_shape.exp()
    return out


def gaussian_like(x: Tensor) -> Tensor:
    """Gaussian noise (M, C, N) with, image by image, the covariances of x over positions and channels; the same for one x.

    White noise, one for all channels of an image, convolved with x minus its mean, around the N positions: E[y_n y_n+k^T] is
    the mean of x_m x_m+k^T over m. Neighbours in a map are alike, so that a fit to every other position is a good fit to the
    others, whatever their law; what that does to a Gaussian is seen in this noise, and not in a white one.
    """
    count, _, num = x.shape
    noise = torch.randn(count, 1, num, generator=torch.Generator().manual_seed(0))
    centred = subtract(x.mT, x.mT.mean(-2, keepdim=True)).mT
    spectrum = torch.fft.rfft(centred) * torch.fft.rfft(noise)
    return torch.fft.irfft(spectrum, num) / num**0.5
