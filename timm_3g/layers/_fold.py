"""Fold BatchNorms into the convolutions before them, for inference. `timm.utils.reparameterize_model` uses it."""

from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

from timm_3g.compat import has_forward_hooks


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every child bn* into the child conv* of the same letter, as in eval mode, and put `nn.Identity` in its place.

    A pair is folded only if it is exactly `nn.Conv2d` and `nn.BatchNorm2d` with running statistics and without forward hooks.
    Any other may compute something else: a subclass, a frozen, pruned or normalized module.
    """
    for name in [name for name, _ in module.named_children() if name.startswith('bn')]:
        conv, bn = getattr(module, name.replace('bn', 'conv', 1), None), getattr(module, name)
        if type(conv) is not nn.Conv2d or type(bn) is not nn.BatchNorm2d or bn.running_mean is None or bn.running_var is None:
            continue
        if has_forward_hooks(conv) or has_forward_hooks(bn):
            continue
        conv.weight, conv.bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias
        )
        setattr(module, name, nn.Identity())
