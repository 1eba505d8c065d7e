"""Second-order attention: features gathered by attention over positions, handed out by attention over what was gathered."""

from torch import Tensor


def double_attention(features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    """Z = (A softmax_positions(B)^T) softmax_attentions(V), of every image.

    Source: Chen, Kalantidis, Li, Yan, Feng, "A^2-Nets: Double Attention Networks", NeurIPS 2018,
    https://arxiv.org/abs/1810.11579. Column i of A softmax(B)^T is a mean of the features, weighted by
    attention map i. Each position receives a mean of these columns.

    Args:
        features: A, (B, m, N) for N positions.
        gather: B, (B, n, N): logits of the n attention maps over the N positions.
        distribute: V, (B, n, N): logits of the attention of each position over the n gathered vectors.

    Returns:
        (B, m, N), in the dtype of features.

    >>> x = torch.randn(2, 6, 9)
    >>> double_attention(x, x[:, :4], x[:, :4]).shape
    torch.Size([2, 6, 9])
    """
    gathered = features @ gather.softmax(-1).transpose(-1, -2).to(features.dtype)
    return gathered @ distribute.softmax(-2).to(features.dtype)
