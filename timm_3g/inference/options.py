"""Options that validate, predict and figure1 share: which model, where it computes, how its images are prepared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from timm_3g.checkpoints.sound import CROP_MODES
from timm_3g.utils.options import OptionError, require_at_least

AMP_DTYPES = {'float16': torch.float16, 'bfloat16': torch.bfloat16}


@dataclass(frozen=True)
class ModelOptions:
    """Which model, where it computes, and how its images are prepared. What is None is as the model's weights record it.

    Attributes:
        model: a name of timm's registry with its tag (`resnet10_mini_3g.cifar10`), `hf-hub:` or `local-dir:`; without a tag,
            the default tag or `checkpoint`. Or a timm model with its weights, in eval mode, which is moved to `device` and
            `channels_last`.
        checkpoint: a weights file of train.py, of the authors, or safetensors.
        use_ema: load the EMA weights of a checkpoint that has both kinds.
        num_classes: number of classes, checked against the weights.
        gp: name of the global pooling, where neither weights nor model determine it.
        model_kwargs: keyword arguments of the model.
        img_size: height and width of the input.
        input_size: channels, height and width of the input. Overrides img_size.
        crop_pct: size of the crop divided by that of the resized image.
        crop_mode: 'center', 'squash' or 'border'.
        interpolation: of resizing: 'bilinear', 'bicubic' and others of timm.
        mean, std: of the pixels in [0, 1], one number or one per channel.
        workers: processes that read images, at most the number of cores. 0 reads in this process.
        device: None for the model's own if it is a module, else CUDA where there is a GPU, else the CPU.
        amp: compute under autocast in `amp_dtype`.
        amp_dtype: 'float16' or 'bfloat16'.
        channels_last: use the channels_last memory layout.

    Raises:
        ValueError: a number out of range, an unknown name, or options of weights for a model that has its own.

    >>> ModelOptions('resnet10_mini_3g.cifar10', img_size=48, device='cpu').img_size
    48
    >>> ModelOptions('resnet10_mini_3g.cifar10', crop_pct=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: crop_pct must be a positive number; got 0.
    """

    model: str | nn.Module
    _: KW_ONLY
    checkpoint: Path | str | None = None
    use_ema: bool = False
    num_classes: int | None = None
    gp: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    img_size: int | None = None
    input_size: Sequence[int] | None = None
    crop_pct: float | None = None
    crop_mode: str | None = None
    interpolation: str = ''
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    workers: int = 4
    device: str | None = None
    amp: bool = False
    amp_dtype: str = 'float16'
    channels_last: bool = False

    def __post_init__(self) -> None:
        require_at_least(1, img_size=self.img_size)
        require_at_least(0, workers=self.workers, num_classes=self.num_classes)
        if self.crop_pct is not None and not 0 < self.crop_pct < math.inf:
            raise OptionError('crop_pct', f'must be a positive number; got {self.crop_pct}.')
        for name, known in (('crop_mode', CROP_MODES), ('amp_dtype', AMP_DTYPES)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise OptionError(name, f'must be one of {", ".join(known)}; got {value!r}.')
        if self.use_ema and not self.checkpoint:
            raise OptionError('use_ema', 'chooses between the weights of a checkpoint: name one, or leave it out.')
        if isinstance(self.model, nn.Module):
            self._require_ready(self.model)

    def _require_ready(self, model: nn.Module) -> None:
        for name in ('checkpoint', 'num_classes', 'gp', 'model_kwargs'):
            if getattr(self, name):
                raise OptionError(name, 'applies to the name of a model; got a model that has its weights. Leave it out.')
        if not hasattr(model, 'pretrained_cfg'):
            raise OptionError('model', f'must be a model of timm or its name; got {type(model).__name__}.')
        if model.training:
            raise OptionError('model', 'must be in eval mode; got a model in training mode. Call model.eval() first.')

    @property
    def name(self) -> str:
        """The model's name, for results and pictures."""
        if isinstance(self.model, str):
            return self.model
        cfg: Any = self.model.pretrained_cfg
        return str(cfg.get('architecture') or type(self.model).__name__)

    @property
    def torch_device(self) -> torch.device:
        """Where the model computes."""
        if self.device is None and isinstance(self.model, nn.Module):
            return next((tensor.device for tensor in self.model.parameters()), torch.device('cpu'))
        return torch.device(self.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
