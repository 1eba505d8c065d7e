"""How the cost of covariance, root and triangle grows with channels and positions, beside what the count of operations says."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import nnls

from ..bench import INFERENCE, TRAINING, Bench
from ..case import Case
from ..forms import create_pool, inference_of, random_features, training_of
from ..plot import Line, Panel, draw_lines

Times = dict[tuple[int, int], float]  # (d, N) -> seconds of one batch

# The size that the other one is varied at.
DIM = 256
POSITIONS = 196

# What the time is made of: the steps, the products with the features, the d x d result (written, read and mirrored), and the
# launches, whatever the size. On a GPU the launches dominate up to about a thousand channels.
TERMS: dict[str, Callable[[int, int], float]] = {
    'min(d, N)^3': lambda d, n: min(d, n) ** 3,
    'd N min(d, N)': lambda d, n: d * n * min(d, n),
    'd^2': lambda d, n: d * d,
    'constant': lambda d, n: 1,
}


def measure(bench: Bench) -> list[str]:
    """Time sizes one by one, fit the prices of TERMS, and report how far the fit is off."""
    options, batch = bench.options, bench.growth_batch_size
    sizes = dict.fromkeys([*((d, POSITIONS) for d in options.growth_dims), *((DIM, side**2) for side in options.growth_sizes)])
    times: dict[str, Times] = {TRAINING: {}, INFERENCE: {}}
    for d, n in sizes:
        case = Case.of(batch=batch, dim=d, positions=n)
        with bench.case('growth', case):
            pool = create_pool(options.pool, d, options.num_iters).to(bench.device)
            x = random_features(batch, d, n, bench.device)
            for phase, call in ((TRAINING, training_of(pool.statistic, x)), (INFERENCE, inference_of(pool.statistic, x))):
                timing = bench.time('growth', case, phase, {'ours': call})['ours']
                if timing is not None:
                    times[phase][d, n] = min(timing.seconds)  # the fit is about operations, not about other processes

    notes = [_report_fit(bench, phase, measured) for phase, measured in times.items() if len(measured) > 1]
    _draw(bench, times)
    return notes


def fit_growth(measured: Times, terms: int = len(TERMS)) -> list[float]:
    """The price in seconds of each of the first so many TERMS: non-negative least squares of the relative errors.

    >>> prices = fit_growth({(d, 196): 1e-6 + 2e-12 * min(d, 196) ** 3 for d in (8, 64, 128, 196)})
    >>> [float(f'{price:.6g}') for price in prices]
    [2e-12, 0.0, 0.0, 1e-06]
    """
    matrix = np.array([[term(*size) / t for term in [*TERMS.values()][:terms]] for size, t in measured.items()])
    scale = np.linalg.norm(matrix, axis=0)
    prices, _ = nnls(matrix / scale, np.ones(len(matrix)))
    return (prices / scale).tolist()


def predict(measured: Times, prices: Sequence[float]) -> Times:
    """Seconds at the same sizes by the prices of the first TERMS."""
    return {size: sum(price * term(*size) for price, term in zip(prices, TERMS.values(), strict=False)) for size in measured}


def worst_ratio(measured: Times, predicted: Times) -> float:
    """How many times the prediction is off, in either direction, where it is worst.

    >>> worst_ratio({(8, 4): 1.0, (16, 4): 3.0}, {(8, 4): 2.0, (16, 4): 3.0})
    2.0
    """
    ratios = [measured[size] / predicted[size] for size in measured]
    return max(*ratios, *(1.0 / ratio for ratio in ratios))


def _report_fit(bench: Bench, phase: str, measured: Times) -> str:
    """Add the rows of the fit. Returns the same in one line."""
    batch = bench.growth_batch_size
    prices = fit_growth(measured)
    predicted = predict(measured, prices)
    for (d, n), seconds in measured.items():
        case = Case.of(batch=batch, dim=d, positions=n)
        bench.report.add('growth', case, 'ours', phase, 'predicted', 1e3 * predicted[d, n], 'ms')
        bench.report.add('growth', case, 'ours', phase, 'measured over predicted', seconds / predicted[d, n], 'x')
    *per_sample, constant = prices
    case = Case.of(batch=batch, sizes='all')
    for name, price in zip('abc', per_sample, strict=True):
        bench.report.add('growth', case, 'fit', phase, name, 1e12 * price / batch, 'ps per sample')
    bench.report.add('growth', case, 'fit', phase, 'constant', 1e6 * constant, 'us')
    formula = ' + '.join(f'{1e12 * price / batch:.3g} ps {term}' for price, term in zip(per_sample, TERMS, strict=False))
    without = predict(measured, fit_growth(measured, len(per_sample)))
    return (
        f'{phase}: {1e6 * constant:.3g} us per batch + ({formula}) per sample, at worst {worst_ratio(measured, predicted):.2f} '
        f'times off; without the constant {worst_ratio(measured, without):.2f} times.'
    )


def _draw(bench: Bench, times: dict[str, Times]) -> None:
    """growth.png: measured as points, predicted as dashes."""
    panels = []
    for title, label, axis, other in (
        (f'N = {POSITIONS}', 'channels d', 0, POSITIONS),
        (f'd = {DIM}', 'positions N', 1, DIM),
    ):
        lines: dict[str, Line] = {}
        for phase, measured in times.items():
            points = sorted((size[axis], size) for size in measured if size[1 - axis] == other)
            if not points:
                continue
            x = [float(value) for value, _ in points]
            lines[f'{phase}, measured'] = Line(x, [1e3 * measured[size] for _, size in points])
            if len(measured) > 1:
                predicted = predict(measured, fit_growth(measured))
                lines[f'{phase}, predicted'] = Line(x, [1e3 * predicted[size] for _, size in points], dashed=True)
        panels.append(Panel(title, label, f'ms, batch {bench.growth_batch_size}', lines))
    draw_lines(bench.report, 'growth', panels)
