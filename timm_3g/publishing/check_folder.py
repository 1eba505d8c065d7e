"""Check an exported folder: its SHA-256, its weights and its golden logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load
from torch import Tensor, nn

from timm_3g.checkpoints import CONFIG, GOLDEN, WEIGHTS, require_pixels, require_sound

from .folder import ExportFolder, open_folder, require_own_files
from .run_files import RUN_FILES

# Tolerance for golden logits from another machine or release: float32 through a network.
GOLDEN_RTOL, GOLDEN_ATOL = 1e-3, 1e-4


@torch.no_grad()
def check_folder(folder: ExportFolder) -> nn.Module:
    """The model in an exported folder, in eval mode, after its sha256 and its golden logits were compared.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the folder is damaged, or the golden input gives other logits.
    """
    try:
        net: Any = timm.create_model(f'local-dir:{folder.path}', pretrained=True).eval()
        require_sound(net)
        require_pixels(net.pretrained_cfg)
        _require_fitting(net, folder.path / CONFIG)
        golden = load(folder.files[GOLDEN])
        _require_golden(golden, net, folder.path / GOLDEN)
        same = torch.allclose(net(golden['input']), golden['logits'], GOLDEN_RTOL, GOLDEN_ATOL)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever timm, safetensors and torch raise over damaged or foreign files
        raise ValueError(f'{folder.path} is damaged: {type(error).__name__}: {error}. Export it again.') from error
    if not same:
        raise ValueError(f'{folder.path}: the golden input gives other logits than {GOLDEN} has. Export it again.')
    return net


def _require_fitting(net: Any, file: Path) -> None:
    """Raise ValueError where config.json does not fit the network: nobody could predict with it, or train it further."""
    cfg = net.pretrained_cfg
    names = cfg.get('label_names')
    if names and len(names) != net.num_classes:
        raise ValueError(f'{file} has {len(names)} label_names for {net.num_classes} classes. Correct it, or export again.')
    for name in ('mean', 'std'):
        values = cfg.get(name)
        if isinstance(values, list | tuple) and len(values) not in (1, cfg['input_size'][0]):
            channels = cfg['input_size'][0]
            raise ValueError(f'{file} has a {name} of {len(values)} channels for {channels}. Correct it, or export again.')
    if cfg.get('classifier') not in dict(net.named_modules()):
        raise ValueError(f'{file} names a classifier that the network lacks: {cfg.get("classifier")!r:.80}. Export again.')


def open_checked(path: Path) -> tuple[ExportFolder, nn.Module]:
    """Open and check a folder whose files will be published.

    Raises:
        ValueError, OSError: see `require_own_files`, `open_folder` and `check_folder`, or a file changed meanwhile.
    """
    require_own_files(path)
    before = _states(path)
    folder = open_folder(path)
    net = check_folder(folder)
    after = _states(path)
    for name in (name for name in before if before[name] != after[name]):
        raise ValueError(f'{path / name} was changed while it was checked. Nothing was pushed. Run the command again.')
    return folder, net


def _states(path: Path) -> dict[str, tuple[int, ...] | None]:
    """What changes when somebody writes to a file: which file it is, its size and its time."""
    files = {name: path / name for name in (WEIGHTS, CONFIG, GOLDEN, *RUN_FILES)}
    stats = {name: file.stat() if file.exists() else None for name, file in files.items()}
    return {name: (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns) if s else None for name, s in stats.items()}


def _require_golden(golden: Mapping[str, Tensor], net: Any, file: Path) -> None:
    """Raise ValueError unless the pair is one image of the model's size, with as many logits as the model has outputs."""
    if golden.keys() != {'input', 'logits'}:
        raise ValueError(
            f'{file} must hold input and logits, and nothing else; got {", ".join(sorted(golden)):.80}. '
            'Export the folder again.'
        )
    image, logits = golden['input'], golden['logits']
    outputs = net.num_classes or net.head_hidden_size
    size = tuple(net.pretrained_cfg['input_size'])
    shapes = tuple(image.shape) == (1, *size) and tuple(logits.shape) == (1, outputs)
    finite = image.dtype == logits.dtype == torch.float32 and bool(image.isfinite().all() and logits.isfinite().all())
    if not shapes or not finite:
        raise ValueError(
            f'{file} must hold finite float32 numbers, input (1, {", ".join(map(str, size))}) and logits (1, {outputs}); got '
            f'{image.dtype} {tuple(image.shape)} and {logits.dtype} {tuple(logits.shape)}. Export the folder again.'
        )
