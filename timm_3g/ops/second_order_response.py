"""The sum of two branches with a second-order term: SORT."""

from torch import Tensor


def second_order_response(x1: Tensor, x2: Tensor) -> Tensor:
    """x1 + x2 + sqrt(relu(x1) relu(x2) + 0.01), element by element.

    Source: Wang, Xie, Liu, Qiao, Zhang, Zhang, Tian, Yuille, "SORT: Second-Order Response Transform for Visual Recognition",
    ICCV 2017, https://arxiv.org/abs/1703.06993. The constant keeps the gradient finite where a branch is 0: the root alone has
    the slope sqrt(x2 / x1) / 2 in x1, with it the slope is at most 5 x2.

    Args:
        x1, x2: two branches of one shape and dtype.

    Returns:
        Shape and dtype of x1. The product is taken of x1 and x2 / 256, so that float16 does not overflow at 256. It does
        where both exceed 4,094.

    >>> second_order_response(torch.tensor([4.0, -1.0]), torch.tensor([9.0, 9.0]))
    tensor([19.0008,  8.1000])
    """
    product = x1.relu() * (x2.relu() / 256)  # a power of two costs no precision
    return x1 + x2 + 16 * (product + 0.01 / 256).sqrt()
