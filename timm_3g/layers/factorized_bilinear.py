"""Factorized bilinear model (FBN): mean and second moment as a vector, and a classifier of low rank over them."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import covariance

from .paper import Paper
from .precision import at_least_float32, narrowed
from .second_order_pool import SecondOrderPool2d

FBN = Paper(
    title='Factorized Bilinear Models for Image Recognition',
    authors=('Yanghao Li', 'Naiyan Wang', 'Jiaying Liu', 'Xiaodi Hou'),
    venue='IEEE International Conference on Computer Vision (ICCV)',
    year=2017,
    url='https://arxiv.org/abs/1611.05709',
    where='the factorized bilinear layer, DropFactor',
    key='li2017factorized',
)

torch.fx.wrap('covariance')
torch.fx.wrap('at_least_float32')
torch.fx.wrap('mean_and_squares')
torch.fx.wrap('narrowed')


class FactorizedBilinearPool2d(SecondOrderPool2d):
    """FBN: the mean and the second moment of the positions. Its classifier is a `FactorizedBilinear`.

        mu = (1/N) X 1;  S = (1/N) X X^T;  result = (mu, vec(S))

    The result has d + d^2 numbers per image, S row by row and not centered. The classifier scores the positions themselves, and
    never needs S: beside a classifier the result is X.

    Source: Li, Wang, Liu, Hou, "Factorized Bilinear Models for Image Recognition", ICCV 2017, https://arxiv.org/abs/1611.05709

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`. The paper has no reduction.
        num_factors: k, the rank of the classifier's quadratic term for each class, >= 1. The authors have 20 for CIFAR, 50 for
            ImageNet.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = FactorizedBilinearPool2d(in_features=8)
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 72])
    """

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        num_factors: int = 20,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        if num_factors < 1:
            raise ValueError(f'num_factors must be at least 1; got {num_factors}.')
        self.num_factors = num_factors
        self.out_features = self.dim + self.dim**2

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d + d^2), or to x itself beside a classifier."""
        return x if self.keeps_positions else moments(x)

    def create_classifier(self, num_classes: int, drop_rate: float = 0.0, **dd: Any) -> nn.Module:
        """A `FactorizedBilinear`, or an Identity for num_classes=0. From now on the result is what it takes."""
        self.keeps_positions = num_classes > 0
        if num_classes == 0:
            return nn.Identity()
        return FactorizedBilinear(self.dim, num_classes, self.num_factors, drop_rate, **dd)

    def vector(self, x: Tensor) -> Tensor:
        """See `SecondOrderPool2d.vector`."""
        return narrowed(moments(at_least_float32(x)), x.dtype) if self.keeps_positions else x


def moments(x: Tensor) -> Tensor:
    """Positions (B, d, N) to their mean and second moment (B, d + d^2).

    >>> moments(torch.tensor([[[1.0, 3.0], [0.0, 2.0]]]))
    tensor([[2., 1., 5., 3., 3., 2.]])
    """
    return torch.cat([x.mean(2), covariance(x, centered=False).flatten(1)], 1)


class FactorizedBilinear(nn.Module):
    """The classifier of FBN: for each class a linear term and a quadratic one of rank k.

        score_c = b_c + mean over positions x of (w_c^T x + sum_f (F_cf x)^2)
                = b_c + w_c^T mu + tr(F_c S F_c^T),     F = factors / sqrt(d)

    The parameter is F times sqrt(d). So a rate that suits the linear term suits the quadratic one: a step of SGD changes F by a
    share of the order of the rate times the mean square of a feature, whatever d is. With F itself as the parameter it is d
    times as much, and resnet50_fbn diverged at a rate of 0.02.

    In training mode each of the k averaged squares of each image and class is dropped with probability `drop_rate`, and the
    others are divided by 1 - drop_rate (DropFactor).

    Uncertain: how F starts, whether DropFactor draws for every image and class, and where the features are bounded. Here the
    factors start at normal random numbers of variance 1 / k, so that the quadratic term is as large as the mean square of a
    feature. Every image and class has its own draw. Features are what the backbone gives, where the authors' code ends with
    tanh.

    Source: Li, Wang, Liu, Hou, "Factorized Bilinear Models for Image Recognition", ICCV 2017, https://arxiv.org/abs/1611.05709

    Args:
        dim: d, numbers per position.
        num_classes: >= 1.
        num_factors: k.
        drop_rate: of DropFactor, in [0, 1]. The paper has 0.5.

    Attributes:
        weight: w, (num_classes, d). Like the bias, it starts as that of a Linear.
        bias: b, (num_classes,).
        factors: F sqrt(d), (num_classes, k, d).

    >>> classifier = FactorizedBilinear(dim=8, num_classes=3, num_factors=4)
    >>> x = torch.rand(2, 8, 25)
    >>> torch.allclose(classifier(x), classifier(moments(x)))
    True
    """

    def __init__(self, dim: int, num_classes: int, num_factors: int, drop_rate: float = 0.0, **dd: Any) -> None:
        super().__init__()
        self.drop_rate = float(drop_rate)
        linear = nn.Linear(dim, num_classes, **dd)
        self.weight, self.bias = linear.weight, linear.bias
        self.factors = nn.Parameter(torch.empty(num_classes, num_factors, dim, **dd))
        nn.init.normal_(self.factors, std=num_factors**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Positions (B, d, N), or `moments` of them (B, d + d^2), to scores (B, num_classes) in the dtype of a Linear's.

        Squares are summed in float32 or wider. Moments need d / N times the multiplications of positions.
        """
        terms = mean_and_squares(x, self.factors)
        linear = F.linear(terms[0], self.weight, self.bias)
        squares = F.dropout(terms[1], self.drop_rate, self.training)
        return narrowed(linear + squares.sum(2), linear.dtype)

    def extra_repr(self) -> str:
        """dim -> classes, factors=k, drop_rate=p."""
        num_classes, num_factors, dim = self.factors.shape
        return f'{dim} -> {num_classes}, factors={num_factors}, drop_rate={self.drop_rate}'


def mean_and_squares(x: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of x, and the mean squares of its projections divided by d, from positions or from `moments`.

    Args:
        x: (B, d, N) or (B, d + d^2).
        factors: (C, k, d).

    Returns:
        (B, d) in the dtype of x, and (B, C, k) in float32 or wider.

    >>> x = torch.tensor([[[1.0, 3.0], [0.0, 2.0]]])
    >>> mean_and_squares(x, torch.tensor([[[1.0, 0.0], [1.0, -1.0]]]))
    (tensor([[2., 1.]]), tensor([[[2.5000, 0.5000]]]))
    """
    num_classes, num_factors, dim = factors.shape
    if x.dim() == 3:
        projections = torch.matmul(factors.flatten(0, 1), x * dim**-0.5)
        squares = at_least_float32(projections).square().mean(2).reshape(x.shape[0], num_classes, num_factors)
        return x.mean(2), squares
    moment = x[:, dim:].reshape(x.shape[0], 1, dim, dim) / dim
    return x[:, :dim], at_least_float32(torch.matmul(factors, moment) * factors).sum(3)
