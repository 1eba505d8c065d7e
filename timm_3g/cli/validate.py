"""`timm-3g validate`: top-1 and top-5 with one crop or ten, in one process or many; the single crop is timm's validate.py."""

import argparse
import os
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import timm
import torch
from timm.utils import init_distributed_device
from torch import Tensor, nn
from tqdm import tqdm

import timm_3g
from timm_3g.data import read_class_map, require_data, require_split
from timm_3g.inference.data_config import data_config
from timm_3g.inference.evaluation_data import make_loader
from timm_3g.inference.model import forward, model_of
from timm_3g.inference.results import Result, append_row, read_rows
from timm_3g.models.loading import require_classifier
from timm_3g.utils.files import require_writable

from ._model_options import add_model_options

EXAMPLE = """timm-3g validate --model resnet50_3g --checkpoint model_best.pth.tar --data-dir imagenet --results-file results.csv
  torchrun --nproc_per_node=4 -m timm_3g validate --model resnet50_3g --checkpoint FILE --data-dir places365 --crops 10"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb: names and meaning as in timm's validate.py, --crops apart."""
    add_model_options(parser)
    parser.add_argument('--pretrained', action='store_true', help="the model's own weights (default without --checkpoint)")
    parser.add_argument('--data-dir', metavar='DIR', help='root of the data set')
    parser.add_argument(
        '--dataset', default='', metavar='NAME', help='wds/, hfds/, hfids/, torch/, tfds/... (default: folder or tar)'
    )
    parser.add_argument('--split', metavar='NAME', help='(default: validation, or the whole folder where there is none)')
    parser.add_argument('--num-samples', type=int, metavar='N', help='size of the split, for streams that do not know it')
    parser.add_argument('--dataset-download', action='store_true', help='allow torch/ and tfds/ to download')
    parser.add_argument(
        '--dataset-trust-remote-code', action='store_true', help="run code of the data set's repository (hfds/)"
    )
    parser.add_argument('--class-map', default='', metavar='FILE', help='class names in the order of their index')
    parser.add_argument('--input-key', metavar='KEY', help='of the images, in data sets with keys')
    parser.add_argument('--input-img-mode', metavar='MODE', help='image mode, e.g. RGB')
    parser.add_argument('--target-key', metavar='KEY', help='of the labels, in data sets with keys')
    parser.add_argument('-b', '--batch-size', type=int, default=256, metavar='N', help='images a step and process (256)')
    parser.add_argument(
        '--crops',
        type=int,
        choices=[1, 10],
        default=1,
        help='10: corners, centre and mirror images; the mean of the ten logits',
    )
    parser.add_argument('--no-prefetcher', action='store_true', help='normalise in the reading processes, not on the device')
    parser.add_argument('--pin-mem', action='store_true', help='pinned memory for the transfer to a GPU')
    parser.add_argument('--seed', type=int, default=42, metavar='N', help='of streams that shuffle (42)')
    parser.add_argument('--results-file', type=Path, metavar='CSV', help='append the results as a row')


def run(args: argparse.Namespace) -> None:
    """Evaluate; the first process prints the result and appends it to --results-file."""
    if args.pretrained and args.checkpoint:
        raise ValueError('--pretrained and --checkpoint name two sets of weights; give one.')
    if not args.data_dir and not args.dataset:
        raise ValueError('Name the data: --data-dir DIR, or --dataset NAME.')
    if args.data_dir and not args.dataset:
        require_data(args.data_dir)
    if args.class_map:
        read_class_map(args.class_map, args.data_dir or '')
    if args.split and args.data_dir and not args.dataset:
        require_split(args.data_dir, args.split)
    args.split = args.split or 'validation'
    if args.results_file:
        require_writable(args.results_file)
        read_rows(args.results_file)  # a file that cannot be appended to is an error now, not after the evaluation
    try:
        result = validate(args)
        if result is not None:
            print(
                f' * Acc@1 {result.top1:.3f} ({result.top1_err:.3f}) Acc@5 {result.top5:.3f} ({result.top5_err:.3f})  '
                f'{result.images} images, {result.crops} crop(s), {result.seconds} s'
            )
            if args.results_file:
                append_row(args.results_file, result)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


@dataclass
class Counts:
    """How many images, and for how many the label was the first or among the first five."""

    images: int = 0
    top1: int = 0
    top5: int = 0

    def add(self, logits: Tensor, target: Tensor) -> None:
        """logits (B, classes), target (B,) of class indices.

        Raises:
            ValueError: logits that are not finite; a label that the model has no class for; images without labels (-1 in some
                data sets).
        """
        finite = logits.isfinite().all(1)
        if not finite.all():
            raise ValueError(
                f'The logits of image {self.images + int((~finite).int().argmax()) + 1} of this process are not finite: the '
                f'weights, or --mean and --std, are damaged, or --amp overflows. No accuracy can be counted.'
            )
        if len(target) and int(target.min()) < 0:
            raise ValueError(f'The data set has class {int(target.min())}: this split has no labels. Name another --split.')
        if len(target) and int(target.max()) >= logits.shape[1]:
            raise ValueError(
                f'The data set has class {int(target.max())}, the model classes 0 to {logits.shape[1] - 1}. Give --num-classes '
                f'and weights that belong to the data, or --class-map.'
            )
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == target[:, None]
        self.images += len(target)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.sum())


def validate(args: argparse.Namespace) -> Result | None:
    """The row of results by the verb's options; None in all processes but the first.

    Every image counts once, whatever the number of processes: timm's sampler repeats images to fill the last batches, here
    each process takes every n-th image instead.
    """
    rank, world = _join(args)
    if torch.cuda.is_available():  # as timm's validate.py
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    device = torch.device(args.device)
    model: Any = model_of(args)
    require_classifier(model)
    config = data_config(args, model)
    loader = make_loader(args, config, device, rank, world)
    start = time.perf_counter()
    counts = evaluate(model, loader, args, show=rank == 0)
    total = _sum(counts, device)
    seconds = time.perf_counter() - start
    if total.images == 0:
        raise ValueError(f'No image in split {args.split!r} of {args.data_dir or args.dataset}.')
    if rank > 0:
        return None
    top1, top5 = (round(100 * hits / total.images, 4) for hits in (total.top1, total.top5))
    cfg = model.pretrained_cfg
    return Result(
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        model=args.model,
        tag='' if args.checkpoint else str(cfg.get('tag') or ''),
        checkpoint=str(args.checkpoint or ''),
        data=' '.join(filter(None, [args.dataset, args.data_dir])),
        split=args.split,
        images=total.images,
        top1=top1,
        top1_err=round(100 - top1, 4),
        top5=top5,
        top5_err=round(100 - top5, 4),
        top1_count=total.top1,
        top5_count=total.top5,
        param_count=sum(p.numel() for p in model.parameters()),
        img_size=config['input_size'][-1],
        crops=args.crops,
        crop_pct=config['crop_pct'],
        crop_mode=config['crop_mode'],
        interpolation=config['interpolation'],
        precision=args.amp_dtype if args.amp else 'float32',
        processes=world,
        device=torch.cuda.get_device_name(device) if device.type == 'cuda' else device.type,
        torch=torch.__version__,
        timm=timm.__version__,
        timm_3g=timm_3g.__version__,
        seconds=round(seconds, 1),
    )


def _join(args: argparse.Namespace) -> tuple[int, int]:
    """Join torchrun's processes, if any: rank and number. args.device becomes this process' own."""
    if int(os.environ.get('WORLD_SIZE', '1')) > 1:
        init_distributed_device(args)
        return args.rank, args.world_size
    return 0, 1


@torch.inference_mode()
def evaluate(model: nn.Module, loader: Any, args: argparse.Namespace, show: bool) -> Counts:
    """Run the model over batches (B, C, H, W), or (B, crops, C, H, W) whose logits are averaged over the crops."""
    counts = Counts()
    with tqdm(loader, desc='validate', unit='batch', disable=not show) as batches:
        for images, target in batches:
            if images.ndim == 5:
                logits = forward(model, images.flatten(0, 1), args)
                logits = logits.float().unflatten(0, (-1, images.shape[1])).mean(1)
            else:
                logits = forward(model, images, args)
            counts.add(logits, target.to(args.device))
            batches.set_postfix_str(f'top-1 {100 * counts.top1 / counts.images:.2f} %')
    return counts


def _sum(counts: Counts, device: torch.device) -> Counts:
    """The counts of all processes together."""
    if not torch.distributed.is_initialized():
        return counts
    numbers = torch.tensor([counts.images, counts.top1, counts.top5], device=device)
    torch.distributed.all_reduce(numbers)
    return Counts(*numbers.tolist())
