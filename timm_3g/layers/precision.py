"""The precision in which the head computes.

float32, float64, bf16 autocast   Reduction and re-weighting follow the caller. Covariance, root and vector are in float32, in
                                  float64 for float64 input and for exact roots (`layers/matrix_root.py`). The result has the
                                  dtype of the features.
fp16 autocast                     The whole head, with the classifier, computes and returns float32. The re-weighting is of
                                  fourth degree in the activations, a covariance of second, and float16 ends at 65504. So it
                                  is with weights in half precision.
weights in half precision         The pooling computes in float32 from the weights as they are. The result has the dtype of the
                                  features and is clamped to its range.
"""

import torch
from torch import Tensor, nn

from timm_3g.compat import has_forward_hooks
from timm_3g.ops import autocast_dtype, is_symbolic, without_autocast


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or unchanged if its dtype is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_float64(x: Tensor) -> Tensor:
    """Return x in float64. Apple's mps devices have no float64: x stays as it is there."""
    return x if x.device.type == 'mps' else x.to(torch.float64)


def classify(classifier: nn.Module, x: Tensor) -> Tensor:
    """Apply the classifier to a pooled vector x (B, D) and return the logits.

    Under fp16 autocast it computes and returns float32: a covariance of finite features can exceed the range of float16.

    >>> classify(torch.nn.Linear(36, 10), torch.rand(2, 36)).shape
    torch.Size([2, 10])
    """
    if autocast_dtype(x) != torch.float16:
        return classifier(x)
    with without_autocast(x):
        wide = in_float32(classifier)
        x = at_least_float32(x)
        return torch.func.functional_call(classifier, wide, (x,)) if wide else classifier(x)


HALF = (torch.float16, torch.bfloat16)


def in_float32(module: nn.Module) -> dict[str, Tensor]:
    """Name -> float32 of the parameters in half precision. Gradients reach the parameters."""
    return {name: p.float() for name, p in module.named_parameters() if p.dtype in HALF}


def computes_in_half(x: Tensor, module: nn.Module) -> bool:
    """Whether features and parameters are in half precision, and neither autocast nor a trace determines the precision."""
    if is_symbolic(x) or torch.jit.is_tracing() or x.dtype not in HALF or autocast_dtype(x) is not None:
        return False
    return has_half_weights(module)


def has_half_weights(module: nn.Module) -> bool:
    """Whether a parameter is in half precision."""
    return any(p.dtype in HALF for p in module.parameters())


class _WithoutHooks(nn.Module):
    """A module without its hooks: they run in the caller."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.forward(x)


def call_in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """module.forward(x) with features, parameters and buffers in float32. Gradients reach the original parameters.

    Buffers that the module changes, such as running statistics, are written back in their own dtype.
    """
    training = module.training
    if not torch.compiler.is_compiling():  # dynamo builds no modules
        module = _WithoutHooks(module)
    elif has_forward_hooks(module):
        return _outside_the_graph(module, x)
    wide = in_float32(module)
    buffers = {name: t for name, t in module.named_buffers() if t.dtype in HALF}
    statistics = {name: t.float() for name, t in buffers.items()}
    y = torch.func.functional_call(module, {**wide, **statistics}, (x.float(),))
    if training:
        with torch.no_grad():
            for name, t in buffers.items():
                t.copy_(statistics[name])
    return y


# torch.compile leaves its graph here. With fullgraph=True and torch.export it raises.
_outside_the_graph = torch.compiler.disable(call_in_float32)


def narrowed(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Return y in dtype. Numbers beyond the range of float16 become its largest, not infinity."""
    if dtype == torch.float16:
        y = y.clamp(-65504.0, 65504.0)
    return y.to(dtype)
