"""Weights inside the package, one folder each under `timm_3g/weights/`, named `<arch>.<tag>` as in default_cfgs."""

import hashlib
from pathlib import Path

FOLDER = Path(__file__).parents[1] / 'weights'

# One line a set of weights: sha256 of its model.safetensors.
SHA256 = {
    'resnet10_mini_3g.cifar10': 'e8e4587e37568942916732e1b702c2df118afba4f4c197e89e2385bf584f06ed',
}


def shipped_file(key: str) -> str:
    """Where the weights `key` lie, for `file` of a pretrained_cfg."""
    return str(FOLDER / key / 'model.safetensors')


def check_shipped(file: str | Path) -> None:
    """Raise ValueError if `file` is one of these weights and not as it was published; other files pass."""
    expected = SHA256.get(Path(file).parent.name) if Path(file).parents[1] == FOLDER else None
    if expected and hashlib.sha256(Path(file).read_bytes()).hexdigest() != expected:
        raise ValueError(f'{str(file)!r} is damaged: its sha256 is not the published {expected}. Install timm_3g again.')
