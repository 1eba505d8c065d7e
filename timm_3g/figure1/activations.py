"""Activations of modules of a model, and what happens inside its second-order pooling."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from timm_3g.layers import Reduce2d, record_weights, second_order_pool_of
from timm_3g.utils.options import OptionError


@dataclass(frozen=True, eq=False)
class Activations:
    """Activations of M images: float32 on the CPU.

    Attributes:
        files: the images.
        layers: name of a module -> (M, C, N), its output.
        reduced: (M, d, N), the input of re-weighting and covariance. (M, 0, 0) without a second-order pooling.
        maps: (M, T, N), the re-weighting maps w of the T blocks. T = 0 without re-weighting.
        spectrum: (M, k), float64, ascending: eigenvalues of the matrix whose triangle the pooling returns. k = 0 if it returns
            no triangle.
    """

    files: Sequence[Path]
    layers: dict[str, Tensor]
    reduced: Tensor
    maps: Tensor
    spectrum: Tensor


def default_layers(model: nn.Module) -> list[str]:
    """The modules before and after the last non-linearity before the pooling. 'forward_features' for a model of another kind.

    >>> import timm, timm_3g
    >>> default_layers(timm.create_model('resnet10_mini_3g'))
    ['global_pool.reduce.bn', 'global_pool.reduce']
    """
    path, pool = second_order_pool_of(model)
    if pool is not None and isinstance(pool.reduce, Reduce2d):
        return [f'{path}.reduce.bn', f'{path}.reduce']
    return ['forward_features']


class Recorder:
    """A context in which forward passes of the model record their activations.

    Args:
        model: a model of timm.
        layers: names of modules, and 'forward_features' for the input of the pooling.

    Raises:
        ValueError: no such module; on entry, a model without a global pooling.

    >>> import timm, timm_3g
    >>> model = timm.create_model('resnet10_mini_3g', reduce_dim=8).eval()
    >>> with torch.no_grad(), Recorder(model, ['layer4']) as recorder:
    ...     _ = model(torch.zeros(2, 3, 32, 32))
    >>> found = recorder.activations([Path('a.png'), Path('b.png')])
    >>> found.layers['layer4'].shape, found.reduced.shape, found.maps.shape, found.spectrum.shape
    (torch.Size([2, 128, 64]), torch.Size([2, 8, 64]), torch.Size([2, 3, 64]), torch.Size([2, 8]))
    """

    def __init__(self, model: Any, layers: Sequence[str]) -> None:
        known = dict(model.named_modules())
        unknown = [name for name in layers if not name or (name not in known and name != 'forward_features')]
        if unknown:
            near = [name for name in known if name and '.' not in name]
            raise OptionError(
                'layers', f'must name modules of the model; got {unknown[0]!r}. Its top modules are {", ".join(near)}.'
            )
        self.model = model
        self.kept: dict[str, list[Tensor]] = {name: [] for name in layers}
        self.reduced: list[Tensor] = []
        self.maps: list[Tensor] = []
        self.spectrum: list[Tensor] = []

    def __enter__(self) -> 'Recorder':
        modules = dict(self.model.named_modules())
        path, pool = second_order_pool_of(self.model)
        triangle: Any = getattr(pool, 'to_vec', None)
        with ExitStack() as stack:  # if one of these fails, all hooks are removed
            for name in self.kept:
                if name != 'forward_features':
                    stack.callback(modules[name].register_forward_hook(self._keeper(self.kept[name], name)).remove)
            if pool is not None:
                stack.callback(pool.register_forward_pre_hook(self._before_pool).remove)
                stack.callback(pool.reduce.register_forward_hook(self._keeper(self.reduced, f'{path}.reduce')).remove)
                self.live_maps = stack.enter_context(record_weights(pool))
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
                    f'The layer {name} must run once per forward pass; it ran {rows / count:g} times. Choose other layers.'
                )

    def activations(self, files: Sequence[Path]) -> Activations:
        """Everything recorded, images in order."""
        layers = {name: torch.cat(kept) for name, kept in self.kept.items()}
        count = len(files)
        reduced = torch.cat(self.reduced) if self.reduced else torch.zeros(count, 0, 0)
        maps = torch.cat(self.maps) if self.maps else reduced.new_zeros(count, 0, reduced.shape[-1])
        spectrum = torch.cat(self.spectrum) if self.spectrum else reduced.new_zeros(count, 0)
        return Activations(files, layers, reduced, maps, spectrum)

    def _last_map(self) -> nn.Module:
        """timm's global pooling."""
        for name in ('global_pool', 'head.global_pool'):
            try:
                return self.model.get_submodule(name)
            except AttributeError:
                continue
        raise ValueError('The model has no global_pool, whose input would be recorded. Choose layers.')

    def _keeper(self, kept: list[Tensor], name: str) -> Any:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            kept.append(_positions(output, name))

        return keep

    def _before_pool(self, module: nn.Module, inputs: Any) -> None:
        if 'forward_features' in self.kept:
            self.kept['forward_features'].append(_positions(inputs[0], 'forward_features'))

    def _after_pool(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.live_maps:
            self.maps.append(torch.cat(self.live_maps, 1).flatten(2).float().cpu())
            self.live_maps.clear()

    def _before_triangle(self, module: nn.Module, inputs: Any) -> None:
        self.spectrum.append(torch.linalg.eigvalsh(inputs[0].detach().cpu().double()))


def _positions(output: Any, name: str) -> Tensor:
    """(B, C, H, W) to (B, C, N). Cloned, since the next activation may work in place."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f'The layer {name} must return feature maps (B, C, H, W); got {shape}. Choose other layers.')
    return output.detach().flatten(2).float().cpu().clone()
