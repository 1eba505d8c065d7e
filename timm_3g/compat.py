"""Every private name of other packages that this package uses, each with its reason. It fails here when upstream changes."""

import argparse
from typing import Any

import torch
from torch import Tensor, nn

# The only hook below autograd, so also for the products of a backward. torch documents it, from this module.
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode


def parser_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options of a parser that somebody else has made (timm's train.py). argparse has no public list with their types.

    >>> parser = argparse.ArgumentParser(add_help=False)
    >>> _ = parser.add_argument('--lr', type=float)
    >>> [(option.dest, option.type.__name__) for option in parser_options(parser)]
    [('lr', 'float')]
    """
    return parser._actions


def count_graph_breaks(model: nn.Module, x: Tensor) -> int:
    """How often torch.compile would leave its graph in one call. torch documents `explain`, in a private module.

    >>> count_graph_breaks(nn.Linear(2, 2), torch.ones(1, 2))
    0
    """
    explained: Any = torch._dynamo.explain(model)(x)
    return explained.graph_break_count
