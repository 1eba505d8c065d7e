"""count_sketch of a Gram matrix against the definition: a sum over positions of irfft(rfft * rfft)."""

import numpy as np
import pytest
import reference
import torch
from common import EXACT

from timm_3g.ops import count_sketch


def sketches(d: int, dim: int) -> tuple[torch.Tensor, ...]:
    return tuple(t for _ in range(2) for t in (torch.randint(dim, (d,)), 2 * torch.randint(2, (d,)) - 1))


@pytest.mark.parametrize('dim', [1, 7, 64])
def test_equals_the_sum_of_tensor_sketches(dim):
    x = torch.randn(3, 9, 5, dtype=torch.float64)
    h1, s1, h2, s2 = sketches(9, dim)
    got = count_sketch(x @ x.mT, h1, s1, h2, s2, dim)
    for vector, one in zip(got, x, strict=True):
        expected = reference.tensor_sketch(one.numpy(), h1.numpy(), s1.double().numpy(), h2.numpy(), s2.double().numpy(), dim)
        np.testing.assert_allclose(vector, expected, **EXACT)


def test_inner_products_estimate_squared_inner_products():
    x, y = torch.randn(2, 16, 1, dtype=torch.float64)
    products = []
    for _ in range(400):
        sketch = sketches(16, 128)
        a, b = (count_sketch((v @ v.mT).unsqueeze(0), *sketch, 128) for v in (x, y))
        products.append(float((a * b).sum()))
    spread = np.std(products) / len(products) ** 0.5
    assert abs(np.mean(products) - float((x * y).sum() ** 2)) < 4 * spread


def test_gradcheck():
    sketch = sketches(4, 8)
    gram = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda gram: count_sketch(gram, *sketch, 8), gram)
