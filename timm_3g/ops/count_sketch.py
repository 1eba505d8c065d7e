"""Tensor Sketch of second-order features, summed over positions."""

import torch
from torch import Tensor


def count_sketch(gram: Tensor, h1: Tensor, s1: Tensor, h2: Tensor, s2: Tensor, dim: int) -> Tensor:
    """Sum over positions of the Tensor Sketch of each feature vector, from the Gram matrix of the features.

        out[k] = sum over i, j with h1[i] + h2[j] = k (mod dim) of s1[i] s2[j] gram[i, j]

    With gram = X X^T this is, to rounding, the sum over the columns x of X of irfft(rfft(psi_1(x)) * rfft(psi_2(x))), where
    psi_m(x)[k] = sum over i with h_m[i] = k of s_m[i] x_i. A circular convolution of two count sketches is the count sketch of
    the outer product, and both sums are linear. So one d x d scatter per image replaces two transforms per position.

    Source: Pham, Pagh, "Fast and Scalable Polynomial Kernels via Explicit Feature Maps", KDD 2013,
    https://doi.org/10.1145/2487575.2487591
    Used for pooling in Gao, Beijbom, Zhang, Darrell, "Compact Bilinear Pooling", CVPR 2016, Algorithm 2,
    https://arxiv.org/abs/1511.06062

    Args:
        gram: (B, d, d).
        h1, h2: int64 (d,), values in [0, dim).
        s1, s2: (d,), values +1 or -1.
        dim: length of the sketch.

    Returns:
        (B, dim), in the dtype of gram. The inner product of two sketches estimates the squared inner product of their features.
        It is random in h and s, not exact. On CUDA the scatter adds in no fixed order: results repeat to rounding.

    >>> gram = torch.tensor([[[4.0, 2.0], [2.0, 1.0]]])
    >>> h1, h2, signs = torch.tensor([0, 2]), torch.tensor([1, 1]), torch.tensor([1, -1])
    >>> count_sketch(gram, h1, signs, h2, signs, dim=4)
    tensor([[ 0.,  2.,  0., -1.]])
    """
    index = ((h1.unsqueeze(1) + h2.unsqueeze(0)) % dim).flatten()
    signed = gram * (s1.unsqueeze(1) * s2.unsqueeze(0)).to(gram.dtype)
    return torch.zeros(gram.shape[0], dim, device=gram.device, dtype=gram.dtype).index_add(1, index, signed.flatten(1))
