"""The head as it is usually written, which the benchmark compares with. The package itself does not use these forms.

Written from the mathematics, not from anybody's code. `textbook` is the form of 3G-Net's public code, `handwritten` that of
fast-MPN-COV's, and `TextbookPool2d` the whole head in the first form, on the weights of one of our poolings.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from timm_3g.layers import CovPool2d, Reweight2d


def centring(x: Tensor) -> Tensor:
    """(I - 1 1^T / N) / N as an N x N matrix for each of the B images: x (B, d, N) times it, times x^T, is the covariance."""
    batch, _, n = x.shape
    eye = torch.eye(n, dtype=x.dtype, device=x.device)
    return ((eye - 1.0 / n) / n).repeat(batch, 1, 1)


def triangle(mat: Tensor, kind: str) -> Tensor:
    """(B, d, d) to (B, d (d + 1) / 2), row-major, 'lower' or 'upper', one image after the other."""
    indices = {'lower': torch.tril_indices, 'upper': torch.triu_indices}[kind]
    rows, cols = indices(mat.shape[1], mat.shape[1], device=mat.device)
    return torch.stack([mat[i][rows, cols] for i in range(mat.shape[0])])


def textbook(x: Tensor, num_iters: int = 5, eps: float = 0.0, kind: str = 'upper') -> Tensor:
    """Features (B, d, N) to the triangle of the root: an N x N centring matrix, three products per step, autograd.

    >>> textbook(torch.rand(2, 4, 9)).shape
    torch.Size([2, 10])
    """
    eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
    cov = x.bmm(centring(x)).bmm(x.mT) + eps * eye
    trace = cov.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
    y, z = cov / trace, eye
    for _ in range(num_iters):
        t = 0.5 * (3.0 * eye - z.bmm(y))
        y, z = y.bmm(t), t.bmm(z)
    return triangle(trace.sqrt() * y, kind)


def handwritten(x: Tensor, num_iters: int = 5, eps: float = 0.0, kind: str = 'upper') -> Tensor:
    """The same with 12 products instead of 15 at five steps, and a backward by hand, which keeps the iterates and no more.

    fast-MPN-COV's code keeps about four matrices per image more than this needs (3.87 MiB against 3.1 at d = 256, N = 196).

    >>> x = torch.rand(2, 4, 9, dtype=torch.float64)
    >>> torch.allclose(handwritten(x), textbook(x))
    True
    """
    return triangle(_Handwritten.apply(x, num_iters, eps), kind)


class _Handwritten(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, num_iters: int, eps: float) -> Tensor:
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        j = centring(x)
        cov = x.bmm(j).bmm(x.mT) + eps * eye
        trace = cov.diagonal(dim1=1, dim2=2).sum(1).view(-1, 1, 1)
        a = cov / trace
        # z_0 = I: the first step costs one product instead of three; z after the last step is not needed: one less.
        zs = [0.5 * (3.0 * eye - a)]
        ys = [a.bmm(zs[0])]
        for _ in range(num_iters - 2):
            t = 0.5 * (3.0 * eye - zs[-1].bmm(ys[-1]))
            ys.append(ys[-1].bmm(t))
            zs.append(t.bmm(zs[-1]))
        if num_iters == 1:
            root, ys, zs = ys[0], [], []
        else:
            root = 0.5 * ys[-1].bmm(3.0 * eye - zs[-1].bmm(ys[-1]))
        ctx.save_for_backward(x, j, cov, a, root, trace, *ys, *zs)
        return root * trace.sqrt()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        x, j, cov, a, root, trace, *iterates = ctx.saved_tensors
        ys, zs = iterates[: len(iterates) // 2], iterates[len(iterates) // 2 :]
        eye = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        scale = trace.sqrt()
        trace_grad = (grad * root).sum((1, 2)).view(-1, 1, 1) / (2.0 * scale)
        y_grad, z_grad = grad * scale, torch.zeros_like(grad)
        if ys:
            y, z = ys.pop(), zs.pop()
            yz, zy = y.bmm(z), z.bmm(y)
            z_grad = -0.5 * y.bmm(y_grad).bmm(y)
            y_grad = 0.5 * (y_grad.bmm(3.0 * eye - yz) - zy.bmm(y_grad))
        # The iterates are symmetric; without that every product below would need a transpose.
        while ys:
            y, z = ys.pop(), zs.pop()
            yz, zy = 3.0 * eye - y.bmm(z), z.bmm(y)
            y_grad, z_grad = (
                0.5 * (y_grad.bmm(yz) - z.bmm(z_grad).bmm(z) - zy.bmm(y_grad)),
                0.5 * (yz.bmm(z_grad) - y.bmm(y_grad).bmm(y) - z_grad.bmm(zy)),
            )
        a_grad = 0.5 * (y_grad.bmm(3.0 * eye - a) - z_grad - a.bmm(y_grad))
        trace_grad = trace_grad - (a_grad * cov).sum((1, 2)).view(-1, 1, 1) / trace.square()
        cov_grad = a_grad / trace + trace_grad * eye
        return (cov_grad + cov_grad.mT).bmm(x).bmm(j), None, None


class TextbookReweight2d(nn.Module):
    """One re-weighting block of 3G-Net, convolution by convolution. Its state dict is that of `layers.Reweight2d`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        squeeze_dim = max(dim // 4, 1)
        for name in 'abcde':
            self.add_module(f'conv_{name}', nn.Conv2d(dim, dim, 1, bias=False))
            self.add_module(f'bn_{name}', nn.BatchNorm2d(dim))
        self.squeeze = nn.ModuleDict(
            {
                'conv_f': nn.Conv2d(dim, squeeze_dim, 1, bias=False),
                'bn_f': nn.BatchNorm2d(squeeze_dim),
                'conv_g': nn.Conv2d(squeeze_dim, 1, 1, bias=False),
            }
        )
        self.conv_h = nn.Conv2d(1, 1, 1, bias=False)

    def branch(self, name: str, x: Tensor) -> Tensor:
        """BN(conv(x)) of the branch 'a' to 'e'."""
        return self.get_submodule(f'bn_{name}')(self.get_submodule(f'conv_{name}')(x))

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """X_hat of the block before and the first X, (B, d, H, W) each, to the next X_hat."""
        z = F.relu(self.branch('a', x_hat) * self.branch('b', x_hat) + self.branch('c', x))
        weight = F.relu(self.branch('d', z)) * F.relu(self.branch('e', z))
        squeeze = self.squeeze
        a = squeeze['conv_g'](F.relu(squeeze['bn_f'](squeeze['conv_f'](weight))))
        return torch.sigmoid(a + self.conv_h(a)) * x_hat


class TextbookReweighting(nn.Module):
    """The chain of T textbook blocks with the weights of a pooling `3g`: the same function as its `refine`."""

    def __init__(self, pool: CovPool2d) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TextbookReweight2d(pool.dim) for _ in pool.reweight)
        parameter = next(pool.parameters(), None)
        if parameter is not None:
            self.to(parameter.device, parameter.dtype)
        self.blocks.load_state_dict(pool.reweight.state_dict())
        norms = [m for m in pool.reweight.modules() if isinstance(m, nn.BatchNorm2d)]
        for module in self.blocks.modules():
            if norms and isinstance(module, nn.BatchNorm2d):  # what the state dict does not hold, the same for all of a model
                module.eps, module.momentum = norms[0].eps, norms[0].momentum
        self.train(pool.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, d, H, W) to the same."""
        x_hat = x
        for block in self.blocks:
            x_hat = block(x_hat, x)
        return x_hat


def has_textbook(pool: nn.Module) -> TypeGuard[CovPool2d]:
    """Whether `textbook` and `handwritten` are the function of pool.statistic: a centred covariance, Newton-Schulz steps."""
    return isinstance(pool, CovPool2d) and pool.num_iters > 0 and pool.centered


def has_textbook_reweighting(pool: CovPool2d) -> bool:
    """Whether `TextbookReweighting` is the function of pool.refine: blocks of '3g' without the power, or no blocks."""
    return all(isinstance(block, Reweight2d) and block.beta == 0.0 for block in pool.reweight)


class TextbookPool2d(nn.Module):
    """A pooling of this package in textbook form: its own reduction, then the forms above with its weights and options.

    Under autocast the covariance, the root and the vector run in float32, as in the package: in half precision they would be
    another function. (Under float16 the package also keeps re-weighting and reduction in float32; this form does not.)

    Args:
        pool: a pooling that `has_textbook` and `has_textbook_reweighting`; its reduction is shared, its re-weighting copied.
    """

    def __init__(self, pool: CovPool2d) -> None:
        super().__init__()
        self.reduce = pool.reduce
        self.reweight = TextbookReweighting(pool)
        self.options: dict[str, Any] = {'num_iters': pool.num_iters, 'eps': pool.eps, 'kind': pool.triangle}

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_features, H, W) to (B, out_features)."""
        features = self.reweight(self.reduce(x)).flatten(2)
        with torch.autocast(x.device.type, enabled=False):
            return textbook(features.float(), **self.options).to(x.dtype)
