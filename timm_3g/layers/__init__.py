"""Pooling layers: feature maps (B, C, H, W) to vectors (B, D). They build on `timm_3g.ops` and `timm_3g.mggd`."""

from .bilinear_pool import BilinearPool2d as BilinearPool2d
from .compact_bilinear_pool import CompactBilinearPool2d as CompactBilinearPool2d
from .cov_pool import CovPool2d as CovPool2d
from .create_pool import create_global_pool as create_global_pool
from .create_pool import list_pools as list_pools
from .create_pool import pool_options as pool_options
from .create_pool import pool_paper as pool_paper
from .dropcov_pool import DropCovPool2d as DropCovPool2d
from .factorized_bilinear import FactorizedBilinear as FactorizedBilinear
from .factorized_bilinear import FactorizedBilinearPool2d as FactorizedBilinearPool2d
from .first_order import WithAverage2d as WithAverage2d
from .first_order import second_order_pool_of as second_order_pool_of
from .gaussian_pool import GaussianPool2d as GaussianPool2d
from .matrix_root import EighRoot as EighRoot
from .matrix_root import NewtonSchulzRoot as NewtonSchulzRoot
from .mggd_pool import MGGDPool2d as MGGDPool2d
from .paper import Paper as Paper
from .precision import classify as classify
from .reduce import Reduce2d as Reduce2d
from .reweight import Reweight2d as Reweight2d
from .reweight import ReweightURMv1 as ReweightURMv1
from .reweight import ReweightURMv2 as ReweightURMv2
from .reweight import open_gates as open_gates
from .reweight import record_weights as record_weights
from .second_order_pool import SecondOrderPool2d as SecondOrderPool2d
from .vectorize import SymToVec as SymToVec
