"""Kullback-Leibler divergences between generalized Gaussians that have a closed form, registered in torch."""

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, register_kl

from .distribution import MultivariateGeneralizedGaussian


@register_kl(MultivariateGeneralizedGaussian, MultivariateGeneralizedGaussian)
def kl_mggd_mggd(p: MultivariateGeneralizedGaussian, q: MultivariateGeneralizedGaussian) -> Tensor:
    """KL(p || q), (...), in nats, where a closed form exists.

        KL = -entropy(p) - log_normalizer(q) + E_p[(u_q / delta_q)^beta_q] / 2

    The expectation is a second moment if q is Gaussian (shape 1). It is a radial moment if p and q have the same loc and
    proportional scatter, as always for d = 1 and the same loc. Other cases need Lauricella's function and are not implemented:
    Bouhlel, Dziri, IEEE Signal Processing Letters 26(7), 2019, https://doi.org/10.1109/LSP.2019.2915000. Gradients are those of
    the divergence. Second derivatives, as for a Fisher information, exist only where q is Gaussian.

    Raises:
        NotImplementedError: an element of the batch has no closed form, or the gradient with respect to a shape of q is needed
            that has a closed form at shape = 1 alone.
    """
    p, q = _on_one_batch(p, q)
    white = torch.linalg.solve_triangular(q._scatter_tril, p._scatter_tril, upper=False)
    ratio = white.square().sum((-2, -1)) / p.dim  # tr(Sigma_q^-1 Sigma_p) / d
    radial = (p.loc == q.loc).all(-1) & _proportional(p.scatter, q.scatter)
    gaussian = q.shape == 1
    if not bool((radial | gaussian).all()):
        raise NotImplementedError(
            'KL(p || q) of generalized Gaussians has a closed form where q.shape is 1, or where p and q have the same loc and '
            'proportional scatter. Estimate it: p.log_prob(x) - q.log_prob(x), averaged over x = p.rsample((n,)).'
        )
    if torch.is_grad_enabled() and q.shape.requires_grad and not bool(radial.all()):
        raise NotImplementedError(
            'KL(p || q) at q.shape = 1 has no closed-form derivative with respect to q.shape. Detach q.shape.'
        )
    spread = (ratio * p.scale / q.scale).pow(q.shape) * p.radial_moment(q.shape)
    shift = torch.where(gaussian, q.squared_distance(p.loc) / q.scale, 0.0)
    return -p.entropy() - q.log_normalizer + 0.5 * (spread + shift)


@register_kl(MultivariateGeneralizedGaussian, MultivariateNormal)
def kl_mggd_normal(p: MultivariateGeneralizedGaussian, q: MultivariateNormal) -> Tensor:
    """KL(p || q), (...), in nats. It always has a closed form."""
    return kl_mggd_mggd(p, _as_mggd(q))


@register_kl(MultivariateNormal, MultivariateGeneralizedGaussian)
def kl_normal_mggd(p: MultivariateNormal, q: MultivariateGeneralizedGaussian) -> Tensor:
    """KL(p || q), (...), in nats, under the conditions of `kl_mggd_mggd`."""
    return kl_mggd_mggd(_as_mggd(p), q)


def _proportional(a: Tensor, b: Tensor) -> Tensor:
    """(...), bool: a = c b to rounding, entry by entry. An inverse would amplify rounding by the condition number."""
    rounding = 100 * torch.finfo(a.dtype).eps
    size = b.diagonal(dim1=-2, dim2=-1)
    ratio = (a.diagonal(dim1=-2, dim2=-1) / size).mean(-1)[..., None, None]
    largest = (size.unsqueeze(-1) * size.unsqueeze(-2)).sqrt()  # of b_ij
    return ((a - ratio * b).abs() <= rounding * ratio * largest).all(-1).all(-1)


def _as_mggd(normal: MultivariateNormal) -> MultivariateGeneralizedGaussian:
    return MultivariateGeneralizedGaussian(normal.loc, normal.covariance_matrix, 1.0, validate_args=False)


def _on_one_batch(
    p: MultivariateGeneralizedGaussian, q: MultivariateGeneralizedGaussian
) -> tuple[MultivariateGeneralizedGaussian, MultivariateGeneralizedGaussian]:
    if p.event_shape != q.event_shape:
        raise ValueError(f'KL(p || q) needs distributions on the same R^d; got d = {p.dim} and {q.dim}.')
    batch_shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
    return p.expand(batch_shape), q.expand(batch_shape)
