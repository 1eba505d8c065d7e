"""Modules that turn features into a root of their covariance, and the table of their names."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from timm_3g.ops import covariance, sqrt_covariance, sqrtm_eigh

from .precision import as_float64

torch.fx.wrap('as_float64')
torch.fx.wrap('covariance')
torch.fx.wrap('sqrt_covariance')
torch.fx.wrap('sqrtm_eigh')


class CovarianceRoot(nn.Module):
    """The covariance of the features without a root, (B, d, N) to (B, d, d). Subclasses take a root of it.

    Args:
        centered, eps: see `ops.covariance`.
    """

    onnx_obstacle = ''

    def __init__(self, centered: bool, eps: float) -> None:
        super().__init__()
        self.centered = centered
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, N), float32 or float64, to (B, d, d) in the same."""
        return covariance(x, self.centered, self.eps)

    def extra_repr(self) -> str:
        """centered=..., eps=..."""
        return f'centered={self.centered}, eps={self.eps:g}'


MOST_ITERS = 60  # `ops.sqrt_covariance` takes 30 of them in float32, 45 in float64: more change nothing but rounding


def require_iters(num_iters: int) -> None:
    """Raise ValueError for a number of Newton-Schulz steps that is out of range."""
    if type(num_iters) is not int or not 1 <= num_iters <= MOST_ITERS:
        raise ValueError(
            f'num_iters must be an integer from 1 to {MOST_ITERS} (trained weights of this family need 5); got {num_iters}.'
        )


class NewtonSchulzRoot(CovarianceRoot):
    """`num_iters` Newton-Schulz steps on the covariance, (B, d, N) to (B, d, d): see `ops.sqrt_covariance`.

    Source: Li, Xie, Wang, Gao, iSQRT-COV, CVPR 2018, https://arxiv.org/abs/1712.01034

    Args:
        centered, eps: see `ops.covariance`.
        num_iters: number of steps, 1 to 60. Weights of the 3G and iSQRT-COV papers need 5.

    Raises:
        ValueError: num_iters is out of range.

    >>> root = NewtonSchulzRoot(centered=True, eps=0.0, num_iters=5)
    >>> root(torch.randn(2, 4, 9)).shape
    torch.Size([2, 4, 4])
    """

    def __init__(self, centered: bool, eps: float, num_iters: int) -> None:
        super().__init__(centered, eps)
        require_iters(num_iters)
        self.num_iters = num_iters

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, N), float32 or float64, to (B, d, d) in the same."""
        return sqrt_covariance(x, self.num_iters, self.centered, self.eps)

    def extra_repr(self) -> str:
        """num_iters=..., centered=..., eps=..."""
        return f'num_iters={self.num_iters}, {super().extra_repr()}'


class EighRoot(CovarianceRoot):
    """The exact root of the covariance, (B, d, N) to (B, d, d), float64: see `ops.sqrtm_eigh`.

    It computes in float64. Near a zero eigenvalue the exact root turns the rounding of 1e-7 of a float32 covariance into 3e-4.
    The few steps of `NewtonSchulzRoot` do not amplify rounding, so float32 suffices there.

    Source: Li, Xie, Wang, Zuo, MPN-COV, ICCV 2017, https://arxiv.org/abs/1703.08050

    Args:
        centered, eps: see `ops.covariance`.

    >>> x = torch.randn(1, 3, 50)
    >>> root = EighRoot(centered=True, eps=0.0)(x)
    >>> torch.allclose(root @ root, torch.cov(x[0].double(), correction=0))
    True
    """

    onnx_obstacle = 'eigh has no ONNX operator'

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, N), float32 or float64, to (B, d, d), float64."""
        return sqrtm_eigh(covariance(as_float64(x), self.centered, self.eps))


ROOTS: dict[str, Callable[[bool, float, int], CovarianceRoot]] = {
    'newton_schulz': NewtonSchulzRoot,
    'eigh': lambda centered, eps, num_iters: EighRoot(centered, eps),
    'none': lambda centered, eps, num_iters: CovarianceRoot(centered, eps),
}


def create_root(root: str, num_iters: int, centered: bool = True, eps: float = 0.0) -> CovarianceRoot:
    """Build the module called `root`.

    Raises:
        ValueError: unknown name, or num_iters out of range, whether the root has steps or not.
    """
    if root not in ROOTS:
        raise ValueError(f'root must be one of {", ".join(ROOTS)}; got {root!r}.')
    require_iters(num_iters)
    return ROOTS[root](centered, eps, num_iters)
