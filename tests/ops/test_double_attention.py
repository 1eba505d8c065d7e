"""double_attention: the paper's two steps in numpy and loops, and its gradient."""

import numpy as np
import torch
from common import EXACT
from scipy.special import softmax

from timm_3g.ops import double_attention


def inputs(*, m: int = 3, n: int = 4, positions: int = 5) -> list[torch.Tensor]:
    return [torch.randn(2, channels, positions, dtype=torch.float64) for channels in (m, n, n)]


def test_values_are_those_of_the_two_steps():
    features, gather, distribute = inputs()
    expected = np.zeros((2, 3, 5))
    for image in range(2):
        maps = softmax(gather[image].numpy(), axis=1)  # over the positions
        gathered = [sum(features[image, :, p].numpy() * row[p] for p in range(5)) for row in maps]
        for p in range(5):
            weights = softmax(distribute[image, :, p].numpy())  # over what was gathered
            expected[image, :, p] = sum(weight * vector for weight, vector in zip(weights, gathered, strict=True))
    torch.testing.assert_close(double_attention(features, gather, distribute), torch.from_numpy(expected), **EXACT)


def test_gradcheck():
    assert torch.autograd.gradcheck(double_attention, [x.requires_grad_() for x in inputs()])


def test_half_precision_keeps_its_dtype():
    """As under autocast, whose softmax gives float32."""
    features, gather, distribute = inputs()
    assert double_attention(features.half(), gather.float(), distribute.float()).dtype == torch.float16
