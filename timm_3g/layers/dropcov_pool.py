"""DropCov: covariance pooling, regularized in training by adaptive channel dropout instead of a root."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import covariance

from .paper import Paper
from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

DROPCOV = Paper(
    title='DropCov: A Simple yet Effective Method for Improving Deep Architectures',
    authors=('Qilong Wang', 'Mingze Gao', 'Zhaolin Zhang', 'Jiangtao Xie', 'Peihua Li', 'Qinghua Hu'),
    venue='Advances in Neural Information Processing Systems (NeurIPS)',
    year=2022,
    url='https://proceedings.neurips.cc/paper_files/paper/2022/hash/d9888cc7baa04c2e44e8115588133515-Abstract-Conference.html',
    where='adaptive channel dropout',
    key='wang2022dropcov',
)

torch.fx.wrap('covariance')


class DropCovPool2d(SecondOrderPool2d):
    """Triangle of the plain covariance. In training mode channels are dropped first, at an adaptive rate.

        training:  w = softmax(conv1d_3(GAP(x)));  X <- X * (1 + w)
                   rate = clamp(1 - (10 / log2 d) * mean over the batch of cos(w, Sigma 1), 0, 1 - 1/d)
                   each channel of each image is zeroed with that probability, the others are divided by 1 - rate
        always:    result = triangle((1/N) (X - mean)(X - mean)^T)

    The result has d (d + 1) / 2 numbers per image. In eval mode it equals that of 'cov'. The published rate goes up to 1, which
    would zero every channel: here one channel in d survives on average. The rate has no gradient: the 1-d convolution learns
    through 1 + w.

    Source: Wang, Gao, Zhang, Xie, Li, Hu, "DropCov: A Simple yet Effective Method for Improving Deep Architectures", NeurIPS
    2022,
    https://proceedings.neurips.cc/paper_files/paper/2022/hash/d9888cc7baa04c2e44e8115588133515-Abstract-Conference.html

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        triangle: order of the entries, 'lower', 'upper' or 'full'.

    Raises:
        ValueError: an argument is out of range.

    >>> pool = DropCovPool2d(in_features=8).eval()
    >>> pool(torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 36])
    """

    def __init__(
        self,
        in_features: int,
        reduce_dim: int | None = None,
        *,
        triangle: str = 'upper',
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_features, reduce_dim, device=device, dtype=dtype)
        self.triangle = triangle
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False, device=device, dtype=dtype)
        self.rate_scale = 10.0 / math.log2(max(self.dim, 2))
        self.to_vec = SymToVec(self.dim, triangle)
        self.out_features = self.to_vec.out_features

    def drop_channels(self, x: Tensor) -> Tensor:
        """Scale the channels of x (B, d, N) by 1 + w and drop some of them. Same shape."""
        logits = self.conv(x.mean(dim=2).unsqueeze(1).to(self.conv.weight.dtype)).squeeze(1)
        importance = logits.to(x.dtype).softmax(dim=1)
        centered = x - x.mean(dim=2, keepdim=True)
        row_sums = (centered * centered.sum(dim=1, keepdim=True)).mean(dim=2)  # Sigma 1 without Sigma
        # A cosine does not depend on lengths. F.cosine_similarity squares them, and takes those below 1e-8 for 1e-8.
        row_sums = row_sums / row_sums.abs().amax(1, keepdim=True).clamp(min=1e-30)
        similarity = F.cosine_similarity(importance, row_sums, dim=1).mean().detach()
        rate = (1.0 - self.rate_scale * similarity).clamp(0.0, 1.0 - 1.0 / self.dim)
        keep = (torch.rand_like(row_sums) >= rate).to(x.dtype) / (1.0 - rate)
        return x * (1.0 + importance).unsqueeze(2) * keep.unsqueeze(2)

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d (d + 1) / 2)."""
        if self.training:
            x = self.drop_channels(x)
        return self.to_vec(covariance(x))
