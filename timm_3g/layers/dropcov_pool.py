"""DropCov: covariance pooling that is regularised in training by adaptive channel dropout instead of a root."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from timm_3g.ops import covariance

from .second_order_pool import SecondOrderPool2d
from .vectorize import SymToVec

torch.fx.wrap('covariance')


class DropCovPool2d(SecondOrderPool2d):
    """Triangle of the plain centred covariance; in training, of features whose channels are dropped at an adaptive rate.

        training:  w = softmax(conv1d_3(GAP(x)));  X <- X * (1 + w)
                   rate = clamp(1 - (10 / log2 d) * mean over the batch of cos(w, Sigma 1), 0, 1 - 1/d)
                   each channel of each image is zeroed with that probability, the others divided by 1 - rate
        always:    vec = triangle((1/N) (X - mean)(X - mean)^T)                      d (d + 1) / 2 numbers

    Source: Wang, Gao, Zhang, Xie, Li, Hu, "DropCov: A Simple yet Effective Method for Improving Deep Architectures", NeurIPS
    2022 (adaptive channel dropout). Published with a rate of up to 1, which would zero everything: here one channel in d
    survives on average. The rate is a number, not differentiated; the 1-d convolution learns through 1 + w. Nothing of this
    runs in eval, where the result is exactly that of 'cov'; it is not a normalised covariance.

    Args:
        in_features, reduce_dim: see `SecondOrderPool2d`.
        triangle: order of the entries.

    Raises:
        ValueError: any argument out of range.
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
        """The training branch on features (B, d, N), to the same shape."""
        logits = self.conv(x.mean(dim=2).unsqueeze(1).to(self.conv.weight.dtype)).squeeze(1)
        importance = logits.to(x.dtype).softmax(dim=1)
        centered = x - x.mean(dim=2, keepdim=True)
        row_sums = (centered * centered.sum(dim=1, keepdim=True)).mean(dim=2)  # Sigma 1 without Sigma
        similarity = F.cosine_similarity(importance, row_sums, dim=1).mean().detach()
        rate = (1.0 - self.rate_scale * similarity).clamp(0.0, 1.0 - 1.0 / self.dim)
        keep = (torch.rand_like(row_sums) >= rate).to(x.dtype) / (1.0 - rate)
        return x * (1.0 + importance).unsqueeze(2) * keep.unsqueeze(2)

    def statistic(self, x: Tensor) -> Tensor:
        """(B, d, N) to (B, d (d + 1) / 2)."""
        if self.training:
            x = self.drop_channels(x)
        return self.to_vec(covariance(x))
