"""Products in fewer bits: TF32 on or off on a GPU, and every format emulated where the hardware does not have it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from timm_3g.compat import TorchDispatchMode

aten = torch.ops.aten

# Products, and where in their arguments the first of the two operands stands.
OPERANDS: dict[Any, int] = {
    aten.mm: 0,
    aten.bmm: 0,
    aten.matmul: 0,
    aten.linear: 0,
    aten.addmm: 1,
    aten.addmm_: 1,
    aten.baddbmm: 1,
    aten.baddbmm_: 1,
}


@contextmanager
def tf32_products(device: torch.device, on: bool) -> Iterator[None]:
    """Meanwhile float32 products on a GPU use TF32, or do not. Nothing on a CPU."""
    if device.type != 'cuda':
        yield
        return
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.allow_tf32 = on  # the older switch moves the newer with it; the other way round, inductor fails to read the older
    try:
        yield
    finally:
        matmul.allow_tf32 = before == 'tf32'
        matmul.fp32_precision = before  # of 'none' and 'ieee' the older switch knows one


def round_tf32(x: Tensor) -> Tensor:
    """float32 rounded to the 10 stored mantissa bits of TF32, to nearest, ties to even; infinities and NaN stay.

    >>> round_tf32(torch.tensor([1 + 2**-10, 1 + 2**-12])).tolist()
    [1.0009765625, 1.0]
    """
    bits = x.contiguous().view(torch.int32)
    dropped = 13
    half = (1 << (dropped - 1)) - 1
    rounded = (bits + half + ((bits >> dropped) & 1)) & ~((1 << dropped) - 1)
    return torch.where(x.isfinite(), rounded.view(torch.float32), x)


def round_bf16(x: Tensor) -> Tensor:
    """float32 rounded to bfloat16."""
    return x.to(torch.bfloat16).to(torch.float32)


def round_fp16(x: Tensor) -> Tensor:
    """float32 rounded to float16; infinite from 65520 on."""
    return x.to(torch.float16).to(torch.float32)


class RoundedProducts(TorchDispatchMode):
    """Within this context, the operands of every float32 matrix product are rounded first, those of a backward included.

    A tensor core does the same: it multiplies rounded numbers exactly and adds in float32. Only the order of the sums differs.
    Products of other dtypes are not changed.

    Args:
        rounding: float32 to float32.

    >>> x = torch.tensor([[1 + 2**-12]])
    >>> with RoundedProducts(round_tf32):
    ...     (x @ x).item()
    1.0
    """

    def __init__(self, rounding: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.rounding = rounding

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Round, then call."""
        first = OPERANDS.get(func.overloadpacket)
        args = [*args]
        if first is not None and args[first].dtype == torch.float32:
            args[first : first + 2] = [self.rounding(operand) for operand in args[first : first + 2]]
        return func(*args, **(kwargs or {}))
