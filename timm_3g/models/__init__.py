"""timm models. Importing this package registers them. A new network that timm lacks: a file, and an import here."""

from timm_3g.checkpoints import checkpoint_filter_fn as checkpoint_filter_fn

from . import crunet as crunet
from . import gcp_models as gcp_models
from . import googlenet as googlenet
from . import pyramidnet as pyramidnet
from . import resnet_a2 as resnet_a2
from . import resnet_gcp as resnet_gcp
from . import resnet_sort as resnet_sort
from ._head import SecondOrderHead as SecondOrderHead
from ._register import register_second_order as register_second_order
from .backbones import list_backbones as list_backbones
from .gcp import GCP as GCP
from .gcp_models import EfficientNet3G as EfficientNet3G
from .init_reduction import init_reduction as init_reduction
from .resnet_3g import ResNet3G as ResNet3G
