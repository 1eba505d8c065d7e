"""Private names of other libraries that this package uses, each with its reason. Nothing else uses a private name.

Every library has its section. `tests/test_compat.py` fails with an instruction when a release changes one of these names.
"""

import torch
from torch import nn

# torch ----------------------------------------------------------------------------------------------------------------

# What torch's own distributions inherit to check parameters, to expand and to sample. torch documents these methods by example
# alone: every distribution in torch.distributions calls them. `mggd.MultivariateGeneralizedGaussian` does so too.
DISTRIBUTION_PROTOCOL = ('_get_checked_instance', '_extended_shape', '_validate_sample', '_validate_args')


def transforms_active() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp and others) is active. torch has no public name for this question."""
    return torch._C._are_functorch_transforms_active()


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether forward hooks or forward pre-hooks are registered. torch can register and remove hooks but not list them."""
    return bool(module._forward_hooks or module._forward_pre_hooks)
