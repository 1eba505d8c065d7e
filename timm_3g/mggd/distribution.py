"""The multivariate generalized Gaussian as a torch distribution."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Gamma, constraints
from torch.nn import functional as F


class MultivariateGeneralizedGaussian(Distribution):
    """Elliptical distribution on R^d with tails heavier (shape < 1) or lighter (shape > 1) than those of the Gaussian.

        p(x) = Gamma(d/2) beta / (pi^(d/2) Gamma(k) 2^k delta^(d/2) |Sigma|^(1/2)) exp(-(u / delta)^beta / 2)
        u = (x - mu)^T Sigma^-1 (x - mu),   k = d / (2 beta)

    with mu = loc, Sigma = scatter, beta = shape, delta = scale. It is also called multivariate power exponential.

    shape = 1 is N(loc, scale * scatter), shape = 1/2 the paper's multivariate Laplace, and d = 1 with scatter = scale = 1 is
    scipy's gennorm(2 beta, scale=2^(1/(2 beta))). scatter is not the covariance: see `covariance_matrix`. Data determine only
    the product scale * scatter. Pascal et al. give scatter the trace d and put the rest into scale.

    Source: Wang, Li, Hu, Zhu, Zuo, "Deep Global Generalized Gaussian Networks", CVPR 2019, eq. (1),
    https://openaccess.thecvf.com/content_CVPR_2019/papers/Wang_Deep_Global_Generalized_Gaussian_Networks_CVPR_2019_paper.pdf
    and Pascal, Bombrun, Tourneret, Berthoumieu, "Parameter Estimation for Multivariate Generalized Gaussian Distributions",
    IEEE Transactions on Signal Processing 61(23), 2013, https://arxiv.org/abs/1302.6498

    Args:
        loc: (..., d), float32 or float64.
        scatter: (..., d, d), symmetric positive definite.
        shape: (...), > 0, or a number.
        scale: (...), > 0, or a number. The leading dimensions of all four broadcast to `batch_shape`.
        validate_args: check parameters and values. None means torch's own default, which the first torch.compile of a process
            switches off for everything that follows. The default here is True.

    Raises:
        TypeError: loc and scatter are not both float32 or both float64.
        ValueError: dimensions that do not fit, or a parameter outside its constraint.

    >>> laplace = MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), shape=0.5)
    >>> laplace.sample((3,)).shape
    torch.Size([3, 2])
    >>> laplace.log_prob(torch.zeros(2))
    tensor(-3.2242)
    """

    arg_constraints = {
        'loc': constraints.real_vector,
        'scatter': constraints.positive_definite,
        'shape': constraints.positive,
        'scale': constraints.positive,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        scatter: Tensor,
        shape: Tensor | float,
        scale: Tensor | float = 1.0,
        validate_args: bool | None = True,
    ) -> None:
        if loc.ndim < 1 or scatter.ndim < 2 or scatter.shape[-2:] != (loc.shape[-1],) * 2:
            raise ValueError(
                f'loc must be (..., d) and scatter (..., d, d) with one d; got {tuple(loc.shape)} and {tuple(scatter.shape)}.'
            )
        if loc.dtype not in (torch.float32, torch.float64) or scatter.dtype != loc.dtype:
            raise TypeError(f'loc and scatter must both be float32 or both float64; got {loc.dtype} and {scatter.dtype}.')
        shape, scale = (torch.as_tensor(value, dtype=loc.dtype, device=loc.device) for value in (shape, scale))
        batch_shapes = (loc.shape[:-1], scatter.shape[:-2], shape.shape, scale.shape)
        try:
            batch_shape = torch.broadcast_shapes(*batch_shapes)
        except RuntimeError as error:
            shown = ', '.join(str(tuple(one)) for one in batch_shapes)
            raise ValueError(f'loc, scatter, shape and scale must have batch shapes that broadcast; got {shown}.') from error
        for name, value in (('shape', shape), ('scale', scale)):  # constraints.positive lets infinity pass
            if validate_args and value.isinf().any():
                raise ValueError(f'{name} must be finite; got {float(value.max())}.')
        event_shape = loc.shape[-1:]
        self.loc = loc.expand(batch_shape + event_shape)
        self.scatter = scatter.expand(batch_shape + event_shape + event_shape)
        self.shape = shape.expand(batch_shape)
        self.scale = scale.expand(batch_shape)
        super().__init__(batch_shape, event_shape, validate_args=validate_args)
        # Decompose the scatter as given, not the expanded batch: many means with one scatter need one decomposition.
        self._scatter_tril = torch.linalg.cholesky(scatter).expand_as(self.scatter)

    def expand(self, batch_shape: Any, _instance: Any = None) -> 'MultivariateGeneralizedGaussian':
        """The same distribution with another `batch_shape`, without new memory.

        >>> normal = MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), 1.0)
        >>> normal.expand((3,)).mean.shape
        torch.Size([3, 2])
        """
        new = self._get_checked_instance(MultivariateGeneralizedGaussian, _instance)
        batch_shape = torch.Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.scatter = self.scatter.expand(batch_shape + self.event_shape + self.event_shape)
        new._scatter_tril = self._scatter_tril.expand_as(new.scatter)
        new.shape = self.shape.expand(batch_shape)
        new.scale = self.scale.expand(batch_shape)
        super(MultivariateGeneralizedGaussian, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def dim(self) -> int:
        """d, an int.

        >>> MultivariateGeneralizedGaussian(torch.zeros(3), torch.eye(3), 1.0).dim
        3
        """
        return self.event_shape[0]

    @property
    def mean(self) -> Tensor:
        """loc, (..., d).

        >>> MultivariateGeneralizedGaussian(torch.ones(2), torch.eye(2), 0.5).mean
        tensor([1., 1.])
        """
        return self.loc

    @property
    def mode(self) -> Tensor:
        """loc, (..., d).

        >>> MultivariateGeneralizedGaussian(torch.ones(2), torch.eye(2), 0.5).mode
        tensor([1., 1.])
        """
        return self.loc

    @property
    def covariance_matrix(self) -> Tensor:
        """(..., d, d): scale * scatter * 2^(1/beta) Gamma((d + 2) / (2 beta)) / (d Gamma(d / (2 beta))).

        >>> MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), 0.5).covariance_matrix.round(decimals=3)
        tensor([[12.,  0.],
                [ 0., 12.]])
        """
        return self.scatter * (self.scale * self.radial_moment(1.0) / self.dim)[..., None, None]

    @property
    def variance(self) -> Tensor:
        """(..., d), the diagonal of `covariance_matrix`.

        >>> MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), 0.5).variance.round(decimals=3)
        tensor([12., 12.])
        """
        return self.covariance_matrix.diagonal(dim1=-2, dim2=-1)

    def radial_moment(self, power: Tensor | float) -> Tensor:
        """E[(u / delta)^power], (...): 2^(p/beta) Gamma(k + p/beta) / Gamma(k), since (u / delta)^beta is Gamma(k, scale 2).

        >>> normal = MultivariateGeneralizedGaussian(torch.zeros(3), torch.eye(3), 1.0)
        >>> normal.radial_moment(1.0).round(decimals=3)  # the mean of chi-squared with 3 degrees of freedom
        tensor(3.)
        """
        k = self.dim / (2 * self.shape)
        steps = power / self.shape
        return (steps * math.log(2) + torch.lgamma(k + steps) - torch.lgamma(k)).exp()

    @property
    def log_normalizer(self) -> Tensor:
        """(...), the logarithm of the density at loc.

        >>> MultivariateGeneralizedGaussian(torch.zeros(1), torch.eye(1), 1.0).log_normalizer  # -log(2 pi) / 2
        tensor(-0.9189)
        """
        k = self.dim / (2 * self.shape)
        half = self.dim / 2
        log_det = self._scatter_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # of the root
        constant = math.lgamma(half) - half * math.log(math.pi)
        return constant + self.shape.log() - torch.lgamma(k) - k * math.log(2) - half * self.scale.log() - log_det

    def squared_distance(self, value: Tensor) -> Tensor:
        """u = (x - mu)^T Sigma^-1 (x - mu), without scale: (..., d) to (...).

        >>> normal = MultivariateGeneralizedGaussian(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])), 1.0)
        >>> normal.squared_distance(torch.tensor([2.0, 3.0]))
        tensor(10.)
        """
        difference = value - self.loc
        sample_shape = difference.shape[: difference.ndim - 1 - len(self.batch_shape)]
        # Samples last, so that one triangular matrix serves all of them.
        columns = difference.reshape(math.prod(sample_shape), *self.batch_shape, self.dim).movedim(0, -1)
        white = torch.linalg.solve_triangular(self._scatter_tril, columns, upper=False)
        return white.square().sum(-2).movedim(-1, 0).reshape(sample_shape + self.batch_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density of values (..., d), (...). At loc, where the density has a cusp for shape <= 1/2, its gradient is 0.

        Raises:
            ValueError: a value is not a real vector and validate_args is on.

        >>> normal = MultivariateGeneralizedGaussian(torch.zeros(1), torch.eye(1), 1.0)
        >>> normal.log_prob(torch.tensor([[0.0], [1.0]]))
        tensor([-0.9189, -1.4189])
        """
        if self._validate_args:
            self._validate_sample(value)
        u = self.squared_distance(value) / self.scale
        inside = torch.where(u > 0, u, 1.0)  # the derivative of a power below 1 is infinite at 0
        at_loc = torch.where(self.shape == 1, u, 0.0)  # u itself: a Gaussian has second derivatives there
        power = torch.where(u > 0, (self.shape * inside.log()).exp(), at_loc)
        return self.log_normalizer - 0.5 * power

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Samples of shape sample_shape + batch_shape + (d,), with gradients to loc, scatter, shape and scale.

            x = mu + sqrt(delta) tau L v,   L L^T = Sigma,   v uniform on the sphere,   tau^(2 beta) ~ Gamma(k, scale 2)

        A Gamma(k) variable is one of Gamma(k + 1) times U^(1/k), U uniform, so tau = (2 G)^(1/(2 beta)) U^(1/d). Light tails
        (small k) therefore neither underflow nor lose their gradient.

        >>> shape = torch.tensor(0.5, requires_grad=True)
        >>> x = MultivariateGeneralizedGaussian(torch.zeros(2), torch.eye(2), shape).rsample((4,))
        >>> x.shape, x.requires_grad
        (torch.Size([4, 2]), True)
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        direction = F.normalize(torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device), dim=-1)
        gamma = Gamma(self.dim / (2 * self.shape) + 1, torch.full_like(self.shape, 0.5), validate_args=False)
        uniform = torch.rand(shape[:-1], dtype=self.loc.dtype, device=self.loc.device)
        radius = (gamma.rsample(torch.Size(sample_shape)).log() / (2 * self.shape)).exp() * uniform.pow(1 / self.dim)
        with torch.autocast(self.loc.device.type, enabled=False):
            offset = torch.matmul(self._scatter_tril, direction.unsqueeze(-1)).squeeze(-1)
        return self.loc + (self.scale.sqrt() * radius).unsqueeze(-1) * offset

    def entropy(self) -> Tensor:
        """(...), in nats.

        >>> MultivariateGeneralizedGaussian(torch.zeros(1), torch.eye(1), 1.0).entropy()  # log(2 pi e) / 2
        tensor(1.4189)
        """
        return self.dim / (2 * self.shape) - self.log_normalizer
