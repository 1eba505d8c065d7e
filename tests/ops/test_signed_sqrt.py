"""signed_sqrt: value, gradient, and what eps is for."""

import torch

from timm_3g.ops import signed_sqrt


def test_values():
    x = torch.tensor([-4.0, 0.0, 9.0], dtype=torch.float64)
    torch.testing.assert_close(signed_sqrt(x, 1e-12), torch.tensor([-2.0, 0.0, 3.0], dtype=torch.float64))


def test_gradient_is_bounded_by_eps():
    x = torch.tensor([0.0, 1e-30, -1e-30, 1.0], requires_grad=True)
    signed_sqrt(x, 1e-5).sum().backward()
    assert x.grad[0] == 0
    assert x.grad.abs().max() <= 0.5 / 1e-5**0.5 + 1e-3


def test_gradcheck():
    x = torch.tensor([-2.0, -0.1, 0.1, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: signed_sqrt(x, 1e-5), x)
