"""`timm-3g predict`: top-k classes of images, and pictures of what the re-weighting looks at."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from timm_3g.inference.data_config import data_config, workers_of
from timm_3g.inference.images import Images, find_images
from timm_3g.inference.model import forward, model_of
from timm_3g.layers import record_weights
from timm_3g.models.loading import class_names, require_classifier
from timm_3g.utils.terminal import one_line, printable

from ._model_options import add_model_options

EXAMPLE = 'timm-3g predict photo.jpg holidays/ --model resnet10_mini_3g.cifar10 --topk 3 --explain pictures'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb: names as in timm's inference.py."""
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGE',
        help='files, folders (searched to the bottom for .png, .jpg, .jpeg) or glob patterns',
    )
    add_model_options(parser)
    parser.add_argument(
        '--class-map',
        default='',
        metavar='FILE',
        help="class names by index (default: the weights', or class_names.txt beside them)",
    )
    parser.add_argument('--topk', type=int, default=5, metavar='K', help='classes an image (5)')
    parser.add_argument('-b', '--batch-size', type=int, default=32, metavar='N', help='images a step (32)')
    parser.add_argument('--json', action='store_true', help='print JSON, a list with one object an image, and nothing else')
    parser.add_argument(
        '--explain', type=Path, metavar='DIR', help='write a PNG an image: input, re-weighting maps, their product'
    )


@dataclass
class Prediction:
    """What was found in one image: classes with probabilities in descending order, or what failed and why."""

    file: str
    top: list[dict[str, Any]] = field(default_factory=list)
    error: str = ''
    failed: str = ''  # read, classified, drawn


def run(args: argparse.Namespace) -> None:
    """Print what was found.

    Raises:
        ValueError: in the end, if images failed; the others are done then.
    """
    if args.topk < 1:
        raise ValueError(f'--topk must be at least 1; got {args.topk}.')
    files = find_images(args.images)
    predictions = list(predict(args, files))
    if args.json:
        found = [{k: v for k, v in asdict(p).items() if k != 'failed' and (k != 'error' or v)} for p in predictions]
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        width = max(len(printable(p.file)) for p in predictions)
        for p in predictions:
            parts = [f'{printable(top["class"])} {100 * top["probability"]:.1f} %' for top in p.top]
            parts += [f'cannot be {p.failed}: {p.error}'] if p.error else []
            print(f'{printable(p.file):{width}}  {"   ".join(parts)}')
        escaped = sum(printable(p.file) != p.file for p in predictions)
        if escaped:
            print(f'{escaped} of {len(predictions)} file names have characters that are printed as escapes.', file=sys.stderr)
    failed = [p for p in predictions if p.error]
    if failed:
        what = ' or '.join(dict.fromkeys(p.failed for p in failed))
        raise ValueError(f'{len(failed)} of {len(predictions)} images could not be {what}, the first {failed[0].file}.')


@torch.inference_mode()
def predict(args: argparse.Namespace, files: Sequence[Path]) -> Iterator[Prediction]:
    """One prediction a file, in order. Writes the pictures of --explain as it goes."""
    model: Any = model_of(args)
    require_classifier(model)
    config = data_config(args, model)
    names = class_names(model, args.class_map)
    explain = None
    if args.explain:
        from timm_3g.inference.explain import Explainer  # needs matplotlib, an extra

        explain = Explainer(args.explain, files, config['mean'], config['std'])
    images = Images(files, create_transform(**config, is_training=False), 'RGB' if config['input_size'][0] == 3 else 'L')
    workers = workers_of(args, len(files) // args.batch_size)  # none for a handful
    loader = DataLoader(images, args.batch_size, num_workers=workers, collate_fn=list)
    with tqdm(total=len(files), desc='predict', unit='image', disable=len(files) <= args.batch_size, file=sys.stderr) as bar:
        for batch in loader:
            readable = [image for _, image, _ in batch if image is not None]
            results: Iterator[Any] = iter(())
            if readable:
                x = torch.stack(readable)
                with record_weights(model) as maps:
                    logits = forward(model, x, args).float().cpu()
                weights = torch.cat(maps, 1).float().cpu() if maps else x.new_zeros(len(x), 0, 1, 1)
                results = zip(x, logits, weights, strict=True)
            for i, image, error in batch:
                if image is None:
                    yield Prediction(str(files[i]), error=error, failed='read')
                    continue
                pixels, logit, weight = next(results)
                if not logit.isfinite().all():
                    why = 'its logits are not finite. The weights, or --mean and --std, are damaged.'
                    yield Prediction(str(files[i]), error=why, failed='classified')
                    continue
                prediction = Prediction(str(files[i]), top=_top(logit, args.topk, names))
                if explain:
                    try:
                        explain.draw(i, pixels, weight, prediction.top[0])
                    except OSError as error:
                        prediction.error, prediction.failed = one_line(str(error)), 'drawn'
                yield prediction
            bar.update(len(batch))


def _top(logits: Tensor, k: int, names: Sequence[str]) -> list[dict[str, Any]]:
    values, indices = logits.softmax(0).topk(min(k, len(logits)))
    return [{'class': names[i], 'index': i, 'probability': v} for v, i in zip(values.tolist(), indices.tolist(), strict=True)]
