"""The independent judge of the tests: the published networks and the definitions, in their plainest textbook form.

Nothing here is fast and nothing imports the package under test, nor timm. The two networks are written from a
description of the mathematics (3G-Net, CVPR 2019; fast MPN-COV = iSQRT-COV, CVPR 2018), not from the authors' code.
They carry the authors' state-dict names, so that a file of their weights loads strictly. The numpy functions below are
the same mathematics once more, in float64 and for one image at a time: ``x`` has shape (d, N), N = height * width.
"""

import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

REDUCE_DIM = 256  # d, the channels whose covariance is taken
SQUEEZE_DIM = REDUCE_DIM // 4
NUM_ITERS = 5  # both codes take exactly five Newton-Schulz steps
COV_EPS = 1e-7  # 3G-Net adds 1e-7 I to the covariance; fast MPN-COV adds nothing

# depth: (block, blocks per stage)
_STAGES: dict[int, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    23: (Bottleneck, (1, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}

# depth: (parameters with 1000 classes, state-dict keys) of the 3G network with three re-weighting blocks
_EXPECTED = {
    18: (45_245_547, 242),
    23: (48_338_027, 278),
    34: (55_353_707, 338),
    50: (57_970_283, 440),
    101: (76_962_411, 746),
    152: (92_606_059, 1052),
}


def expected_params(depth: int) -> int:
    """Parameters of the 3G network of this depth, with 1000 classes and three re-weighting blocks."""
    return _EXPECTED[depth][0]


def expected_keys(depth: int) -> int:
    """State-dict keys of the 3G network of this depth, with three re-weighting blocks."""
    return _EXPECTED[depth][1]


# The networks ---------------------------------------------------------------------------------------------------------


def batch_covariance(x: Tensor, eps: float = 0.0) -> Tensor:
    """(B, d, N) -> (B, d, d): X J X^T + eps I, with the explicit N x N centring matrix J = (I - 11^T / N) / N."""
    d, n = x.shape[1], x.shape[2]
    ones = torch.ones(n, n, dtype=x.dtype, device=x.device)
    centring = (torch.eye(n, dtype=x.dtype, device=x.device) - ones / n) / n
    return x @ centring @ x.transpose(1, 2) + eps * torch.eye(d, dtype=x.dtype, device=x.device)


def batch_newton_schulz(cov: Tensor, num_iters: int = NUM_ITERS) -> Tensor:
    """(B, d, d) -> (B, d, d): the coupled iteration, three products a step, on cov / tr, times sqrt(tr) at the end."""
    identity = torch.eye(cov.shape[-1], dtype=cov.dtype, device=cov.device)
    trace = cov.diagonal(dim1=1, dim2=2).sum(dim=1).reshape(-1, 1, 1)
    y = cov / trace
    z = identity.expand_as(cov)
    for _ in range(num_iters):
        t = 0.5 * (3.0 * identity - z @ y)
        y, z = y @ t, t @ z
    return trace.sqrt() * y


def batch_lower(m: Tensor) -> Tensor:
    """(B, d, d) -> (B, d (d + 1) / 2): the lower triangle in row-major order, (0,0), (1,0), (1,1), (2,0), ..."""
    rows, cols = [], []
    for i in range(m.shape[1]):
        for j in range(i + 1):
            rows.append(i)
            cols.append(j)
    return m[:, rows, cols]


def batch_upper(m: Tensor) -> Tensor:
    """(B, d, d) -> (B, d (d + 1) / 2): the upper triangle in row-major order, (0,0), (0,1), ..., (0,d-1), (1,1), ..."""
    rows, cols = [], []
    for i in range(m.shape[1]):
        for j in range(i, m.shape[1]):
            rows.append(i)
            cols.append(j)
    return m[:, rows, cols]


def _stage(block: type[BasicBlock | Bottleneck], inplanes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    """One stage of torchvision's blocks; no dilation, whatever the stride."""
    outplanes = planes * block.expansion
    downsample = None
    if stride != 1 or inplanes != outplanes:
        downsample = nn.Sequential(
            nn.Conv2d(inplanes, outplanes, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outplanes)
        )
    layers: list[nn.Module] = [block(inplanes, planes, stride, downsample)]
    for _ in range(1, blocks):
        layers.append(block(outplanes, planes))
    return nn.Sequential(*layers)


def _init(net: nn.Module) -> None:
    """Kaiming normal (fan_out, relu) for every convolution, BatchNorm 1 and 0, Linear left at PyTorch's default."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class _Backbone(nn.Module):
    """ResNet v1 with the last stage at stride 1 and dilation 1, then the 1x1 reduction to 256 channels."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        block, blocks = _STAGES[depth]
        width = block.expansion
        self.conv1 = nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _stage(block, 64 * width, 128, blocks[1], stride=2)
        self.layer3 = _stage(block, 128 * width, 256, blocks[2], stride=2)
        self.layer4 = _stage(block, 256 * width, 512, blocks[3], stride=1)
        self.layer_reduce = nn.Conv2d(512 * width, REDUCE_DIM, kernel_size=1, bias=False)
        self.layer_reduce_bn = nn.BatchNorm2d(REDUCE_DIM)

    def forward_backbone(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> the output of layer4 (B, 512 or 2048, H / 16, W / 16)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        x = self.layer4(x)
        return x

    def forward_reduce(self, x: Tensor) -> Tensor:
        """The output of layer4 -> X (B, 256, H / 16, W / 16)."""
        return torch.relu(self.layer_reduce_bn(self.layer_reduce(x)))


class AuthorsReweight(nn.Module):
    """One re-weighting block, with the authors' names: 346,817 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.map1, self.bn1 = self._conv(REDUCE_DIM), nn.BatchNorm2d(REDUCE_DIM)  # a
        self.map2, self.bn2 = self._conv(REDUCE_DIM), nn.BatchNorm2d(REDUCE_DIM)  # b
        self.map21, self.bn21 = self._conv(REDUCE_DIM), nn.BatchNorm2d(REDUCE_DIM)  # c
        self.map3, self.bn3 = self._conv(REDUCE_DIM), nn.BatchNorm2d(REDUCE_DIM)  # d
        self.map4, self.bn4 = self._conv(REDUCE_DIM), nn.BatchNorm2d(REDUCE_DIM)  # e
        self.atmap1, self.bnat1 = self._conv(SQUEEZE_DIM), nn.BatchNorm2d(SQUEEZE_DIM)  # f
        self.atmap2 = nn.Conv2d(SQUEEZE_DIM, 1, kernel_size=1, bias=False)  # g
        self.atmap3 = nn.Conv2d(1, 1, kernel_size=1, bias=False)  # h

    @staticmethod
    def _conv(out_channels: int) -> nn.Conv2d:
        return nn.Conv2d(REDUCE_DIM, out_channels, kernel_size=1, bias=False)

    def weight(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """The weight map w (B, 1, H, W) of this block."""
        z = torch.relu(self.bn1(self.map1(x_hat)) * self.bn2(self.map2(x_hat)) + self.bn21(self.map21(x)))
        lam = torch.relu(self.bn3(self.map3(z))) * torch.relu(self.bn4(self.map4(z)))
        a = self.atmap2(torch.relu(self.bnat1(self.atmap1(lam))))
        return torch.sigmoid(a + self.atmap3(a))

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        """X_hat of the previous block and the original X -> X_hat of this block, all (B, 256, H, W)."""
        return self.weight(x_hat, x) * x_hat


class AuthorsNet3G(_Backbone):
    """3G-Net as the authors' code computes it, with their state-dict names."""

    def __init__(self, depth: int, num_classes: int = 1000, num_reweights: int = 3) -> None:
        super().__init__(depth)
        self.num_reweights = num_reweights
        for t in range(1, num_reweights + 1):
            self.add_module(f'AtMp{t}', AuthorsReweight())
        self.fc = nn.Linear(REDUCE_DIM * (REDUCE_DIM + 1) // 2, num_classes)
        _init(self)

    def forward_reweight(self, x: Tensor) -> Tensor:
        """X -> X_hat after all re-weighting blocks, both (B, 256, H, W)."""
        x_hat = x
        for t in range(1, self.num_reweights + 1):
            x_hat = self.get_submodule(f'AtMp{t}')(x_hat, x)
        return x_hat

    def forward_vector(self, x_hat: Tensor) -> Tensor:
        """X_hat -> the 32,896 numbers before the Linear: covariance + 1e-7 I, five steps, LOWER triangle row-major."""
        cov = batch_covariance(x_hat.flatten(2), eps=COV_EPS)
        return batch_lower(batch_newton_schulz(cov))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes)."""
        x_hat = self.forward_reweight(self.forward_reduce(self.forward_backbone(x)))
        logits: Tensor = self.fc(self.forward_vector(x_hat))
        return logits


class AuthorsNetISQRT(_Backbone):
    """fast MPN-COV (iSQRT-COV), with its authors' state-dict names; a constant feature map gives NaN, as in theirs."""

    def __init__(self, depth: int, num_classes: int = 1000) -> None:
        super().__init__(depth)
        self.fc = nn.Linear(REDUCE_DIM * (REDUCE_DIM + 1) // 2, num_classes)
        _init(self)

    def forward_vector(self, x: Tensor) -> Tensor:
        """X -> the 32,896 numbers before the Linear: covariance, five steps, UPPER triangle row-major."""
        cov = batch_covariance(x.flatten(2))
        return batch_upper(batch_newton_schulz(cov))

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> logits (B, num_classes)."""
        logits: Tensor = self.fc(self.forward_vector(self.forward_reduce(self.forward_backbone(x))))
        return logits


def save_legacy(net: nn.Module, path: str | os.PathLike[str], *, wrapped: bool = True, extras: bool = True) -> None:
    """Write the file that a training script of PyTorch 1.0 leaves behind: the old format, not a zip archive.

    ``wrapped``: a dict with ``state_dict``, whose keys begin with ``module.`` (DataParallel), and, with ``extras``,
    also ``epoch``, ``arch``, ``best_prec1`` and ``optimizer``. Otherwise the bare state dict; ``extras`` is ignored.
    """
    content: dict[str, object]
    if wrapped:
        content = {'state_dict': nn.ModuleDict({'module': net}).state_dict()}
        if extras:
            optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4).state_dict()
            last = list(net.parameters())[-1]
            optimizer['state'] = {len(list(net.parameters())) - 1: {'momentum_buffer': torch.zeros_like(last)}}
            content['epoch'] = 115
            content['arch'] = 'resnet50'
            content['best_prec1'] = torch.tensor(78.66)
            content['optimizer'] = optimizer
    else:
        content = net.state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=False)


# Ranges of randomize_. The biases are as often negative as positive and smaller than the signal, so that the images
# differ and the re-weighting maps are neither constant nor saturated (checked to 101 layers, 64 px, normal noise).
_BN_WEIGHT = (0.4, 0.8)
_BN_BIAS = (-0.1, 0.1)
_BN_MEAN = (-0.1, 0.1)
_BN_VAR = (0.5, 1.5)


@torch.no_grad()
def randomize_(net: nn.Module, seed: int) -> None:
    """Give every BatchNorm its own weight, bias, running mean and (positive) running variance, in place.

    Drawn on the CPU in float64 from a generator of its own, so neither the global seed nor the dtype matters.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(size: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(size, generator=generator, dtype=torch.float64)

    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            size = module.num_features
            if module.affine:
                module.weight.copy_(uniform(size, *_BN_WEIGHT))
                module.bias.copy_(uniform(size, *_BN_BIAS))
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.copy_(uniform(size, *_BN_MEAN))
                module.running_var.copy_(uniform(size, *_BN_VAR))


# The definitions, one image at a time, in float64 ---------------------------------------------------------------------


def covariance(x: npt.ArrayLike, centered: bool = True, eps: float = 0.0) -> Array:
    """(1/N) sum_n (x_n - mean)(x_n - mean)^T + eps I; the mean is taken as zero if not ``centered``."""
    x = np.asarray(x, dtype=np.float64)
    d, n = x.shape
    mean = x.sum(axis=1) / n if centered else np.zeros(d)
    total = np.zeros((d, d))
    for position in range(n):
        deviation = x[:, position] - mean
        total += np.outer(deviation, deviation)
    return np.asarray(total / n + eps * np.eye(d))


def newton_schulz_by_eigenvalues(cov: npt.ArrayLike, num_iters: int) -> Array:
    """sqrt(tr) U f_K(lambda / tr) U^T: the iteration as a scalar recursion on each eigenvalue. Zeros if tr is zero.

    Eigenvalues are not clipped: with many steps (tens) one that is below zero by rounding diverges, as it must.
    """
    cov = np.asarray(cov, dtype=np.float64)
    trace = float(np.trace(cov))
    if trace <= 0.0:
        return np.zeros_like(cov)
    eigenvalues, vectors = np.linalg.eigh(cov)
    y = eigenvalues / trace
    z = np.ones_like(y)
    for _ in range(num_iters):
        t = 0.5 * (3.0 - z * y)
        y, z = y * t, z * t
    return np.asarray(np.sqrt(trace) * ((vectors * y) @ vectors.T))


def sqrtm_exact(cov: npt.ArrayLike) -> Array:
    """The exact symmetric square root U sqrt(lambda) U^T; eigenvalues below zero (rounding) count as zero."""
    cov = np.asarray(cov, dtype=np.float64)
    eigenvalues, vectors = np.linalg.eigh(cov)
    return np.asarray((vectors * np.sqrt(np.maximum(eigenvalues, 0.0))) @ vectors.T)


def lower(m: npt.ArrayLike) -> Array:
    """The lower triangle in row-major order, diagonal included: (0,0), (1,0), (1,1), (2,0), ..."""
    m = np.asarray(m, dtype=np.float64)
    entries = []
    for i in range(m.shape[0]):
        for j in range(i + 1):
            entries.append(m[i, j])
    return np.array(entries)


def upper(m: npt.ArrayLike) -> Array:
    """The upper triangle in row-major order, diagonal included: (0,0), (0,1), ..., (0,d-1), (1,1), ..."""
    m = np.asarray(m, dtype=np.float64)
    entries = []
    for i in range(m.shape[0]):
        for j in range(i, m.shape[1]):
            entries.append(m[i, j])
    return np.array(entries)


def robust_covariance(x: Array, beta: float, lam: float, steps: int = 300) -> Array:
    """Minimum over Sigma of (1 - lam) log|Sigma| + mean(u^beta) + lam tr Sigma, x centred, by majorise-minimise."""
    x = x - x.mean(1, keepdims=True)
    sigma = np.eye(len(x))
    for _ in range(steps):
        u = np.einsum('dn,dn->n', x, np.linalg.solve(sigma, x))
        second = (x * (beta * u ** (beta - 1))) @ x.T / x.shape[1]
        values, vectors = np.linalg.eigh(second)
        half = (1 - lam) / (2 * lam)
        sigma = (vectors * (np.sqrt(half**2 + values / lam) - half)) @ vectors.T
    return sigma


def gaussian_embedding(x: npt.ArrayLike) -> Array:
    """[[cov + mean mean^T, mean], [mean^T, 1]] of shape (d + 1, d + 1), block by block (cov is the centred one)."""
    x = np.asarray(x, dtype=np.float64)
    d, n = x.shape
    mean = x.sum(axis=1) / n
    embedding = np.ones((d + 1, d + 1))
    embedding[:d, :d] = covariance(x) + np.outer(mean, mean)
    embedding[:d, d] = mean
    embedding[d, :d] = mean
    return embedding


def signed_sqrt_l2(b: npt.ArrayLike, eps: float) -> Array:
    """y / ||y||_2 with y = sign(b) sqrt(|b| + eps), the norm over all entries; shape kept. Zeros if b is all zeros."""
    b = np.asarray(b, dtype=np.float64)
    y = np.sign(b) * np.sqrt(np.abs(b) + eps)
    norm = np.sqrt((y * y).sum())
    return np.asarray(y / norm) if norm > 0.0 else np.zeros_like(b)


def bcnn_vector(x: npt.ArrayLike, eps: float) -> Array:
    """B-CNN: signed root and l2 of all d^2 entries of X X^T / N, row-major; before any BatchNorm."""
    return signed_sqrt_l2(covariance(x, centered=False), eps).reshape(-1)


def _count_sketch(v: Array, h: IntArray, s: Array, dim: int) -> Array:
    """psi(v)_k = sum of s_i v_i over the channels i with h_i = k."""
    sketch = np.zeros(dim)
    for i in range(len(v)):
        sketch[h[i]] += s[i] * v[i]
    return sketch


def tensor_sketch(
    x: npt.ArrayLike, h1: npt.ArrayLike, s1: npt.ArrayLike, h2: npt.ArrayLike, s2: npt.ArrayLike, dim: int
) -> Array:
    """sum_n irfft(rfft psi_1(x_n) * rfft psi_2(x_n)), of length ``dim``: a sum over positions, not a mean."""
    x = np.asarray(x, dtype=np.float64)
    h1, h2 = np.asarray(h1, dtype=np.int64), np.asarray(h2, dtype=np.int64)
    s1, s2 = np.asarray(s1, dtype=np.float64), np.asarray(s2, dtype=np.float64)
    total = np.zeros(dim)
    for position in range(x.shape[1]):
        first = np.fft.rfft(_count_sketch(x[:, position], h1, s1, dim))
        second = np.fft.rfft(_count_sketch(x[:, position], h2, s2, dim))
        total += np.fft.irfft(first * second, n=dim)
    return total


def cbp_vector(
    x: npt.ArrayLike,
    h1: npt.ArrayLike,
    s1: npt.ArrayLike,
    h2: npt.ArrayLike,
    s2: npt.ArrayLike,
    dim: int,
    eps: float = 0.0,
) -> Array:
    """Compact bilinear pooling: the tensor sketch, then signed root and l2."""
    return signed_sqrt_l2(tensor_sketch(x, h1, s1, h2, s2, dim), eps)
