"""Normalisations of a covariance matrix as modules, and the table of their names.

`float64` says that a root wants its covariance formed in float64. The exact root does: near a zero eigenvalue it turns the
1e-7 of a float32 covariance into 3e-4, which no later care removes. The five steps do not amplify it: float32 is enough.
"""

from collections.abc import Callable

from torch import Tensor, nn

from timm_3g.ops import sqrtm_eigh, sqrtm_newton_schulz


class NewtonSchulzRoot(nn.Module):
    """`ops.sqrtm_newton_schulz` with its number of steps: (..., d, d) to (..., d, d)."""

    onnx_obstacle = ''
    float64 = False

    def __init__(self, num_iters: int) -> None:
        super().__init__()
        if num_iters < 1:
            raise ValueError(f'num_iters must be at least 1 (trained weights of this family need 5); got {num_iters}.')
        self.num_iters = int(num_iters)

    def forward(self, cov: Tensor) -> Tensor:
        """(..., d, d), float32 or float64, to the same."""
        return sqrtm_newton_schulz(cov, self.num_iters)

    def extra_repr(self) -> str:
        """num_iters=..."""
        return f'num_iters={self.num_iters}'


class EighRoot(nn.Module):
    """`ops.sqrtm_eigh`: (..., d, d) to (..., d, d)."""

    onnx_obstacle = 'eigh has no ONNX operator'
    float64 = True

    def forward(self, cov: Tensor) -> Tensor:
        """(..., d, d), float32 or float64, to the same."""
        return sqrtm_eigh(cov)


class NoRoot(nn.Identity):
    """The covariance as it is."""

    onnx_obstacle = ''
    float64 = False


ROOTS: dict[str, Callable[[int], nn.Module]] = {
    'newton_schulz': NewtonSchulzRoot,
    'eigh': lambda num_iters: EighRoot(),
    'none': lambda num_iters: NoRoot(),
}


def create_root(root: str, num_iters: int) -> nn.Module:
    """The normalisation called `root`. Raises ValueError for an unknown name, or for num_iters < 1 where there are steps."""
    if root not in ROOTS:
        raise ValueError(f'root must be one of {", ".join(ROOTS)}; got {root!r}.')
    return ROOTS[root](num_iters)
