"""What precision the head computes in.

float32, float64, bf16 autocast   reduction and re-weighting as the caller computes; covariance, root and vector in float32
                                  (float64 for float64 input, and wherever the root is exact: see `layers/matrix_root.py`);
                                  result in the dtype of the caller's features
fp16 autocast                     the whole head, classifier included, computes and returns float32: the re-weighting is of
                                  fourth degree in the activations and a covariance of second, and float16 ends at 65504
weights in half precision         the pooling computes in float32, from its weights as they are, and returns the dtype of the
                                  features, clamped to its range
"""

import torch
from torch import Tensor, nn

from timm_3g.ops import autocast_dtype, is_symbolic, without_autocast


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in its own dtype if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_float64(x: Tensor) -> Tensor:
    """x in float64, or as it is on Apple's mps devices, which have none."""
    return x if x.device.type == 'mps' else x.to(torch.float64)


def classify(classifier: nn.Module, x: Tensor) -> Tensor:
    """classifier(x); under fp16 autocast in float32, since a covariance vector from finite features can exceed float16."""
    if autocast_dtype(x) != torch.float16:
        return classifier(x)
    with without_autocast(x):
        return classifier(at_least_float32(x))


HALF = (torch.float16, torch.bfloat16)


def computes_in_half(x: Tensor, module: nn.Module) -> bool:
    """Whether features and parameters are in half precision, and neither autocast nor a trace settles the precision."""
    if is_symbolic(x) or torch.jit.is_tracing() or x.dtype not in HALF or autocast_dtype(x) is not None:
        return False
    return any(p.dtype in HALF for p in module.parameters())


class _WithoutHooks(nn.Module):
    """A module whose hooks have run already, or will."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module.forward(x)


def call_in_float32(module: nn.Module, x: Tensor) -> Tensor:
    """module.forward(x) with features, parameters and buffers in float32; gradients reach the parameters as they are.

    What the module writes into its buffers (running statistics) is written into its own.
    """
    training = module.training
    if not torch.compiler.is_compiling():  # dynamo builds no modules
        module = _WithoutHooks(module)
    wide = {name: t.float() for name, t in module.named_parameters() if t.dtype in HALF}
    buffers = {name: t for name, t in module.named_buffers() if t.dtype in HALF}
    statistics = {name: t.float() for name, t in buffers.items()}
    y = torch.func.functional_call(module, {**wide, **statistics}, (x.float(),))
    if training:
        with torch.no_grad():
            for name, t in buffers.items():
                t.copy_(statistics[name])
    return y


def narrowed(y: Tensor, dtype: torch.dtype) -> Tensor:
    """y in dtype; a number that float16 cannot hold becomes its largest, not an infinity."""
    if dtype == torch.float16:
        y = y.clamp(-65504.0, 65504.0)
    return y.to(dtype)
