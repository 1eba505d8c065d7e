"""Every private name of another library that this package uses, with its reason. tests/test_compat.py checks each of them."""

from huggingface_hub.errors import HfHubHTTPError
from timm.data import dataset_factory
from timm.models import _efficientnet_builder

# timm -------------------------------------------------------------------------------------------------------------------

# The folder of a split in a folder of images, or the whole folder. timm takes the whole folder without a word where a split is
# missing, and has no public function that tells the two apart.
search_split = dataset_factory._search_split

# The blocks of an EfficientNet in timm's notation, as its class takes them. The entry points of timm's models alone call it.
decode_arch_def = _efficientnet_builder.decode_arch_def

# The attribute of a model that `save_for_hf` writes to config.json as `model_args`. timm keeps there what the caller passed to
# create_model. Our models add what settles their function, so that config.json builds the same network. No public setter.
MODEL_ARGS = '_model_args'

# huggingface_hub --------------------------------------------------------------------------------------------------------

# The base of the errors of the HTTP library below the Hub's client, which it lets pass while the network fails. The library is
# requests before huggingface_hub 1.0 and httpx since.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]
