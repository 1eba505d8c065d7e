"""The images that `validate` evaluates: data set, share of a process, crops."""

from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader

from timm_3g.data import CLASS_NAMES, read_class_map, share, to_corrupted, to_ten_crop
from timm_3g.utils.options import OptionError

from .data_config import workers_of
from .images import image_mode
from .photograph import forget_postscript
from .processes import Processes
from .validate_options import DEFAULT_SPLIT, ValidateOptions


def make_loader(options: ValidateOptions, config: dict[str, Any], processes: Processes) -> Any:
    """Batches of the images and labels of one process. From then on, Pillow opens no PostScript.

    Class names beside the checkpoint determine the indices of a folder that has only some of the classes.

    Args:
        config: see `data_config`.

    Returns:
        timm's loader, of images (B, C, H, W), with ten crops (B, 10, C, H, W), and class indices (B,).
    """
    rank, world, device = processes
    if options.dataset_download and rank > 0:  # the first process downloads, the others wait
        torch.distributed.barrier()
    forget_postscript()
    dataset: Any = _dataset(options, config, str(options.class_map))
    if not options.class_map and not options.dataset and options.checkpoint:
        beside = Path(options.checkpoint).with_name(CLASS_NAMES)
        if beside.is_file() and _differs(dataset, beside):
            dataset = _dataset(options, config, str(beside))
    if options.dataset_download and rank == 0 and world > 1:
        torch.distributed.barrier()
    dataset = share(dataset, rank, world)
    loader = create_loader(
        dataset,
        input_size=config['input_size'],
        batch_size=options.batch_size,
        use_prefetcher=options.prefetcher,
        interpolation=config['interpolation'],
        mean=config['mean'],
        std=config['std'],
        num_workers=workers_of(options),
        crop_pct=config['crop_pct'],
        crop_mode=config['crop_mode'],
        pin_memory=options.pin_mem,
        device=device,
    )
    if options.corruption:
        dataset.transform = to_corrupted(dataset.transform, options.corruption)
    if options.crops == 10:  # timm's transform, except for the crop
        dataset.transform = to_ten_crop(dataset.transform)
    return loader


def _dataset(options: ValidateOptions, config: dict[str, Any], class_map: str) -> Any:
    try:
        return _create_dataset(options, config, class_map)
    except AssertionError as error:  # what timm raises over a name that it does not know
        raise OptionError('dataset', f'must be a data set that timm knows; got {options.dataset!r}: {error}.') from error


def _create_dataset(options: ValidateOptions, config: dict[str, Any], class_map: str) -> Any:
    return create_dataset(
        name=options.dataset,
        root=str(options.data_dir) if options.data_dir else None,
        split=options.split or DEFAULT_SPLIT,
        download=options.dataset_download,
        class_map=class_map,
        num_samples=options.num_samples,
        input_key=options.input_key,
        input_img_mode=options.input_img_mode or image_mode(config),
        target_key=options.target_key,
        trust_remote_code=options.dataset_trust_remote_code,
        seed=options.seed,
    )


def _differs(dataset: Any, class_map: Path) -> bool:
    """Whether a class map knows all folders of the data set and gives some of them another index than their order."""
    found = getattr(getattr(dataset, 'reader', None), 'class_to_idx', None)
    if not found:
        return False
    kept = read_class_map(class_map)
    return found.keys() <= kept.keys() and any(kept[name] != index for name, index in found.items())
