"""Pure functions of tensors: no parameters, no state, no timm. The first of the four tiers (ops, layers, models, cli)."""

from .count_sketch import count_sketch as count_sketch
from .covariance import covariance as covariance
from .covariance import gaussian_embedding as gaussian_embedding
from .matrix_sqrt import sqrtm_eigh as sqrtm_eigh
from .matrix_sqrt import sqrtm_newton_schulz as sqrtm_newton_schulz
from .signed_sqrt import signed_sqrt as signed_sqrt
from .vectorize import TRIANGLES as TRIANGLES
from .vectorize import sym_to_vec as sym_to_vec
from .vectorize import triangle_index as triangle_index
