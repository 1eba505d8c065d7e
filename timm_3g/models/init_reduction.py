"""A start of the channel reduction that keeps what a pretrained backbone has learned: principal directions of its features."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from timm_3g.layers import Reduce2d, second_order_pool_of


@torch.no_grad()
def init_reduction(model: nn.Module, loader: Iterable[Any]) -> int:
    """Start the reduction of a second-order pooling as a projection onto principal directions of the features it will see.

    A random 1x1 convolution mixes the channels of a pretrained backbone, and after BatchNorm ReLU sets about half of the
    numbers to 0. This start keeps the covariance of the features along its largest directions. Function, parameters and names
    stay: see `Reduce2d.project`. Call it once, before training, with images to train on, prepared as for training.

    Args:
        model: a network of this package with a reduction, and with pretrained features. Its mode, device and all other
            parameters stay.
        loader: batches of images (B, in_chans, H, W), or tuples and lists that begin with one, as a DataLoader gives them. All
            are read. Together they need more positions than the reduction has channels.

    Returns:
        The number of images that were read.

    Raises:
        TypeError: a batch that is not a tensor and does not begin with one. Nothing has changed then.
        ValueError: the model has no reduction, the loader is empty, or the images have fewer positions than there are
            directions. Nothing has changed then.

    >>> import timm, timm_3g
    >>> model = timm.create_model('gcp', backbone='resnet18', global_pool='isqrt', reduce_dim=16, num_classes=5)
    >>> init_reduction(model, [torch.rand(8, 3, 64, 64) for _ in range(2)])
    16
    >>> weight = model.global_pool.reduce.conv.weight.flatten(1)
    >>> torch.allclose(weight @ weight.T, torch.eye(16), atol=1e-5)
    True
    """
    _, pool = second_order_pool_of(model)
    reduction = None if pool is None else pool.reduce
    if not isinstance(reduction, Reduce2d):
        raise ValueError('The model has no channel reduction. Build it with a second-order pooling and reduce_dim=256.')
    moments, images = _Moments(), 0
    device = reduction.conv.weight.device
    modes = [(module, module.training) for module in model.modules()]
    hook = reduction.register_forward_pre_hook(lambda module, inputs: moments.add(inputs[0]))
    try:
        model.eval()
        for batch in tqdm(loader, desc='principal directions', unit='batch', leave=False):
            x = batch[0] if isinstance(batch, tuple | list) and batch else batch
            if not isinstance(x, Tensor):
                raise TypeError(f'A batch must be a tensor of images, or begin with one; got {type(batch).__name__}.')
            if len(x):
                model(x.to(device))
            images += len(x)
    finally:
        hook.remove()
        for module, training in modes:
            module.training = training
    if moments.count <= reduction.conv.out_channels:
        raise ValueError(
            f'{reduction.conv.out_channels} principal directions need more positions than that; got {moments.count} from '
            f'{images} images. Give more images.'
        )
    reduction.project(moments.mean, moments.covariance())
    return images


class _Moments:
    """Mean and covariance of channels over all positions of all batches, in float64, one batch in memory at a time."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros(())
        self.scatter = torch.zeros(())

    def add(self, x: Tensor) -> None:
        """Features (B, C, H, W). Chan, Golub, LeVeque, 1979: the scatter of two parts from that of each."""
        x = x.double().transpose(0, 1).flatten(1)
        mean = x.mean(1)
        centered = x - mean[:, None]
        scatter, count = centered @ centered.T, x.shape[1]
        if self.count == 0:
            self.mean, self.scatter, self.count = mean, scatter, count
            return
        total, shift = self.count + count, mean - self.mean
        self.scatter = self.scatter + scatter + torch.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def covariance(self) -> Tensor:
        return self.scatter / self.count
