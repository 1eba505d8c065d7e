"""`timm-3g convert`: any weight file that the filter takes, to the folder that timm's `local-dir:` and the Hub read."""

import argparse
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from timm.utils import ParseKwargs
from torch import nn

from ._model import create_loaded

EXAMPLE = 'timm-3g convert ResNet50-3G-ImageNet.pth.tar --model resnet50_3g --output resnet50_3g.orig_in1k'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('checkpoint', type=Path, metavar='FILE', help='.pth, .pth.tar or .safetensors')
    parser.add_argument('--model', required=True, metavar='NAME[.TAG]', help='architecture that the weights are of')
    parser.add_argument('--num-classes', type=int, metavar='N', help='checked against the file (default: its rows of fc)')
    parser.add_argument(
        '--model-kwargs',
        nargs='*',
        default={},
        action=ParseKwargs,
        metavar='KEY=VALUE',
        help='options of the weights, where neither the file nor its config.json records them, e.g. num_reweights=1',
    )
    parser.add_argument('--output', type=Path, metavar='DIR', help='new folder (default: NAME[.TAG] in the current one)')


def run(args: argparse.Namespace) -> None:
    """Convert, and say where the result is and how to load it."""
    folder = convert(args.checkpoint, args.model, args.num_classes, args.output, args.model_kwargs)
    print(f'{folder}/model.safetensors, config.json and golden.safetensors written; read back, logits equal.')
    print(f"import timm, timm_3g; timm.create_model('local-dir:{folder}', pretrained=True)")


def convert(
    checkpoint: Path,
    model: str,
    num_classes: int | None = None,
    output: Path | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
) -> Path:
    """Write model.safetensors, a complete config.json, and a golden input with its logits; prove that they read back.

    The model is built with the options recorded with the weights (by train.py, or in a config.json beside them) and with
    model_kwargs, which are refused where they contradict the record; config.json says how the run prepared its images. The
    folder appears under its name only when it is whole and has been read back through `local-dir:`. No network.

    Returns:
        The folder.

    Raises:
        FileNotFoundError, FileExistsError: no such file; an output that exists already.
        ValueError: weights that cannot be read or are not of this model, or that read back differently.
    """
    output = output or Path(model)
    if output.exists():
        raise FileExistsError(f'{output} exists already; name another --output.')
    net = create_loaded(model, checkpoint, num_classes, options=model_kwargs).eval()

    output.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f'.{output.name}.', dir=output.parent))
    try:
        save_for_hf(net, str(partial), safe_serialization=True)
        _write_golden(net, partial / 'golden.safetensors')
        _require_golden(timm.create_model(f'local-dir:{partial}', pretrained=True).eval(), partial / 'golden.safetensors')
        partial.chmod(0o777 & ~_umask())
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return output


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@torch.no_grad()
def _write_golden(net: nn.Module, file: Path) -> None:
    """An input (1, C, H, W), already normalised, and the logits (1, classes) it gives: for whoever loads the weights."""
    cfg: Any = net.pretrained_cfg
    image = torch.randn(1, *cfg['input_size'], generator=torch.Generator().manual_seed(0))
    save_file({'input': image, 'logits': net(image)}, str(file))


@torch.no_grad()
def _require_golden(read: nn.Module, file: Path) -> None:
    golden = load_file(str(file))
    if not torch.equal(read(golden['input']), golden['logits']):
        raise ValueError('The folder reads back with other logits than the model it was written from; nothing is kept.')
