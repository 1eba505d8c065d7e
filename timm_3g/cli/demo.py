"""`timm-3g demo`: the main job in a minute or two on a CPU, on real images that scikit-learn ships (1,797 written digits)."""

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import timm_3g
from timm_3g.training.plot import draw_curves

EXAMPLE = 'timm-3g demo --pools 3g isqrt avg --epochs 6'
MODEL = 'resnet10_mini_3g'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('--pools', nargs='+', default=['3g', 'avg'], metavar='NAME', help='poolings to compare (3g avg)')
    parser.add_argument('--epochs', type=int, default=6, metavar='N', help='epochs for each (6)')
    parser.add_argument('--seed', type=int, default=0, metavar='N', help='of split, weights and order (0)')
    parser.add_argument('--output', type=Path, default=Path('timm_3g_demo.png'), metavar='PNG', help='the picture')


@dataclass
class Result:
    """What one pooling reached: accuracy in percent on the held-out images after each epoch, and the seconds of training."""

    pool: str
    parameters: int
    accuracy: list[float]
    seconds: float


def run(args: argparse.Namespace) -> None:
    """Train once a pooling with the same recipe, print a table, draw the curves."""
    if args.epochs < 1:
        raise ValueError(f'--epochs must be at least 1; got {args.epochs}.')
    for pool in args.pools:  # a wrong name is an error now, not after the first training
        timm.create_model(MODEL, global_pool=pool, device='meta')
    train_x, train_y, test_x, test_y = load_digits(args.seed)
    print(
        f'{len(train_y)} images to train on, {len(test_y)} held out, 10 classes: scikit-learn digits, 8 x 8 enlarged to 32 x 32'
    )
    print(
        f'{MODEL}, AdamW 0.003 cosine, batch 64, {args.epochs} epochs, seed {args.seed}, torch {torch.__version__}, timm',
        end=' ',
    )
    print(f'{timm.__version__}, timm_3g {timm_3g.__version__}, {platform.machine()}, {torch.get_num_threads()} threads')
    results = []
    with tqdm(total=len(args.pools) * args.epochs, unit='epoch', leave=False) as bar:
        for pool in args.pools:
            bar.set_description(pool)
            results.append(train(pool, train_x, train_y, test_x, test_y, args.epochs, args.seed, bar.update))
    print(f'{"pooling":10} {"parameters":>11} {"seconds":>8}   held-out accuracy')
    for result in results:
        top1 = result.accuracy[-1]
        right = round(top1 * len(test_y) / 100)
        print(f'{result.pool:10} {result.parameters:11,} {result.seconds:8.1f}   {top1:.1f} % ({right} of {len(test_y)})')
    curves = {result.pool: result.accuracy for result in results}
    draw_curves({'held-out accuracy, %': curves}, f'{MODEL} on scikit-learn digits', args.output)
    print(f'One seed on {len(test_y)} images ranks nothing; it shows that the pieces work. Curves: {args.output}')


def load_digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits as (N, 1, 32, 32) in about [-1, 1] and labels (N,): training images, labels, held-out images, labels (a fifth)."""
    digits = datasets.load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    x = F.interpolate(x, size=(32, 32), mode='bilinear', align_corners=False)
    y = torch.tensor(digits.target)
    train, test = train_test_split(range(len(y)), test_size=0.2, stratify=digits.target, random_state=seed)
    return x[train], y[train], x[test], y[test]


def train(
    pool: str, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, epochs: int, seed: int, tick: Callable[[], object]
) -> Result:
    """Train MODEL with this pooling; `tick` is called once an epoch."""
    torch.manual_seed(seed)
    model = timm.create_model(MODEL, global_pool=pool, in_chans=1, num_classes=10)
    optimizer = create_optimizer_v2(model, 'adamw', lr=3e-3, weight_decay=0.05)
    scheduler = CosineLRScheduler(optimizer, t_initial=epochs)
    seconds, accuracy = 0.0, []
    for epoch in range(epochs):
        start = time.perf_counter()
        model.train()
        scheduler.step(epoch)
        for batch in torch.randperm(len(y)).split(64):
            if len(batch) > 1:  # BatchNorm cannot train on one image
                loss = F.cross_entropy(model(x[batch]), y[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        seconds += time.perf_counter() - start
        accuracy.append(evaluate(model, test_x, test_y))
        tick()
    return Result(pool, sum(p.numel() for p in model.parameters()), accuracy, seconds)


@torch.inference_mode()
def evaluate(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    return 100 * float((model(x).argmax(1) == y).float().mean())
