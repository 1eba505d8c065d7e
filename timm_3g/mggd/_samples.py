"""Checks and preparations of samples that both estimators share."""

import torch
from torch import Tensor


def centred_samples(x: Tensor, loc: Tensor | float | None) -> tuple[Tensor, Tensor]:
    """Samples minus their location in float64, and the location (..., d) in the dtype of x. Both with gradient.

    The weights are powers of distances to an inverse matrix and need float64. Apple's mps devices have none and use float32.

    Args:
        x: (..., N, d), float32 or float64.
        loc: broadcastable to (..., d), or None for the sample mean.

    Raises:
        TypeError: x is of another type or dtype.
        ValueError: fewer than two dimensions, an empty one, or a number that is not finite or has no finite square.
    """
    require_samples(x)
    x64 = _widened(x)
    fine = has_finite_squares(x)
    if not bool(fine.all()):
        raise ValueError(
            f'x must be finite, and so must the sum of its squares. It has NaN, infinite or too large entries'
            f'{sets_with(~fine)}. Remove or rescale them.'
        )
    centre = x64.mean(-2) if loc is None else torch.as_tensor(loc, dtype=x64.dtype, device=x.device)
    if not bool((centre.abs() < _limit(x64)).all()):
        raise ValueError(f'loc must be finite, and so must its square; got {loc}.')
    centre = broadcast('loc', centre, (*x.shape[:-2], x.shape[-1]))
    return subtract(x64, centre.unsqueeze(-2)), centre.to(x.dtype)


def require_samples(x: Tensor) -> None:
    """Raise TypeError or ValueError unless x is (..., N, d), in float32 or float64, and not empty."""
    if not isinstance(x, Tensor) or x.dtype not in (torch.float32, torch.float64):
        got = x.dtype if isinstance(x, Tensor) else f'{type(x).__module__}.{type(x).__name__}'
        raise TypeError(f'x must be a float32 or float64 torch.Tensor; got {got}.')
    if x.ndim < 2 or 0 in x.shape:
        raise ValueError(f'x must be (..., N, d), N samples of dimension d, and not empty; got {tuple(x.shape)}.')


def has_finite_squares(x: Tensor) -> Tensor:
    """(...), bool: whether the sum of the squares of samples (..., N, d) is finite. It is computed in float64."""
    x64 = _widened(x)
    return x64.abs().amax((-2, -1)) < _limit(x64)  # a NaN is not


def _widened(x: Tensor) -> Tensor:
    return x if x.device.type == 'mps' else x.double()  # Apple's mps devices have no float64


def _limit(x64: Tensor) -> float:
    return float((torch.finfo(x64.dtype).max / (4 * x64.shape[-2] * x64.shape[-1])) ** 0.5)


def subtract(x: Tensor, centre: Tensor) -> Tensor:
    """x - centre, with exact zeros for channels that differ from their centre by rounding alone.

    Args:
        x: (..., N, d).
        centre: broadcastable to x.

    Returns:
        (..., N, d), in the dtype of x. A constant channel keeps its gradient.

    >>> x = torch.tensor([[0.1, 1.0], [0.1, 2.0], [0.1, 3.0]])
    >>> subtract(x, x.mean(0)).abs().amax(0)
    tensor([0., 1.])
    """
    difference = x - centre
    rel = 1.2e-7 if x.dtype == torch.float32 else 2.2e-16  # finfo is unknown to TorchScript
    noise = 8 * rel * x.abs().amax(-2, keepdim=True)
    constant = difference.abs().amax(-2, keepdim=True) <= noise
    return difference - torch.where(constant, difference, 0.0).detach()  # a constant channel has a gradient all the same


def broadcast(name: str, value: Tensor, shape: tuple[int, ...]) -> Tensor:
    """value expanded to the shape. Raises ValueError if that is impossible."""
    try:
        return value.expand(shape)
    except RuntimeError:
        raise ValueError(f'{name} must be broadcastable to {tuple(shape)}; got {tuple(value.shape)}.') from None


def full_rank(cov: Tensor) -> Tensor:
    """(B,), bool: whether covariances (B, d, d) are regular to rounding, regardless of the scales of their channels."""
    deviation = cov.diagonal(dim1=-2, dim2=-1).sqrt()
    safe = torch.where(deviation > 0, deviation, 1.0)
    correlation = cov / (safe.unsqueeze(-1) * safe.unsqueeze(-2))
    return torch.linalg.eigvalsh(correlation)[:, 0] > 10 * cov.shape[-1] * torch.finfo(cov.dtype).eps


def refuse_singular(singular: Tensor) -> None:
    """Raise ValueError if one of the batch (...) is True."""
    if bool(singular.any()):
        raise ValueError(
            f'x has a singular covariance{sets_with(singular)}: its samples lie in a subspace. Channels may be constant, '
            f'duplicated or linearly dependent, samples too few, or one may outweigh all others. Remove channels, or use an '
            f'estimator that needs no full rank: regularized_covariance or the pooling with lam > 1.'
        )


def sets_with(bad: Tensor) -> str:
    """' in 2 of 8 sets of samples, the first at index (3,)' for a mask of the batch, and '' for a single set."""
    if bad.numel() == 1:
        return ''
    first = tuple(torch.nonzero(bad)[0].tolist())
    return f' in {int(bad.sum())} of {bad.numel()} sets of samples, the first at index {first}'
