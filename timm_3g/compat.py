"""Private names of other libraries that this package uses, each with its reason. Nothing else uses a private name.

Every library has its section. `tests/test_compat.py` fails with an instruction when a release changes one of these names.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError
from timm.data import ImageDataset, dataset_factory
from timm.data.readers import reader_wds
from timm.models import _features, _hub
from torch import Tensor, nn

# The only hook below autograd, so also for the products of a backward. torch documents it, from this module.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

# torch ----------------------------------------------------------------------------------------------------------------

# What torch's own distributions inherit to check parameters, to expand and to sample. torch documents these methods by example
# alone: every distribution in torch.distributions calls them. `mggd.MultivariateGeneralizedGaussian` does so too.
DISTRIBUTION_PROTOCOL = ('_get_checked_instance', '_extended_shape', '_validate_sample', '_validate_args')


def transforms_active() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp and others) is active. torch has no public name for this question."""
    return torch._C._are_functorch_transforms_active()


def is_legacy_batched(x: Tensor) -> bool:
    """Whether x is a batch in `torch.autograd.grad(is_grads_batched=True)` or `torch.autograd.functional` with vectorize=True.

    These have a vmap of their own, which `transforms_active` does not see. torch has no public name for this question.
    """
    return torch._C._functorch.is_legacy_batchedtensor(x)


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether forward hooks or forward pre-hooks are registered. torch can register and remove hooks but not list them."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def count_graph_breaks(model: nn.Module, x: Tensor) -> int:
    """How often torch.compile would leave its graph in one call. torch documents `explain`, in a private module.

    >>> count_graph_breaks(nn.Linear(2, 2), torch.ones(1, 2))
    0
    """
    explained: Any = torch._dynamo.explain(model)(x)
    return explained.graph_break_count


# timm -----------------------------------------------------------------------------------------------------------------

# The folder of a split in a folder of images, or the whole folder. timm takes the whole folder without a word where a split is
# missing, and has no public function that tells the two apart.
search_split = dataset_factory._search_split


def read_once(dataset: ImageDataset) -> None:
    """Let a data set raise RuntimeError over an image that it cannot read. It would try the ones behind it, ten by default.

    timm's only setting for it is an environment variable that is read when timm is imported.
    """
    dataset._max_retries = 1


def is_unreadable(error: RuntimeError) -> bool:
    """Whether that is what ImageDataset raises over an image that it cannot read. It has no class of its own.

    >>> is_unreadable(RuntimeError('out of memory'))
    False
    """
    return str(error).startswith('Failed to load')


def set_up_stream(reader: Any, on_error: Callable[[Exception], Any]) -> None:
    """Let a webdataset reader of timm call `on_error` over a sample that it cannot read. It would leave the sample out.

    Its pipeline is built in the worker that reads it, and takes its handler from the module then. Other readers stay as they
    are.
    """
    if not isinstance(reader, reader_wds.ReaderWds) or reader.ds is not None:
        return
    before = reader_wds.log_and_continue
    reader_wds.log_and_continue = on_error
    try:
        reader._lazy_init()
    finally:
        reader_wds.log_and_continue = before


# What `features_only=True` wraps a model in that has `forward_intermediates`. timm takes a class of one's own in its place, and
# asks whether it is of this one, but exports the others alone.
FeatureGetterNet: Any = _features.FeatureGetterNet

# The indices that `forward_intermediates` is asked for, as every model of timm reads them, and the last of them.
feature_take_indices: Any = _features.feature_take_indices

# The attribute of a model that `save_for_hf` writes to config.json as `model_args`. timm keeps there what the caller passed to
# create_model. Our models add what settles their function, so that config.json builds the same network. No public setter.
MODEL_ARGS = '_model_args'


def write_timm_config(model: nn.Module, file: Path) -> None:
    """Write config.json of a model as timm does.

    timm's public `save_for_hf` does this, too, but always writes the weights with it, and without the header that records which
    function they belong to. The weights would be written twice.
    """
    _hub.save_config_for_hf(model, str(file))


# huggingface_hub ------------------------------------------------------------------------------------------------------

# The base of the errors of the HTTP library below the Hub's client, which it lets pass while the network fails. The library is
# requests before huggingface_hub 1.0 and httpx since.
HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]


# argparse -------------------------------------------------------------------------------------------------------------


def parser_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of a parser that somebody else has made (timm's train.py). argparse has no public list with their types.

    >>> parser = argparse.ArgumentParser(add_help=False)
    >>> _ = parser.add_argument('--lr', type=float)
    >>> [(option.dest, option.type.__name__) for option in parser_options(parser)]
    [('lr', 'float')]
    """
    return parser._actions
