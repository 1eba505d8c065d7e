"""What the sections on whole networks share: images, a training step, inference."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..bench import Bench
from ..case import Case
from ..forms import inference_of

STEP = 'training step'


def loss_of(model: nn.Module, images: Tensor, target: Tensor, bench: Bench) -> Callable[[], Tensor]:
    """Forward and cross-entropy under autocast."""

    def forward() -> Tensor:
        with bench.autocast():
            return F.cross_entropy(model(images), target)

    return forward


def training_step(model: nn.Module, images: Tensor, target: Tensor, bench: Bench) -> Callable[[], None]:
    """Gradients to None, forward, cross-entropy, backward. No optimizer: it is the same for every head but for its weights."""
    loss = loss_of(model, images, target, bench)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss().backward()

    return step


def inference(model: nn.Module, images: Tensor, bench: Bench) -> Callable[[], object]:
    """One forward under inference_mode and autocast."""
    return inference_of(bench.under_autocast(model), images)


def to_device(model: nn.Module, bench: Bench) -> nn.Module:
    """The model on the device, in the memory layout of the options."""
    return model.to(bench.device, memory_format=_layout(bench))  # type: ignore[call-overload]


def random_images(model: Any, img_size: int | None, bench: Bench) -> tuple[Tensor, Tensor]:
    """Random images (B, C, H, W) and labels (B,), the same on every device."""
    channels, height, width = model.pretrained_cfg['input_size']
    height, width = (img_size, img_size) if img_size else (height, width)
    generator = torch.Generator().manual_seed(0)
    batch = bench.batch_size_model
    images = torch.randn(batch, channels, height, width, generator=generator).to(bench.device)
    target = torch.randint(model.num_classes, (batch,), generator=generator)
    return images.contiguous(memory_format=_layout(bench)), target.to(bench.device)


def network_case(model: str, images: Tensor, bench: Bench, backend: str | None = None) -> Case:
    """The network, its images and how it computes."""
    layout = 'channels_last' if bench.channels_last else 'contiguous'
    return Case.of(model=model, batch=len(images), img_size=images.shape[-1], amp=bench.amp, layout=layout, backend=backend)


def _layout(bench: Bench) -> torch.memory_format:
    return torch.channels_last if bench.channels_last else torch.contiguous_format
