"""Image transforms that the papers need and timm lacks. Beside the tiers: imports torch, torchvision and timm, none of ours."""

from .augment import ColorPCA as ColorPCA
from .augment import RandomShorterSide as RandomShorterSide
from .augment import install_augmentations as install_augmentations
from .share import share as share
from .split import require_split as require_split
from .ten_crop import TenCrop as TenCrop
from .ten_crop import to_ten_crop as to_ten_crop
