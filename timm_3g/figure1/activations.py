"""What `timm-3g figure1` looks at: activations of some modules, and what goes into and on in a second-order pooling."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.layers import Reduce2d, SecondOrderPool2d, record_weights


@dataclass(frozen=True, eq=False)
class Activations:
    """Of M images, float32, on the CPU.

    Attributes:
        files: the images.
        layers: name of a module -> (M, C, N), its output.
        reduced: (M, d, N), what the re-weighting and the covariance get; empty where there is no second-order pooling.
        maps: (M, T, N), the learned weights w of the T blocks.
        spectrum: (M, k), float64, ascending: eigenvalues of the matrix whose triangle the pooling gives; k = 0 if it is none.
    """

    files: Sequence[Path]
    layers: dict[str, Tensor]
    reduced: Tensor
    maps: Tensor
    spectrum: Tensor


def default_layers(model: nn.Module) -> list[str]:
    """Around the last non-linearity in front of the pooling: its input, where that is a module's output, and its output."""
    pool = getattr(model, 'global_pool', None)
    if isinstance(pool, SecondOrderPool2d) and isinstance(pool.reduce, Reduce2d):
        return ['global_pool.reduce.bn', 'global_pool.reduce']
    return ['forward_features']


class Recorder:
    """A context in which forward passes of the model leave their activations here."""

    def __init__(self, model: Any, layers: Sequence[str]) -> None:
        known = dict(model.named_modules())
        unknown = [name for name in layers if not name or (name not in known and name != 'forward_features')]
        if unknown:
            near = [name for name in known if name and '.' not in name]
            raise ValueError(f'--layers {unknown[0]!r} is no module of the model. Modules at its top: {", ".join(near)}.')
        self.model = model
        self.kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        self.reduced: list[Tensor] = []
        self.maps: list[Tensor] = []
        self.spectrum: list[Tensor] = []

    def __enter__(self) -> 'Recorder':
        modules = dict(self.model.named_modules())
        pool = getattr(self.model, 'global_pool', None)
        triangle: Any = getattr(pool, 'to_vec', None)
        with ExitStack() as stack:  # nothing stays behind if one of these fails
            for name in self.kept:
                if name != 'forward_features':
                    stack.callback(modules[name].register_forward_hook(self._keeper(self.kept[name], name)).remove)
            if isinstance(pool, SecondOrderPool2d):
                stack.callback(pool.register_forward_pre_hook(self._before_pool).remove)
                stack.callback(pool.reduce.register_forward_hook(self._keeper(self.reduced, 'global_pool.reduce')).remove)
                self.live = stack.enter_context(record_weights(pool))
                stack.callback(pool.register_forward_hook(self._after_pool).remove)
                if triangle is not None:
                    stack.callback(triangle.register_forward_pre_hook(self._before_triangle).remove)
            elif 'forward_features' in self.kept:
                stack.callback(self._last_map().register_forward_pre_hook(self._before_pool).remove)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.stack.close()

    def require(self, count: int) -> None:
        """Raise ValueError unless every layer has run once for each of `count` images."""
        for name, kept in self.kept.items():
            rows = sum(map(len, kept))
            if rows != count:
                raise ValueError(
                    f'{name} must run once in a forward pass; it ran {rows / count:g} times. Name others by --layers.'
                )

    def activations(self, files: Sequence[Path]) -> Activations:
        """What was kept, images in order."""
        layers = {name: torch.cat(kept) for name, kept in self.kept.items()}
        count = len(files)
        reduced = torch.cat(self.reduced) if self.reduced else torch.zeros(count, 0, 0)
        maps = torch.cat(self.maps) if self.maps else reduced.new_zeros(count, 0, reduced.shape[-1])
        spectrum = torch.cat(self.spectrum) if self.spectrum else reduced.new_zeros(count, 0)
        return Activations(files, layers, reduced, maps, spectrum)

    def _last_map(self) -> nn.Module:
        """The module that timm pools with."""
        for name in ('global_pool', 'head.global_pool'):
            try:
                return self.model.get_submodule(name)
            except AttributeError:
                continue
        raise ValueError('the model has no global_pool to look in front of; name modules by --layers.')

    def _keeper(self, kept: list[Tensor], name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            kept.append(_positions(output, name))

        return keep

    def _before_pool(self, module: nn.Module, inputs: Any) -> None:
        if 'forward_features' in self.kept:
            self.kept['forward_features'].append(_positions(inputs[0], 'forward_features'))

    def _after_pool(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.live:
            self.maps.append(torch.cat(self.live, 1).flatten(2).float().cpu())
            self.live.clear()

    def _before_triangle(self, module: nn.Module, inputs: Any) -> None:
        self.spectrum.append(torch.linalg.eigvalsh(inputs[0].detach().cpu().double()))


def _positions(output: Any, name: str) -> Tensor:
    """(B, C, H, W) to (B, C, N). Cloned: an activation behind may work in place."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f'{name} must give maps (B, C, H, W) to look at its channels; got {shape}. Name others by --layers.')
    return output.detach().flatten(2).float().cpu().clone()
