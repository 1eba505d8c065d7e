"""Pictures of the re-weighting maps: the input, each map w over it, and their product."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from timm_3g.utils.files import is_own_picture, require_writable_folder, save_figure

FLAT = 0.05  # range of the colour scale at least
LONGEST = 200  # bytes of a file's stem: names of 255 are the limit of file systems


class Explainer:
    """Writes one PNG per image into a folder: NAME.explain.png, with a number where names repeat.

    Args:
        folder: created if missing.
        files: all images of the run, in order.
        mean, std: what the pixels were normalised with.

    Raises:
        OSError: the folder cannot be written.
        ValueError: a picture would overwrite one of the images, or a file that no earlier run wrote.

    >>> import tempfile
    >>> explainer = Explainer(Path(tempfile.mkdtemp()), [Path('cat.jpg')], mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    >>> explainer.draw(0, torch.zeros(3, 32, 32), torch.rand(3, 8, 8), 'cat 98.0 %').name
    'cat.explain.png'
    """

    def __init__(self, folder: Path, files: Sequence[Path], mean: Sequence[float], std: Sequence[float]) -> None:
        require_writable_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.outputs: list[Path] = []
        taken, given = {file.resolve() for file in files}, set()
        for i, file in enumerate(files):
            stem = os.fsencode(file.stem)[:LONGEST].decode(errors='ignore')
            output = folder / f'{stem}.explain.png'
            output = folder / f'{stem}.explain-{i}.png' if output in given else output
            if output.resolve() in taken or output in given:
                raise ValueError(
                    f'{output} would overwrite one of the images, or be written twice. Choose another explain folder.'
                )
            if os.path.lexists(output) and not is_own_picture(output):
                raise ValueError(f'{output} exists and is not a picture of an earlier run. Choose another explain folder.')
            self.outputs.append(output)
            given.add(output)
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def draw(self, i: int, image: Tensor, maps: Tensor, title: str) -> Path:
        """Draw the picture of file i.

        Each map is drawn at its own resolution, one cell per position, with its own colour scale. The scale spans FLAT at
        least, so that a map that varies little looks flat. The range of the map is written above it.

        Args:
            image: (C, H, W), as the model got it.
            maps: (T, h, w) in [0, 1].
            title: above the input.

        Returns:
            The file.

        Raises:
            ValueError: no maps: a pooling without re-weighting.
        """
        if len(maps) == 0:
            raise ValueError(
                "explain draws re-weighting maps, and this model has none. Models with global_pool '3g' have them."
            )
        pixels = (image * self.std + self.mean).clamp(0, 1).permute(1, 2, 0).numpy()
        grey = pixels.mean(2)
        panels = [(f'block {t}: w', w) for t, w in enumerate(maps, start=1)]
        panels.append(('product of all', maps.prod(0)))
        figure = Figure(figsize=(3.0 * (len(panels) + 1), 3.6), layout='constrained')
        axes = figure.subplots(1, len(panels) + 1)
        axes[0].imshow(pixels if pixels.shape[2] == 3 else grey, cmap='gray', interpolation='nearest')
        axes[0].set_title(title, fontsize=9, parse_math=False)  # a class name may hold a $
        height, width = grey.shape
        for axis, (name, shown_map) in zip(axes[1:], panels, strict=True):
            low, high = float(shown_map.min()), float(shown_map.max())
            axis.imshow(grey, cmap='gray', interpolation='nearest')
            shown = axis.imshow(
                shown_map.numpy(),
                cmap='viridis',
                alpha=0.65,
                interpolation='nearest',
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
                vmin=min(low, high - FLAT),
                vmax=high,
            )
            axis.set_title(f'{name}\n{low:.3f} to {high:.3f}', fontsize=9)
            figure.colorbar(shown, ax=axis, shrink=0.75).ax.ticklabel_format(useOffset=False)
        for axis in axes:
            axis.set_axis_off()
        output = self.outputs[i]
        save_figure(figure, output)
        return output
