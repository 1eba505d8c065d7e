"""What `validate` evaluates, and on which data."""

from dataclasses import dataclass
from pathlib import Path

from timm_3g.data import CORRUPTIBLE, Corrupt, has_splits, read_class_map, reads_folder, require_data, require_split
from timm_3g.utils.options import OptionError, require_at_least

from .options import ModelOptions

DEFAULT_SPLIT = 'validation'


@dataclass(frozen=True)
class ValidateOptions(ModelOptions):
    """A model (see `ModelOptions`) and the data it is evaluated on. Names and meaning as in timm's validate.py.

    Attributes:
        data_dir: root of the data set: an ImageFolder, a tar file of one, or what `dataset` takes.
        dataset: a data set of timm: 'wds/', 'hfds/', 'hfids/', 'torch/', 'tfds/' and a name. '' for a folder or tar file.
        split: name of the split. '' for the validation split, or the whole folder if it has no splits.
        num_samples: size of the split, for streams that do not know it.
        dataset_download: let 'torch/' and 'tfds/' download.
        dataset_trust_remote_code: run code of the data set's repository ('hfds/').
        class_map: a file of class names in the order of their index.
        input_key, target_key: of images and labels, in data sets with keys.
        input_img_mode: PIL mode of the images.
        batch_size: images per step and process.
        crops: 1, or 10 for corners, centre and their mirror images, whose logits are averaged.
        prefetcher: normalise on the device, not in the reading processes.
        pin_mem: use pinned memory for the transfer to a GPU.
        seed: of streams that shuffle.
        corruption: of the images, after the crop: 'noise-std0.1', 'blur-std1.0', 'jpeg-q20' or another value (see
            `timm_3g.data.Corrupt`). '' for none.

    Raises:
        ValueError: a number out of range, no such corruption, or no data.

    >>> ValidateOptions('resnet10_mini_3g.cifar10', 'cifar10', crops=10, device='cpu').batch_size
    256
    >>> ValidateOptions('resnet10_mini_3g.cifar10', 'cifar10', crops=5)
    Traceback (most recent call last):
    timm_3g.utils.options.OptionError: crops must be 1 or 10; got 5.
    """

    data_dir: Path | str | None = None
    dataset: str = ''
    split: str = ''
    num_samples: int | None = None
    dataset_download: bool = False
    dataset_trust_remote_code: bool = False
    class_map: Path | str = ''
    input_key: str | None = None
    input_img_mode: str | None = None
    target_key: str | None = None
    batch_size: int = 256
    crops: int = 1
    prefetcher: bool = True
    pin_mem: bool = False
    seed: int = 42
    corruption: str = ''

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(1, batch_size=self.batch_size, num_samples=self.num_samples)
        if self.crops not in (1, 10):
            raise OptionError('crops', f'must be 1 or 10; got {self.crops}.')
        if self.corruption:
            Corrupt(self.corruption)
            if self.input_img_mode not in (None, *CORRUPTIBLE):
                modes = ' or '.join(CORRUPTIBLE)
                raise OptionError('input_img_mode', f'must be {modes} with a corruption; got {self.input_img_mode!r}.')
        if not self.data_dir and self.of_folder:
            raise ValueError('Name the data: a folder or tar file (data_dir), or a data set of timm (dataset).')
        for name in ('num_samples', 'input_key', 'target_key') if self.of_folder else ():
            if getattr(self, name) is not None:
                raise OptionError(name, 'belongs to a data set of timm. Leave it out for a folder or a tar file.')
        if self.dataset.startswith('torch/') and not self.data_dir:
            raise OptionError('data_dir', f'must name the folder that {self.dataset} is in, or downloaded to.')

    @property
    def of_folder(self) -> bool:
        """Whether the data are a folder or tar file of images."""
        return reads_folder(self.dataset)

    @property
    def split_read(self) -> str:
        """The split that is read. '' for all images of a tar file, or of a folder without splits."""
        root = str(self.data_dir)
        whole = self.of_folder and (Path(root).is_file() or not (self.split or has_splits(root)))
        return '' if whole else self.split or DEFAULT_SPLIT


def require_readable(options: ValidateOptions) -> None:
    """Check files and folders before the model is loaded.

    Raises:
        OSError, ValueError: missing data, a missing split, or an invalid class map.
    """
    root = str(options.data_dir or '')
    if options.of_folder:
        require_data(root)
        require_split(root, options.split_read)
    if options.class_map:
        read_class_map(options.class_map, root)
