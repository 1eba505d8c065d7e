"""timm models. Importing this package registers them. The fourth of the five tiers: they import layers, not cli."""

from . import resnet_gcp as resnet_gcp
from ._fetched import arriving_file as arriving_file
from ._fetched import cache_root as cache_root
from ._fetched import fetched_file as fetched_file
from ._fetched import fetched_folder as fetched_folder
from ._head import SecondOrderHead as SecondOrderHead
from ._hub import NETWORK_ERRORS as NETWORK_ERRORS
from ._hub import explain as explain
from ._hub import hub_owner as hub_owner
from ._integrity import CONFIG as CONFIG
from ._integrity import SHA256 as SHA256
from ._integrity import WEIGHTS as WEIGHTS
from ._integrity import check_integrity as check_integrity
from ._integrity import sha256_of as sha256_of
from ._read import read_description as read_description
from ._read import read_key as read_key
from ._read import read_record as read_record
from ._read import read_training as read_training
from ._read import read_weights as read_weights
from ._read import stamp as stamp
from ._source import GOLDEN as GOLDEN
from ._source import is_ours as is_ours
from ._source import is_tag as is_tag
from .efficientnet_3g import EfficientNet3G as EfficientNet3G
from .resnet_3g import ResNet3G as ResNet3G
from .resnet_3g import checkpoint_filter_fn as checkpoint_filter_fn
