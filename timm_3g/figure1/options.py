"""What `figure1` measures, on which model and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timm_3g.inference import ModelOptions
from timm_3g.mggd import check_options
from timm_3g.utils.options import OptionError, require_at_least


@dataclass(frozen=True)
class Figure1Options(ModelOptions):
    """A model (see `ModelOptions`), images, and what is measured on them.

    Attributes:
        images: files, folders (searched recursively for .png, .jpg, .jpeg) or glob patterns, one or several.
        output: folder of the CSVs and pictures, created if missing.
        parts: which of 'densities', 'spectra' and 'chain'. The last two need a second-order pooling of this package.
        layers: modules whose activations are fitted. None for those before and after the last ReLU before the pooling.
        channels: channels to draw. None for eight, evenly spaced.
        dim: channels of a multivariate fit.
        groups: multivariate fits per image.
        beta, lam: shape and lambda of the exact estimator.
        num_images: take so many of the images, evenly spaced. None for all.
        batch_size: images per step.

    Raises:
        ValueError: a number out of range, or an output that is a file.

    >>> Figure1Options('resnet10_mini_3g.cifar10', 'cifar10/val', parts=['spectra'], device='cpu').beta
    0.5
    >>> Figure1Options('resnet10_mini_3g.cifar10', 'cifar10/val', groups=0)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: groups must be at least 1; got 0.
    """

    images: Path | str | Sequence[Path | str]
    output: Path | str = Path('figure1')
    parts: Sequence[str] = ('densities', 'spectra', 'chain')
    layers: Sequence[str] | None = None
    channels: Sequence[int] | None = None
    dim: int = 8
    groups: int = 16
    beta: float = 0.5
    lam: float = 1.1
    num_images: int | None = None
    batch_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        check_options(self.beta, self.lam, 'mm')
        require_at_least(1, dim=self.dim, groups=self.groups, num_images=self.num_images, batch_size=self.batch_size)
        if Path(self.output).exists() and not Path(self.output).is_dir():
            raise OptionError('output', f'must be a folder; {self.output} is a file.')
