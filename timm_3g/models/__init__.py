"""timm models, one architecture per file. Importing this package registers them. They import checkpoints and layers."""

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn

from . import resnet_gcp as resnet_gcp
from ._head import SecondOrderHead as SecondOrderHead
from ._register import register_second_order as register_second_order
from .efficientnet_3g import EfficientNet3G as EfficientNet3G
from .resnet_3g import ResNet3G as ResNet3G
