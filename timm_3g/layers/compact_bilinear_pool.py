"""Compact bilinear pooling by Tensor Sketch."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from timm_3g.ops import count_sketch, covariance, signed_sqrt

from .paper import Paper
from .second_order_pool import SecondOrderPool2d

CBP = Paper(
    title='Compact Bilinear Pooling',
    authors=('Yang Gao', 'Oscar Beijbom', 'Ning Zhang', 'Trevor Darrell'),
    venue='IEEE Conference on Computer Vision and Pattern Recognition (CVPR)',
    year=2016,
    url='https://arxiv.org/abs/1511.06062',
    where='Algorithm 2: Tensor Sketch',
    key='gao2016compact',
)

torch.fx.wrap('covariance')
torch.fx.wrap('count_sketch')


class CompactBilinearPool2d(SecondOrderPool2d):
    """CBP: signed square root and l2 normalization of the summed Tensor Sketch of the features.

        phi(x) = irfft(rfft(psi_1(x)) * rfft(psi_2(x)));  b = sum over positions of phi(x_n)
        y = sign(b) * sqrt(|b| + eps);  result = y / ||y||_2

    The result has sketch_dim numbers per image. `ops.count_sketch` computes b without Fourier transforms. The sketch is a
    random projection of X X^T: another seed gives another function. The sketches are therefore buffers in the state dict. They
    are drawn from a generator of their own, so the global random state stays as it is.

    Source: Gao, Beijbom, Zhang, Darrell, "Compact Bilinear Pooling", CVPR 2016, Tensor Sketch (Algorithm 2),
    https://arxiv.org/abs/1511.06062

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        sketch_dim: length of the sketch, >= 1.
        eps: added inside the signed root, > 0.
        sketch_seed: seed of the sketches.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = CompactBilinearPool2d(in_features=8, sketch_dim=32)
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 32])
    """

    h1: Tensor
    s1: Tensor
    h2: Tensor
    s2: Tensor
    onnx_obstacle = 'the signed root of a sketch jumps at 0, so another order of summation changes its entries'

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        sketch_dim: int = 8192,
        eps: float = 1e-5,
        sketch_seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        if sketch_dim < 1:
            raise ValueError(f'sketch_dim must be at least 1; got {sketch_dim}.')
        if not 0 < eps < math.inf:
            raise ValueError(
                f'eps of the signed root must be positive and finite (its gradient at 0 is 1 / (2 sqrt(eps))); got {eps}.'
            )
        self.eps = float(eps)
        self.out_features = int(sketch_dim)
        generator = torch.Generator('cpu').manual_seed(sketch_seed)
        for name in ('1', '2'):
            h = torch.randint(sketch_dim, (self.dim,), generator=generator, device='cpu')
            s = 2 * torch.randint(2, (self.dim,), generator=generator, device='cpu') - 1
            self.register_buffer(f'h{name}', h.to(device or torch.get_default_device()))
            self.register_buffer(f's{name}', s.to(device or torch.get_default_device()))

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, sketch_dim)."""
        gram = covariance(x, centered=False) * x.shape[-1]
        b = count_sketch(gram, self.h1, self.s1, self.h2, self.s2, self.out_features)
        return F.normalize(signed_sqrt(b, self.eps), dim=1)
