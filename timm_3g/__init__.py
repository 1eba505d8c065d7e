"""Second-order (global covariance) pooling for timm: 3G-Net, its family, and every pooling of its paper.

Importing this package registers its models in timm:

>>> import timm, timm_3g
>>> timm.create_model('resnet10_mini_3g', num_classes=2).head_hidden_size
2080

What the command line does, Python can do: `validate`, `predict`, `export`, `publish`, `get`, `benchmark`.
"""

__version__ = '0.1.0'

from . import models as models
from .benchmarks import benchmark as benchmark
from .inference import predict as predict
from .inference import validate as validate
from .layers import create_global_pool as create_global_pool
from .layers import list_pools as list_pools
from .layers import record_weights as record_weights
from .models import init_reduction as init_reduction
from .models import list_backbones as list_backbones
from .publishing import export as export
from .publishing import get as get
from .publishing import publish as publish
