"""timm models. Importing this package registers them. The third of the four tiers: they import layers, not the command line."""

from . import resnet_gcp as resnet_gcp
from ._head import SecondOrderHead as SecondOrderHead
from ._source import read_description as read_description
from ._source import read_record as read_record
from ._source import read_weights as read_weights
from .efficientnet_3g import EfficientNet3G as EfficientNet3G
from .resnet_3g import ResNet3G as ResNet3G
from .resnet_3g import checkpoint_filter_fn as checkpoint_filter_fn
