"""The model that a command evaluates, and its logits in the precision that the options name."""

import argparse
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from timm_3g.checkpoints import require_sound
from timm_3g.models.loading import create_loaded

from .data_config import check_options


def model_of(args: argparse.Namespace) -> nn.Module:
    """The model in eval mode on args.device, by the options of `add_model_options`, which are checked first."""
    check_options(args)
    model = create_loaded(
        args.model,
        args.checkpoint,
        num_classes=args.num_classes,
        use_ema=args.use_ema,
        options={'in_chans': args.input_size and args.input_size[0], 'global_pool': args.gp, **args.model_kwargs},
    )
    require_sound(model)
    model = model.to(args.device).eval()
    return model.to(memory_format=torch.channels_last) if args.channels_last else model  # type: ignore[call-overload]


def forward(model: nn.Module, images: Tensor, args: argparse.Namespace) -> Tensor:
    """Logits of images (B, C, H, W) in the precision and memory layout that the options name."""
    images = images.to(args.device)
    if args.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if args.amp_dtype == 'bfloat16' else torch.float16
    with torch.autocast(torch.device(args.device).type, dtype) if args.amp else nullcontext():
        return model(images)
