"""How the cost of covariance, root and triangle grows with channels and positions, beside what the count of operations says."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from .case import INFERENCE, TRAINING, Bench, create_pool, inference_of, random_features, training_of
from .plot import Line, Panel, draw_lines

Times = dict[tuple[int, int], float]  # (d, N) -> seconds

# The size that the other one is varied at.
DIM = 256
POSITIONS = 196

# What the time is made of: the steps; the products with the features; the d x d result, which is written, read and mirrored.
TERMS: dict[str, Callable[[int, int], float]] = {
    'min(d, N)^3': lambda d, n: min(d, n) ** 3,
    'd N min(d, N)': lambda d, n: d * n * min(d, n),
    'd^2': lambda d, n: d * d,
}


def measure_growth(bench: Bench) -> list[str]:
    """Cost of our covariance, root and triangle over channels d and positions N: a min(d, N)^3 + b d N min(d, N) + c d^2."""
    args = bench.args
    batch = args.growth_batch_size
    sizes = list(dict.fromkeys([*((d, POSITIONS) for d in args.growth_dims), *((DIM, side**2) for side in args.growth_sizes)]))
    times: dict[str, Times] = {TRAINING: {}, INFERENCE: {}}
    for d, n in sizes:
        case = f'batch={batch} dim={d} positions={n}'
        with bench.case('growth', case):
            pool = create_pool(args.pool, d, args.num_iters).to(bench.device)
            x = random_features(batch, d, n, bench.device)
            for phase, call in ((TRAINING, training_of(pool.statistic, x)), (INFERENCE, inference_of(pool.statistic, x))):
                timing = bench.time('growth', case, phase, {'ours': call})['ours']
                if timing is not None:
                    times[phase][d, n] = min(timing.seconds)  # the law is about operations, not about the neighbours

    notes = []
    for phase, measured in times.items():
        if len(measured) < 2:
            continue
        prices = fit_growth(measured)
        predicted = predict(measured, prices)
        for (d, n), seconds in measured.items():
            case = f'batch={batch} dim={d} positions={n}'
            bench.report.add('growth', case, 'ours', phase, 'predicted', 1e3 * predicted[d, n], 'ms')
            bench.report.add('growth', case, 'ours', phase, 'measured over predicted', seconds / predicted[d, n], 'x')
        for name, price in zip('abc', prices, strict=True):
            bench.report.add('growth', f'batch={batch} all', 'fit', phase, name, 1e12 * price / batch, 'ps a sample')
        law = ' + '.join(f'{1e12 * price / batch:.3g} ps {term}' for price, term in zip(prices, TERMS, strict=True))
        two = predict(measured, fit_growth(measured, terms=2))
        notes.append(
            f'{phase}: {law} a sample, at worst {_worst(measured, predicted):.2f} times off; without the last term '
            f'{_worst(measured, two):.2f} times.'
        )
    _draw(bench, times)
    return notes


def fit_growth(measured: Times, terms: int = len(TERMS)) -> list[float]:
    """The price of each of the first so many TERMS, none negative, with the least sum of squared relative errors."""
    rows = [[term(*size) / t for term in [*TERMS.values()][:terms]] for size, t in measured.items()]
    matrix = torch.tensor(rows, dtype=torch.float64)
    best, prices = math.inf, [0.0] * terms
    for kept in (k for size in range(1, terms + 1) for k in itertools.combinations(range(terms), size)):
        some = matrix[:, kept]
        solution = torch.linalg.lstsq(some, torch.ones(len(some), 1, dtype=torch.float64)).solution
        error = float((some @ solution - 1.0).square().sum())
        if float(solution.min()) >= 0.0 and error < best:
            best, prices = error, [0.0] * terms
            for i, price in zip(kept, solution.flatten().tolist(), strict=True):
                prices[i] = price
    return prices


def predict(measured: Times, prices: Sequence[float]) -> Times:
    """Seconds at the same sizes by the prices of the first TERMS."""
    return {size: sum(price * term(*size) for price, term in zip(prices, TERMS.values(), strict=False)) for size in measured}


def _worst(measured: Times, predicted: Times) -> float:
    ratios = [measured[size] / predicted[size] for size in measured]
    return max(*ratios, *(1.0 / ratio for ratio in ratios))


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
        panels.append(Panel(title, label, f'ms, batch {bench.args.growth_batch_size}', lines))
    draw_lines(panels, bench.args.output / 'growth.png')
