"""What the sections compare: forms of one function, the features they run on, and the calls that are timed."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.layers import create_global_pool
from timm_3g.layers.create_pool import POOLS
from timm_3g.utils.options import OptionError

from .textbook import TextbookReweighting, handwritten, has_textbook, textbook

Form = Callable[[Tensor], Tensor]


def random_features(batch: int, dim: int, positions: int, device: torch.device, decaying: bool = False) -> Tensor:
    """Features (B, d, N) as after a ReLU, float32, the same on every device.

    White: ReLU of independent normal numbers. Decaying: ReLU of Q diag(1, 1/2, ..., 1/d) z with z white and Q orthogonal,
    scaled to mean square 1 before the ReLU: the eigenvalues of the covariance fall steeply, as those of trained networks do.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, dim, positions, generator=generator)
    if decaying:
        q, _ = torch.linalg.qr(torch.randn(dim, dim, generator=generator))
        x = (q / torch.arange(1, dim + 1)) @ x
        x = x / x.square().mean().sqrt()
    return x.relu().to(device)


def create_pool(name: str, dim: int, num_iters: int | None, num_reweights: int = 0) -> Any:
    """The pooling of this name without reduction, with re-weighting blocks if it can have them.

    Raises:
        TypeError: num_iters for a pooling without steps.
        ValueError: a pooling of first order, or num_iters out of range.
    """
    if name not in POOLS:
        raise OptionError('pool', f'must be a second-order pooling, one of {", ".join(POOLS)}; got {name!r}.')
    options: dict[str, Any] = {} if num_iters is None else {'num_iters': num_iters}
    if 'num_reweights' in POOLS[name].options:
        options['num_reweights'] = num_reweights
    return create_global_pool(name, dim, 0, **options)


def head_forms(pool: Any) -> dict[str, Form]:
    """Features (B, d, N) to the vector: the two textbook forms of the pooling's function, if it has any, then ours."""
    forms: dict[str, Form] = {}
    if has_textbook(pool):
        options: dict[str, Any] = {'num_iters': pool.num_iters, 'eps': pool.eps, 'kind': pool.triangle}
        forms['textbook'] = lambda x: textbook(x, **options)
        forms['handwritten'] = lambda x: handwritten(x, **options)
    forms['ours'] = pool.statistic
    return forms


class _Refine(nn.Module):
    """The re-weighting of a pooling as a module of its own."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool.refine(x)


def reweighting_forms(dim: int, device: torch.device) -> dict[str, Any]:
    """Modules of both forms of re-weighting with T = 3 blocks and the same weights, in training mode."""
    pool = create_pool('3g', dim, None, num_reweights=3).to(device)
    return {'textbook': TextbookReweighting(pool), 'ours': _Refine(pool)}


def training_of(form: Form, x: Tensor, parameters: Sequence[Tensor] = ()) -> Callable[[], object]:
    """One forward and backward of `form` at x, with gradients of x and the parameters, from a fixed gradient of the output."""
    x = x.detach().requires_grad_()
    grads: list[Tensor] = []

    def call() -> object:
        out = form(x)
        if not grads:  # not before: here a form that needs too much memory fails by itself, and not the case
            grads.append(torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out))
        return torch.autograd.grad(out, [x, *parameters], grads[0])

    return call


def inference_of(form: Form, x: Tensor) -> Callable[[], object]:
    """One forward of `form` at x under inference_mode."""

    def call() -> Tensor:
        with torch.inference_mode():
            return form(x)

    return call
