"""Fitting the generalized Gaussian to many images at once, against one after the other and against the plain fixed point."""

import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from timm_3g.mggd import FitRecord, MultivariateGeneralizedGaussian, fit_mggd

from ..bench import Bench
from ..case import Case
from ..plot import draw_section

_SHAPE = 0.5  # of the samples: the paper's Laplace


def measure(bench: Bench) -> list[str]:
    """Time the fits with known and unknown shape, and report their steps and how they ended."""
    options = bench.options
    count, dim, num = bench.fit_images, options.fit_dim, options.size**2
    x = _samples(count, num, dim).to(bench.device)
    for name, shape in (('known', _SHAPE), ('unknown', None)):
        case = Case.of(images=count, dim=dim, positions=num, shape=name)
        with bench.case('fit', case):
            forms: dict[str, Callable[[], object]] = {
                'one by one': partial(_one_by_one, x, shape),
                'ours': partial(_quiet, x, shape),
            }
            if shape is not None:
                forms = {'plain fixed point, one by one': lambda: [plain_fixed_point(image, _SHAPE) for image in x], **forms}
            bench.time('fit', case, 'fit', forms, speed_up_over=[form for form in forms if form != 'ours'])
            distribution, record = _quiet(x, shape)
            steps = record.steps.double()
            bench.report.add('fit', case, 'ours', 'fit', 'steps, median', float(steps.median()))
            bench.report.add('fit', case, 'ours', 'fit', 'steps, most', float(steps.max()))
            bench.report.add('fit', case, 'ours', 'fit', 'converged', float(record.converged.double().mean()))
            bench.report.add('fit', case, 'ours', 'fit', 'shape, median', float(distribution.shape.median()))
    draw_section(bench.report, 'fit', 'fit_mggd')
    return ['All to a residual of 1e-8 in float64, float32 samples. Fits that have no maximum end at a bound of the shape.']


def _samples(count: int, num: int, dim: int) -> Tensor:
    eye = torch.eye(dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MultivariateGeneralizedGaussian(torch.zeros(dim), eye, _SHAPE).sample(torch.Size([count, num]))


def _quiet(x: Tensor, shape: float | None) -> tuple[MultivariateGeneralizedGaussian, FitRecord]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)  # the share of converged fits is a row of its own
        return fit_mggd(x, shape)


def _one_by_one(x: Tensor, shape: float | None) -> None:
    for image in x:
        _quiet(image, shape)


def plain_fixed_point(x: Tensor, shape: float, tol: float = 1e-8, max_steps: int = 500) -> Tensor:
    """The scatter (d, d), trace d, of one set of samples (N, d), as it is written in Pascal et al. (2013): for comparison."""
    x = x.double() - x.double().mean(0)
    dim = x.shape[1]
    scatter = torch.eye(dim, dtype=x.dtype, device=x.device)
    for _ in range(max_steps):
        u = (x * torch.linalg.solve(scatter, x.mT).mT).sum(1)
        weight = dim * u.pow(shape - 1) / u.pow(shape).sum()
        new = (x * weight.unsqueeze(1)).mT @ x
        new = new * (dim / new.trace())
        change = torch.linalg.matrix_norm(new - scatter) / math.sqrt(dim)
        scatter = new
        if float(change) <= tol:
            break
    return scatter
