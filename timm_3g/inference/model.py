"""The model that options name, and its output in the precision that they name."""

from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from timm_3g.checkpoints import require_sound
from timm_3g.models.loading import create_loaded
from timm_3g.utils.options import OptionError

from .options import AMP_DTYPES, ModelOptions


def load_model(options: ModelOptions) -> nn.Module:
    """The model with its weights, in eval mode, on the device and in the memory layout that the options name.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: no such model or weights file, weights that do not belong to the model,
            or weights that are not finite.

    >>> load_model(ModelOptions('resnet10_mini_3g.cifar10', device='cpu')).num_classes
    10
    """
    model = options.model
    if isinstance(model, str):
        in_chans = options.input_size[0] if options.input_size else None
        model = create_loaded(
            model,
            Path(options.checkpoint) if options.checkpoint else None,
            num_classes=options.num_classes,
            use_ema=options.use_ema,
            options={'in_chans': in_chans, 'global_pool': options.gp, **options.model_kwargs},
        ).eval()
    require_sound(model)
    try:
        model = model.to(options.torch_device)
    except (AssertionError, ModuleNotFoundError) as error:  # a kind of device that this torch was built without
        raise OptionError('device', f'cannot be used: {error}; got {options.device!r}.') from error
    return model.to(memory_format=torch.channels_last) if options.channels_last else model  # type: ignore[call-overload]


def forward(model: nn.Module, images: Tensor, options: ModelOptions) -> Tensor:
    """Logits (B, classes) of images (B, C, H, W), on the device, in the precision and memory layout that the options name.

    Raises:
        ValueError: the network takes images of another size.

    >>> options = ModelOptions('resnet10_mini_3g.cifar10', device='cpu')
    >>> with torch.inference_mode():
    ...     forward(load_model(options), torch.zeros(2, 3, 32, 32), options).shape
    torch.Size([2, 10])
    """
    device = options.torch_device
    images = images.to(device)
    if options.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, AMP_DTYPES[options.amp_dtype]) if options.amp else nullcontext():
        try:
            return model(images)
        except AssertionError as error:  # so timm refuses images of another size
            height, width = images.shape[2:]
            raise ValueError(
                f'The network does not take images of {height} x {width}: {error} If it is built for one size, name that: '
                f'--model-kwargs img_size={height}.'
            ) from error
