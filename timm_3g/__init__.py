"""Second-order (global covariance) pooling for timm: 3G-Net, its family, and every pooling of its paper.

Importing this package registers its models in timm: `import timm, timm_3g; timm.create_model('resnet50_3g')`.
"""

__version__ = '0.1.0'

from timm_3g import models as models

from .layers import create_global_pool as create_global_pool
from .layers import list_pools as list_pools
from .layers import record_weights as record_weights
