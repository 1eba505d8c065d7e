"""Top-1 and top-5 accuracy with one crop or ten, in one process or many. With one crop, the figures of timm's validate.py."""

import json
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import timm
import torch
from torch import Tensor, nn
from tqdm import tqdm

import timm_3g
from timm_3g.models.loading import folder_names, require_classifier
from timm_3g.utils.options import takes_fields_of

from .counts import Counts
from .data_config import data_config
from .evaluation_data import make_loader
from .model import forward, load_model
from .processes import joined
from .results import Evaluation
from .validate_options import ValidateOptions, require_readable


@takes_fields_of(ValidateOptions)
def validate(options: ValidateOptions) -> Evaluation:
    """Evaluate a model on a data set.

    Every image counts once, whatever the number of processes: each process takes every n-th image. (timm's sampler repeats
    images to fill the last batches.) Under torchrun, every process returns the accuracy over all images. A progress bar is
    written to stderr by the first process.

    Args:
        options: the fields of `ValidateOptions`, by position or by name, or one `ValidateOptions`.

    Returns:
        Accuracy in percent, counts, and the settings that determine them.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: an option out of range, missing data or weights, labels that the model has
            no class for, an image that cannot be read, or logits that are not finite.

    >>> import pathlib, tempfile
    >>> from PIL import Image
    >>> import timm_3g
    >>> root = pathlib.Path(tempfile.mkdtemp())
    >>> for name, colour in (('airplane', 'skyblue'), ('automobile', 'red')):
    ...     (root / 'val' / name).mkdir(parents=True)
    ...     Image.new('RGB', (32, 32), colour).save(root / 'val' / name / '0.png')
    >>> found = timm_3g.validate('resnet10_mini_3g.cifar10', root, split='val', workers=0, device='cpu')
    >>> found.images, found.img_size, found.top5_count
    (2, 32, 2)
    """
    require_readable(options)
    with joined(options.torch_device) as processes:
        options = replace(options, device=str(processes.device))
        model: Any = load_model(options)
        require_classifier(model)
        config = data_config(options, model)
        loader = make_loader(options, config, folder_names(model), processes)
        start = time.perf_counter()
        counts = evaluate(model, loader, options, show=processes.rank == 0).over_processes(processes.device)
        seconds = time.perf_counter() - start
    if counts.images == 0:
        raise ValueError(f'No image in split {options.split_read!r} of {options.data_dir or options.dataset}.')
    return _evaluation(options, model, config, counts, processes.world, seconds)


@torch.inference_mode()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], options: ValidateOptions, show: bool) -> Counts:
    """Run the model over batches and count.

    Args:
        batches: images (B, C, H, W), or (B, crops, C, H, W) whose logits are averaged over the crops, and labels (B,).
        show: draw a progress bar.
    """
    counts = Counts()
    with tqdm(batches, desc='validate', unit='batch', disable=not show) as bar:
        for images, target in bar:
            if images.ndim == 5:
                logits = forward(model, images.flatten(0, 1), options)
                logits = logits.float().unflatten(0, (-1, images.shape[1])).mean(1)
            else:
                logits = forward(model, images, options)
            counts.add(logits, target.to(options.torch_device))
            bar.set_postfix_str(f'top-1 {100 * counts.top1 / counts.images:.2f} %')
    return counts


def _evaluation(
    options: ValidateOptions, model: Any, config: dict[str, Any], counts: Counts, processes: int, seconds: float
) -> Evaluation:
    top1, top5 = (round(100 * hits / counts.images, 4) for hits in (counts.top1, counts.top5))
    device = options.torch_device
    return Evaluation(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        model=options.name,
        tag='' if options.checkpoint else str(model.pretrained_cfg.get('tag') or ''),
        checkpoint=str(options.checkpoint or ''),
        data=' '.join(str(part) for part in (options.dataset, options.data_dir) if part),
        split=options.split_read,
        images=counts.images,
        top1=top1,
        top1_err=round(100 - top1, 4),
        top5=top5,
        top5_err=round(100 - top5, 4),
        top1_count=counts.top1,
        top5_count=counts.top5,
        param_count=sum(p.numel() for p in model.parameters()),
        img_size=config['input_size'][-1],
        crops=options.crops,
        crop_pct=config['crop_pct'],
        crop_mode=config['crop_mode'],
        interpolation=config['interpolation'],
        precision=options.amp_dtype if options.amp else 'float32',
        processes=processes,
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type,
        torch=torch.__version__,
        timm=timm.__version__,
        timm_3g=timm_3g.__version__,
        seconds=round(seconds, 1),
        corruption=options.corruption,
        input_size=' '.join(map(str, config['input_size'])),
        mean=' '.join(f'{value:g}' for value in config['mean']),
        std=' '.join(f'{value:g}' for value in config['std']),
        use_ema=options.use_ema,
        gp=options.gp or '',
        model_kwargs=json.dumps(dict(options.model_kwargs), default=repr) if options.model_kwargs else '',
        class_map=str(options.class_map),
        input_img_mode=options.input_img_mode or '',
        input_key=options.input_key or '',
        target_key=options.target_key or '',
        num_samples=options.num_samples,
    )
