"""The images that `validate` evaluates: data set, share of a process, crops."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image
from timm.data import create_dataset, create_loader

from timm_3g.compat import search_split
from timm_3g.data import read_class_map, share, to_corrupted, to_ten_crop
from timm_3g.utils.abbreviated import abbreviated
from timm_3g.utils.options import OptionError

from .data_config import workers_of
from .images import image_mode
from .photograph import forget_postscript
from .processes import Processes
from .validate_options import DEFAULT_SPLIT, ValidateOptions


def make_loader(options: ValidateOptions, config: dict[str, Any], names: Sequence[str], processes: Processes) -> Any:
    """Batches of the images and labels of one process. From then on, Pillow opens no PostScript.

    Args:
        config: see `data_config`.
        names: those that folders of the classes have, by index. They number a folder that has only some of the classes.

    Returns:
        timm's loader, of images (B, C, H, W), with ten crops (B, 10, C, H, W), and class indices (B,).

    Raises:
        ValueError: a folder that is none of the classes, where `names` would number the others anew.
    """
    rank, world, device = processes
    mode, channels = options.input_img_mode or image_mode(config), config['input_size'][0]
    if mode not in Image.MODES or Image.getmodebands(mode) != channels:
        raise OptionError('input_img_mode', f'must be of {channels} channels, as the model takes; got {mode!r}.')
    if options.dataset_download and rank > 0:  # the first process downloads, the others wait
        torch.distributed.barrier()
    forget_postscript()
    if options.split and not options.split_read and rank == 0:
        print(f'timm-3g validate: timm reads all of {options.data_dir}, whatever the split.', file=sys.stderr)
    dataset = _numbered_dataset(options, config, names, say=rank == 0)
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


def _dataset(options: ValidateOptions, config: dict[str, Any], class_map: Mapping[Any, int] | None = None) -> Any:
    try:
        return _create_dataset(options, config, class_map)
    except AssertionError as error:  # what timm raises over a name that it does not know
        raise OptionError('dataset', f'must be a data set that timm knows; got {options.dataset!r}: {error}.') from error
    except ValueError as error:  # what timm raises over a tar file without images
        if not options.of_folder or Path(options.data_dir or '').is_dir():
            raise
        raise ValueError(f'{options.data_dir} has no images that timm finds in a tar file: {error}.') from error
    except ModuleNotFoundError as error:
        raise OptionError('dataset', f'{options.dataset!r} needs a package: pip install {error.name}') from error


def _require_readable_folders(root: str) -> None:
    """Raise OSError for a folder that cannot be read. timm would leave its images out."""

    def refuse(error: OSError) -> NoReturn:
        raise error

    for _ in os.walk(root, onerror=refuse, followlinks=True):  # as timm walks
        pass


def _create_dataset(options: ValidateOptions, config: dict[str, Any], class_map: Mapping[Any, int] | None) -> Any:
    return create_dataset(
        name=options.dataset,
        root=str(options.data_dir) if options.data_dir else None,
        split=options.split_read or DEFAULT_SPLIT,
        search_split=bool(options.split_read),  # else a class of that name would be all that is read
        download=options.dataset_download,
        class_map=class_map,
        num_samples=options.num_samples,
        input_key=options.input_key,
        input_img_mode=options.input_img_mode or image_mode(config),
        target_key=options.target_key,
        trust_remote_code=options.dataset_trust_remote_code,
        seed=options.seed,
    )


def _numbered_dataset(options: ValidateOptions, config: dict[str, Any], names: Sequence[str], say: bool) -> Any:
    """The data set. A class map numbers it, or the names of the classes, where the order of its folders gives other indices."""
    given = read_class_map(options.class_map, str(options.data_dir or '')) if options.class_map else None
    if not options.of_folder:
        return _dataset(options, config, given)
    if Path(options.data_dir or '').is_dir():
        _require_readable_folders(search_split(str(options.data_dir), options.split_read))
    dataset = _dataset(options, config)
    found = getattr(getattr(dataset, 'reader', None), 'class_to_idx', None) or {}
    if given:
        left_out = found.keys() - given.keys()
        if left_out and say:
            print(f'timm-3g validate: {options.class_map} does not name {abbreviated(left_out, 8)}: left out.', file=sys.stderr)
        return _dataset(options, config, given)
    known = {name: index for index, name in enumerate(names)}
    unknown, same = found.keys() - known.keys(), found.keys() & known.keys()
    if len(known) < len(names) or (not unknown and all(found[name] == known[name] for name in same)):
        return dataset
    if not same:
        if known and found and say:
            print(
                f'timm-3g validate: no folder has the name of a class of these weights. {abbreviated(found)} count as classes '
                f'0 to {len(found) - 1}. --class-map names another order.',
                file=sys.stderr,
            )
        return dataset
    if unknown:
        raise ValueError(
            f'{options.data_dir} has folders that are no classes of these weights: {abbreviated(unknown, 8)}. Their classes: '
            f'{abbreviated(names, 8)}. Move the folders, or name the order of the classes with --class-map.'
        )
    return _dataset(options, config, known)
