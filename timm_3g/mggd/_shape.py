"""The equation of the shape parameter: profile likelihood, its derivative, and the start of Newton's method."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

# Outside these bounds the likelihood of finite data has no maximum in practice: it rises towards a limit.
SHAPE_MIN, SHAPE_MAX = 1 / 64, 64.0


class Profile(NamedTuple):
    """The likelihood at one scatter and shape, with the best scale. All fields have the shape of the batch."""

    loss: Tensor  # minus log-likelihood per sample, without log-determinant and constant
    step: Tensor  # Newton's, in log(shape)
    share: Tensor  # (..., N), u^beta / sum of u^beta


def profile(log_u: Tensor, shape: Tensor, dim: int) -> Profile:
    """Likelihood and Newton step in log(shape) from the log squared distances (..., N) at shape (...).

    Source: Pascal, Bombrun, Tourneret, Berthoumieu, IEEE TSP 2013, https://arxiv.org/abs/1302.6498, eq. (4) of the 3G paper.
    With S1 = sum u^b, S2 = sum u^b log u, S3 = sum u^b log^2 u and delta at its maximum, delta^b = b S1 / (d N),

        f(b) = (d/2) S2/S1 - k (psi(k) + log 2 + log(b S1 / (d N))) - 1,   k = d / (2 b)

    is the derivative of the loss by log(b). The roots of f are the stationary points of the likelihood. Newton's step in log(b)
    is -f / (b f'(b)), held within a factor of 3. Where the loss is not convex it goes downhill by that factor.
    """
    k = dim / (2 * shape)
    power = shape.unsqueeze(-1) * log_u
    log_s1 = power.logsumexp(-1)
    share = power.softmax(-1)
    mean = (share * log_u).sum(-1)  # S2 / S1
    spread = (share * (log_u - mean.unsqueeze(-1)).square()).sum(-1)  # S3 / S1 - (S2 / S1)^2
    log_scale = torch.log(shape / (dim * log_u.shape[-1])) + log_s1  # beta log(delta)
    level = torch.digamma(k) + math.log(2) + log_scale
    score = dim / 2 * mean - k * level - 1
    slope = dim / 2 * shape * spread + k * level + k.square() * torch.polygamma(1, k) - k * (1 + shape * mean)
    step = torch.where(slope > 0, -score / slope, -score.sign() * math.inf).clamp(-math.log(3), math.log(3))
    loss = -shape.log() + torch.lgamma(k) + k * (math.log(2) + log_scale + 1)
    return Profile(loss, step, share)


def shape_by_kurtosis(kurtosis: Tensor, dim: int) -> Tensor:
    """The shape with this Mardia kurtosis E[u^2], u by the covariance, found by bisection within the bounds.

    E[u^2] = d^2 Gamma(k) Gamma(k + 2/b) / Gamma(k + 1/b)^2,   decreasing in b
    """
    low, high = (torch.full_like(kurtosis, math.log(bound)) for bound in (SHAPE_MIN, SHAPE_MAX))
    for _ in range(40):
        middle = (low + high) / 2
        k, inverse = dim / 2 * (-middle).exp(), (-middle).exp()
        log_moment = 2 * math.log(dim) + torch.lgamma(k) + torch.lgamma(k + 2 * inverse) - 2 * torch.lgamma(k + inverse)
        heavier = log_moment > kurtosis.log()
        low, high = torch.where(heavier, middle, low), torch.where(heavier, high, middle)
    return ((low + high) / 2).exp()
