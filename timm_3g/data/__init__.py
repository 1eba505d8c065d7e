"""Image transforms that timm lacks, for training and evaluation, files of class names, and shares of a data set."""

from .augment import ColorPCA as ColorPCA
from .augment import RandomShorterSide as RandomShorterSide
from .augment import install_augmentations as install_augmentations
from .class_map import CLASS_NAMES as CLASS_NAMES
from .class_map import names_in_order as names_in_order
from .class_map import read_class_map as read_class_map
from .corrupt import CORRUPTIBLE as CORRUPTIBLE
from .corrupt import Corrupt as Corrupt
from .corrupt import to_corrupted as to_corrupted
from .share import share as share
from .split import has_splits as has_splits
from .split import reads_folder as reads_folder
from .split import require_data as require_data
from .split import require_split as require_split
from .ten_crop import TenCrop as TenCrop
from .ten_crop import to_ten_crop as to_ten_crop
