"""Pure functions of tensors, without parameters, state or timm. Everything else in the package builds on them."""

from ._dispatch import autocast_dtype as autocast_dtype
from ._dispatch import has_tangent as has_tangent
from ._dispatch import in_transform as in_transform
from ._dispatch import is_ordinary as is_ordinary
from ._dispatch import is_symbolic as is_symbolic
from ._dispatch import without_autocast as without_autocast
from .count_sketch import count_sketch as count_sketch
from .covariance import append_ones as append_ones
from .covariance import covariance as covariance
from .double_attention import double_attention as double_attention
from .matrix_sqrt import sqrtm_eigh as sqrtm_eigh
from .matrix_sqrt import sqrtm_newton_schulz as sqrtm_newton_schulz
from .second_order_response import second_order_response as second_order_response
from .signed_sqrt import signed_sqrt as signed_sqrt
from .sqrt_covariance import sqrt_covariance as sqrt_covariance
from .vectorize import TRIANGLES as TRIANGLES
from .vectorize import check_triangle as check_triangle
from .vectorize import sym_to_vec as sym_to_vec
from .vectorize import triangle_entries as triangle_entries
from .vectorize import triangle_index as triangle_index
