"""second_order_response: the paper's formula in numpy, its gradient, and half precision."""

import numpy as np
import pytest
import torch
from common import EXACT

from timm_3g.ops import second_order_response


def test_values_are_those_of_the_formula():
    x1, x2 = torch.randn(2, 3, 4, 5, dtype=torch.float64).unbind(0)
    a, b = x1.numpy(), x2.numpy()
    expected = a + b + np.sqrt(np.maximum(a, 0) * np.maximum(b, 0) + 0.01)
    torch.testing.assert_close(second_order_response(x1, x2), torch.from_numpy(expected), **EXACT)


def test_gradcheck():
    x1, x2 = torch.randn(2, 7, dtype=torch.float64).unbind(0)
    assert torch.autograd.gradcheck(second_order_response, (x1.requires_grad_(), x2.requires_grad_()))


def test_the_gradient_is_finite_where_a_branch_is_zero():
    x1 = torch.zeros(3, requires_grad=True)
    second_order_response(x1, torch.tensor([0.0, 1.0, 1e4])).sum().backward()
    assert x1.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_large_activations_in_half_precision(dtype):
    x = torch.full((2,), 1000.0, dtype=dtype)
    torch.testing.assert_close(second_order_response(x, x), torch.full((2,), 3000.0, dtype=dtype), rtol=0.01, atol=0)
