"""Weights inside the package, one folder each under `timm_3g/pretrained/`, named `<arch>.<tag>` as in default_cfgs."""

from pathlib import Path

from .integrity import WEIGHTS

FOLDER = Path(__file__).parents[1] / 'pretrained'


def shipped_file(key: str) -> str:
    """Where the weights `key` lie, for `file` of a pretrained_cfg."""
    return str(FOLDER / key / WEIGHTS)
