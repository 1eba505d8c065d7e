"""The images that `validate` evaluates: data set, share of a process, crops."""

import argparse
from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader

from timm_3g.data import CLASS_NAMES, read_class_map, share, to_ten_crop

from .data_config import workers_of
from .photograph import forget_postscript


def make_loader(args: argparse.Namespace, config: dict[str, Any], device: torch.device, rank: int, world: int) -> Any:
    """Batches of this process' images and labels, by the options of `validate`."""
    if args.dataset_download and rank > 0:  # the first process downloads, the others wait and find it
        torch.distributed.barrier()
    forget_postscript()
    dataset: Any = _dataset(args, config, args.class_map)
    if not args.class_map and not args.dataset and args.checkpoint and _in_other_order(dataset, args.checkpoint):
        dataset = _dataset(args, config, str(args.checkpoint.with_name(CLASS_NAMES)))
    if args.dataset_download and rank == 0 and world > 1:
        torch.distributed.barrier()
    dataset = share(dataset, rank, world)
    loader = create_loader(
        dataset,
        input_size=config['input_size'],
        batch_size=args.batch_size,
        use_prefetcher=not args.no_prefetcher,
        interpolation=config['interpolation'],
        mean=config['mean'],
        std=config['std'],
        num_workers=workers_of(args),
        crop_pct=config['crop_pct'],
        crop_mode=config['crop_mode'],
        pin_memory=args.pin_mem,
        device=device,
    )
    if args.crops == 10:  # what timm built, but for the crop
        dataset.transform = to_ten_crop(dataset.transform)
    return loader


def _dataset(args: argparse.Namespace, config: dict[str, Any], class_map: str) -> Any:
    return create_dataset(
        name=args.dataset,
        root=args.data_dir,
        split=args.split,
        download=args.dataset_download,
        class_map=class_map,
        num_samples=args.num_samples,
        input_key=args.input_key,
        input_img_mode=args.input_img_mode or ('RGB' if config['input_size'][0] == 3 else 'L'),
        target_key=args.target_key,
        trust_remote_code=args.dataset_trust_remote_code,
        seed=args.seed,
    )


def _in_other_order(dataset: Any, checkpoint: Path) -> bool:
    """Whether the class names kept beside a checkpoint give the classes of these folders other indices than their order."""
    beside = checkpoint.with_name(CLASS_NAMES)
    found = getattr(getattr(dataset, 'reader', None), 'class_to_idx', None)
    if not found or not beside.is_file():
        return False
    kept = read_class_map(beside)
    return found.keys() <= kept.keys() and any(kept[name] != index for name, index in found.items())
