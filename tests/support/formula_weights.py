"""Weights that a formula gives, bit by bit the same everywhere: what tests compare with golden logits and need not store."""

from collections.abc import Mapping

import torch
from torch import Tensor


def formula_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A state dict of these names and shapes. Multiples of 2^-12, drawn by a congruence from the place of each number.

    Convolutions and the classifier have the spread of He's initialisation, statistics and scales lie around those of an
    untrained network.
    """
    return {name: _tensor(name, shape, number) for number, (name, shape) in enumerate(sorted(shapes.items()))}


def _tensor(name: str, shape: tuple[int, ...], number: int) -> Tensor:
    if name.endswith('num_batches_tracked'):
        return torch.tensor(number)
    size = torch.Size(shape).numel()
    draws = (torch.arange(size) * 48_271 + number * 40_692) % 2_147_483_647 * 69_621 % 2_147_483_647 % 2048 - 1024
    uniform = draws.to(torch.float32).reshape(shape) / 4096  # in [-0.25, 0.25)
    if len(shape) > 1:
        fan_in = torch.Size(shape[1:]).numel()
        return uniform * 2.0 ** (4 - fan_in.bit_length() // 2)
    return uniform if name.endswith(('bias', 'running_mean')) else 1 + uniform
