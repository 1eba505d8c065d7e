"""The statistics behind 3G-Net: the multivariate generalized Gaussian, its maximum likelihood, its robust covariance.

It needs torch alone and builds on `timm_3g.ops`."""

from . import divergence as divergence  # registers in torch.distributions.kl_divergence
from ._fixed_point import robust_covariance as robust_covariance
from ._robust import estimator_weights as estimator_weights
from ._robust import regularized_loss as regularized_loss
from ._robust import robust_step as robust_step
from ._robust import squared_distances as squared_distances
from ._robust import unrolled_covariance as unrolled_covariance
from ._samples import subtract as subtract
from .distribution import MultivariateGeneralizedGaussian as MultivariateGeneralizedGaussian
from .fit import FitRecord as FitRecord
from .fit import can_fit as can_fit
from .fit import fit_mggd as fit_mggd
from .regularized import check_options as check_options
from .regularized import regularized_covariance as regularized_covariance
