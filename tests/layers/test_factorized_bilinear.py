"""FBN's classifier against its definition, position by position."""

import copy

import numpy as np
import pytest
import torch
from common import EXACT, features

import timm_3g
from timm_3g.layers import FactorizedBilinear
from timm_3g.layers.factorized_bilinear import moments

BATCH, DIM, CLASSES, FACTORS = 3, 6, 4, 5


def build(drop_rate: float = 0.0) -> FactorizedBilinear:
    return FactorizedBilinear(DIM, CLASSES, FACTORS, drop_rate).double()


def positions() -> torch.Tensor:
    return features(BATCH, DIM, 5, 4, dtype=torch.float64).flatten(2)


def test_scores_are_the_definition():
    classifier, x = build(), positions()
    w, b, factors = (tensor.detach().numpy() for tensor in (classifier.weight, classifier.bias, classifier.factors))
    expected = np.zeros((BATCH, CLASSES))
    for image, c in np.ndindex(*expected.shape):
        columns = x[image].numpy().T
        expected[image, c] = b[c] + np.mean([w[c] @ one + sum((f @ one) ** 2 / DIM for f in factors[c]) for one in columns])
    np.testing.assert_allclose(classifier(x).detach(), expected, **EXACT)
    np.testing.assert_allclose(classifier(moments(x)).detach(), expected, **EXACT)


def test_it_adds_what_the_authors_state():
    """ResNet-164 has 1.7 M parameters and 2.2 M with 20 factors: 256 channels, 100 classes (their repository, CIFAR-100)."""
    assert round(FactorizedBilinear(256, 100, 20, device='meta').factors.numel() / 1e6, 1) == 0.5


@pytest.mark.parametrize('take', [positions, lambda: moments(positions())], ids=['positions', 'moments'])
def test_gradcheck(take):
    classifier = build()
    parameters = tuple(p.detach().requires_grad_() for p in classifier.parameters())
    names = [name for name, _ in classifier.named_parameters()]

    def scores(x, *values):
        return torch.func.functional_call(classifier, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(scores, (take().requires_grad_(), *parameters))


def test_drop_factor_drops_squares_of_an_image_and_a_class():
    """Against the sum over what is left: with k = 1 each square is there twice or not at all."""
    classifier, x = FactorizedBilinear(DIM, CLASSES, 1, drop_rate=0.5).double(), positions()[:1].expand(400, -1, -1)
    squares = classifier.eval()(x) - torch.nn.functional.linear(x.mean(2), classifier.weight, classifier.bias)
    dropped = classifier.train()(x) - classifier.eval()(x) + squares
    kept = (dropped / squares).round()
    torch.testing.assert_close(dropped, kept * squares, **EXACT)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert ((kept.mean(0) - 1.0).abs() < 0.2).all()  # four standard errors of 400 draws
    assert len(kept.unique(dim=1).T) == CLASSES  # every class has draws of its own


def test_the_quadratic_term_starts_as_large_as_the_mean_square():
    x = torch.randn(64, 256, 9)
    classifier = FactorizedBilinear(256, 100, 20)
    squares = classifier(x) - torch.nn.functional.linear(x.mean(2), classifier.weight, classifier.bias)
    assert abs(float(squares.detach().mean()) - 1.0) < 0.05
    assert float(squares.detach().mean(0).std()) < 0.5  # no class is ahead at the start


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_sums_squares_in_float32(dtype):
    classifier = build().to(dtype)
    x = (positions() * 300).to(dtype)  # squares reach 1e5
    got = classifier(x)
    expected = copy.deepcopy(classifier).double()(x.double())
    assert got.dtype == dtype and got.isfinite().all()
    torch.testing.assert_close(got.double(), expected.clamp(-65504, 65504), rtol=0.02, atol=1.0)


def test_options_are_checked():
    with pytest.raises(ValueError, match='num_factors must be at least 1; got 0'):
        timm_3g.create_global_pool('fbn', 8, num_factors=0)


def test_a_vector_of_another_length_is_no_vector_of_more_images():
    with pytest.raises(RuntimeError):
        FactorizedBilinear(4, 3, 2)(torch.randn(1, 4 + 2 * 16))
