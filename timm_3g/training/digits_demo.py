"""A minute or two of training on a CPU: a small network on real images that scikit-learn ships (1,797 written digits)."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from timm_3g.utils.files import require_picture
from timm_3g.utils.options import OptionError, require_at_least, takes_fields_of

MODEL = 'resnet10_mini_3g'


@dataclass(frozen=True)
class DemoOptions:
    """The options of `demo`.

    Args:
        pools: names of poolings to compare.
        epochs: of training, for each pooling.
        seed: of split, weights and order.
        output: the picture, a PNG. None draws nothing.

    Raises:
        ValueError: less than one epoch, a negative seed, an unknown pooling.

    >>> DemoOptions(epochs=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: epochs must be at least 1; got 0.
    """

    pools: Sequence[str] = ('3g', 'avg')
    epochs: int = 6
    seed: int = 0
    output: Path | str | None = None

    def __post_init__(self) -> None:
        require_at_least(1, epochs=self.epochs)
        require_at_least(0, seed=self.seed)
        if isinstance(self.pools, str):
            raise OptionError('pools', f'must be a list of names; got {self.pools!r}.')
        if '' in self.pools:
            raise OptionError('pools', "must be names of timm_3g.list_pools(); got ''.")
        for pool in self.pools:  # an unknown name is an error now, not after the first training
            timm.create_model(MODEL, global_pool=pool, device='meta')


@dataclass(frozen=True)
class Result:
    """One pooling: accuracy in percent on the held-out images after each epoch, and the seconds of training."""

    pool: str
    parameters: int
    accuracy: list[float]
    seconds: float


@dataclass(frozen=True)
class DemoReport:
    """Numbers of images to train on and held out, and one result per pooling.

    >>> report = DemoReport(1437, 360, [Result('3g', parameters=719_000, accuracy=[90.0, 95.0], seconds=20.0)])
    >>> report.results[0].accuracy[-1]
    95.0
    """

    train_images: int
    test_images: int
    results: list[Result]


@takes_fields_of(DemoOptions)
def demo(options: DemoOptions) -> DemoReport:
    """Train resnet10_mini_3g once per pooling with the same recipe. Needs the extra `demo` (scikit-learn, matplotlib).

    The recipe: AdamW 0.003, cosine, batch 64, on the CPU.

    Args:
        options: see DemoOptions. Each field may be given by name.

    Returns:
        Accuracy after each epoch, parameters and seconds, per pooling. One seed on 360 images ranks nothing.

    Raises:
        ValueError: less than one epoch, a negative seed, an unknown pooling.
        OSError: the picture cannot be written.
        ModuleNotFoundError: the extra is missing.

    >>> report = demo(pools=[], epochs=1)  # with pools=['3g', 'avg'] it trains a minute or two
    >>> report.train_images, report.test_images
    (1437, 360)
    """
    if options.output:
        from .plot import draw_curves

        require_picture(Path(options.output))
    train_x, train_y, test_x, test_y = load_digits(options.seed)
    results = []
    with tqdm(total=len(options.pools) * options.epochs, unit='epoch', leave=False) as bar:
        for pool in options.pools:
            bar.set_description(pool)
            results.append(_train(pool, train_x, train_y, test_x, test_y, options.epochs, options.seed, bar.update))
    if options.output:
        curves = {result.pool: result.accuracy for result in results}
        draw_curves({'held-out accuracy, %': curves}, f'{MODEL} on scikit-learn digits', Path(options.output))
    return DemoReport(len(train_y), len(test_y), results)


def load_digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The digits of scikit-learn, 8 x 8 enlarged to 32 x 32, a fifth of them held out.

    Returns:
        Images to train on (N, 1, 32, 32), float32 in about [-1, 1], their labels (N,), held-out images, their labels.

    >>> [tuple(t.shape) for t in load_digits(seed=0)]
    [(1437, 1, 32, 32), (1437,), (360, 1, 32, 32), (360,)]
    """
    from sklearn import datasets
    from sklearn.model_selection import train_test_split

    digits = datasets.load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 8 - 1
    x = F.interpolate(x, size=(32, 32), mode='bilinear', align_corners=False)
    y = torch.tensor(digits.target)
    train, test = train_test_split(range(len(y)), test_size=0.2, stratify=digits.target, random_state=seed)
    return x[train], y[train], x[test], y[test]


def _train(
    pool: str, x: Tensor, y: Tensor, test_x: Tensor, test_y: Tensor, epochs: int, seed: int, tick: Callable[[], object]
) -> Result:
    """Train MODEL with this pooling; `tick` is called once per epoch."""
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
        accuracy.append(_top1(model, test_x, test_y))
        tick()
    return Result(pool, sum(p.numel() for p in model.parameters()), accuracy, seconds)


@torch.inference_mode()
def _top1(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Top-1 accuracy in percent."""
    model.eval()
    return 100 * float((model(x).argmax(1) == y).float().mean())
