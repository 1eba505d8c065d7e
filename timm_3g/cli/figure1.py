"""`timm-3g figure1`: the statistical claim of the 3G paper, measured on a model and images: pictures and CSVs."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from timm_3g.figure1.activations import Activations, Recorder, default_layers
from timm_3g.figure1.chain import measure_chain
from timm_3g.figure1.densities import measure_densities
from timm_3g.figure1.spectra import measure_spectra
from timm_3g.inference.data_config import data_config, workers_of
from timm_3g.inference.images import Images, find_images
from timm_3g.inference.model import forward, model_of
from timm_3g.layers import SecondOrderPool2d
from timm_3g.mggd import check_options
from timm_3g.utils.files import require_writable_folder

from ._model_options import add_weight_options

EXAMPLE = """timm-3g figure1 resnet10_mini_3g.cifar10 cifar10/val
  timm-3g figure1 tf_efficientnet_lite0 --checkpoint efficientnet-lite0.pth photos/ --channels 0 17 300 --output lite0"""

# One place to add a part: it writes its CSV and PNG into the folder and returns lines to print. The first line of its
# docstring is its title.
PARTS: dict[str, Callable[[Activations, argparse.Namespace], list[str]]] = {
    'densities': measure_densities,
    'spectra': measure_spectra,
    'chain': measure_chain,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb: which model and images, and what is fitted."""
    parser.add_argument(
        'model', metavar='MODEL', help='NAME[.TAG], any model of timm; spectra and chain need a pooling of ours'
    )
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='files, folders or glob patterns')
    parser.add_argument('--output', type=Path, default=Path('figure1'), metavar='DIR', help='CSVs and pictures (%(default)s)')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=list(PARTS), help='(default: all)')
    parser.add_argument(
        '--layers',
        nargs='+',
        metavar='MODULE',
        help='whose activations are fitted (default: before and after the last ReLU in front of the pooling)',
    )
    parser.add_argument('--channels', type=int, nargs='+', metavar='N', help='to draw (default: eight, evenly spaced)')
    parser.add_argument('--dim', type=int, default=8, metavar='D', help='channels of a multivariate fit (8)')
    parser.add_argument('--groups', type=int, default=16, metavar='N', help='multivariate fits an image (16)')
    parser.add_argument('--beta', type=float, default=0.5, help='shape of the exact estimator (0.5)')
    parser.add_argument('--lam', type=float, default=1.1, help='lambda of the exact estimator (1.1)')
    parser.add_argument('--num-images', type=int, metavar='N', help='take so many, evenly spaced (default: all)')
    parser.add_argument('-b', '--batch-size', type=int, default=32, metavar='N', help='images a step (32)')
    add_weight_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure part after part; each prints what it found when it is done."""
    check_options(args.beta, args.lam, 'mm')
    for name in ('dim', 'groups', 'num_images', 'batch_size'):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} must be at least 1; got {getattr(args, name)}.')
    if args.output.exists() and not args.output.is_dir():
        raise ValueError(f'--output must be a folder; {args.output} is a file.')
    require_writable_folder(args.output)
    files = find_images(args.images)
    if args.num_images and args.num_images < len(files):
        files = [files[i * len(files) // args.num_images] for i in range(args.num_images)]
    model: Any = model_of(args)
    second_order = isinstance(getattr(model, 'global_pool', None), SecondOrderPool2d)
    skipped = [part for part in args.parts if part != 'densities' and not second_order]
    if len(skipped) == len(args.parts):
        raise ValueError(
            f'{" and ".join(skipped)} need a second-order pooling of ours, which {args.model} does not have; --parts densities '
            f'takes any model.'
        )
    found = collect(model, files, args)
    args.output.mkdir(parents=True, exist_ok=True)
    print(f'{args.model}: {len(found.files)} image{"s" * (len(found.files) > 1)}; layers: {", ".join(found.layers)}')
    for part in args.parts:
        if part in skipped:
            print(f'\n{part}: left out: the model has no second-order pooling.')
            continue
        title = (PARTS[part].__doc__ or '').partition('\n')[0]
        print('\n'.join([f'\n{part}: {title}', *PARTS[part](found, args)]), flush=True)
    print(f'\nCSVs and pictures: {args.output}')


@torch.inference_mode()
def collect(model: nn.Module, files: list[Path], args: argparse.Namespace) -> Activations:
    """Run the images through the model and keep the activations of the layers, and what its pooling sees.

    Raises:
        ValueError: no such module, or one that does not run once; an image that cannot be read; features that are not maps.
    """
    config = data_config(args, model)
    images = Images(files, create_transform(**config, is_training=False), 'RGB' if config['input_size'][0] == 3 else 'L')
    workers = workers_of(args, len(files) // args.batch_size)
    loader = DataLoader(images, args.batch_size, num_workers=workers, collate_fn=list)
    recorder = Recorder(model, args.layers or default_layers(model))
    seen = 0
    with recorder, tqdm(total=len(files), desc='figure1', unit='image', file=sys.stderr) as bar:
        for batch in loader:
            unreadable = [f'{files[i]}: {error}' for i, _, error in batch if error]
            if unreadable:
                raise ValueError(f'{len(unreadable)} of the images cannot be read, the first {unreadable[0]}.')
            pixels: Tensor = torch.stack([image for _, image, _ in batch])
            forward(model, pixels, args)
            seen += len(batch)
            recorder.require(seen)
            bar.update(len(batch))
    return recorder.activations(files)
