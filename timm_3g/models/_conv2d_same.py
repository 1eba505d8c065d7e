"""A convolution with TensorFlow's padding that torch.fx can trace."""

import torch
from timm.layers import Conv2dSame, conv2d_same
from torch import Tensor

torch.fx.wrap('conv2d_same')


class TraceableConv2dSame(Conv2dSame):
    """timm's Conv2dSame as one node for torch.fx: the padding depends on the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same with out_channels and the stride's size."""
        return conv2d_same(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
