"""Write an exported folder: whole or not at all, and read back before it gets its name."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor, nn

from timm_3g.checkpoints import CONFIG, GOLDEN, SHA256, WEIGHTS, require_pixels, require_sound, stamp
from timm_3g.compat import write_timm_config
from timm_3g.utils.temporary import sweep, temporary_name

from .folder import ExportFolder


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder under a temporary name beside `output`. It is renamed to `output` if the block succeeds, else removed.

    Raises:
        FileExistsError: `output` exists.
        OSError: it cannot be written.
    """
    if os.path.lexists(output):
        raise FileExistsError(f'{output} exists already. Name another --output.')
    output.parent.mkdir(parents=True, exist_ok=True)
    sweep(output.parent, output.name)
    partial = output.with_name(temporary_name(output.name))
    partial.mkdir()
    try:
        yield partial
        if os.path.lexists(output):
            raise FileExistsError(f'{output} has appeared meanwhile, and is kept. Name another --output.')
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@torch.no_grad()
def write_folder(net: Any, path: Path) -> tuple[ExportFolder, nn.Module]:
    """Write model.safetensors, config.json and golden.safetensors of a model in eval mode, and read them back.

    golden.safetensors holds an input (1, C, H, W), already normalized, and its logits (1, classes). The header of
    model.safetensors records which function its tensors belong to, and config.json records its SHA-256. config.json states
    num_classes and in_chans only where both timm and transformers read them.

    Returns:
        The folder, without a card. The model that timm built from it through `local-dir:`, in eval mode.

    Raises:
        ValueError: weights, logits, mean or std are not finite, or the folder reads back with other logits.
    """
    config = _config_of(net, path / CONFIG)
    sha256 = _write_weights(
        net.state_dict(), stamp(config['architecture'], config['num_classes'], config['model_args']), path / WEIGHTS
    )
    image = torch.randn(1, *config['pretrained_cfg']['input_size'], generator=torch.Generator().manual_seed(0))
    logits = net(image)
    if not logits.isfinite().all():
        raise ValueError('These weights give logits that are not finite. Nothing is kept.')
    require_sound(net)
    require_pixels(net.pretrained_cfg)
    golden = save({'input': image, 'logits': logits})
    (path / GOLDEN).write_bytes(golden)

    config[SHA256] = sha256
    content = (json.dumps(config, indent=2) + '\n').encode()
    (path / CONFIG).write_bytes(content)
    again = timm.create_model(f'local-dir:{path}', pretrained=True).eval()  # compares the sha256, too
    if not torch.equal(again(image), logits):
        raise ValueError('The folder reads back with other logits than the model it was written from. Nothing is kept.')
    return ExportFolder(path, config, {CONFIG: content, GOLDEN: golden}), again


def _config_of(net: Any, draft: Path) -> dict[str, Any]:
    """The content of config.json. timm can only write it to a file."""
    write_timm_config(net, draft)
    config = json.loads(draft.read_text(encoding='utf-8'))
    for name in ('num_classes', 'in_chans'):  # pretrained_cfg has them, too: transformers would pass them twice
        config['model_args'].pop(name, None)
    if config['pretrained_cfg'].get('label_names'):  # where transformers looks for them
        config['label_names'] = list(config['pretrained_cfg']['label_names'])
    return config


def _write_weights(tensors: dict[str, Tensor], header: dict[str, str], file: Path) -> str:
    """Write a safetensors file and return its SHA-256. The same model gives the same bytes.

    safetensors writes the metadata in random order, so it is sorted here.
    """
    data = memoryview(save(tensors, header))
    size = int.from_bytes(data[:8], 'little')
    entries = json.loads(bytes(data[8 : 8 + size]))
    entries = {'__metadata__': dict(sorted(entries.pop('__metadata__').items())), **entries}
    text = json.dumps(entries, separators=(',', ':'), ensure_ascii=False).encode()
    if len(text) > size:
        raise ValueError(f'{file}: safetensors wrote a shorter header than JSON allows. Please report this.')
    digest = hashlib.sha256()
    with open(file, 'xb') as stream:
        for part in (data[:8], text.ljust(size), data[8 + size :]):  # the format allows blanks at the end of the header
            digest.update(part)
            stream.write(part)
    return digest.hexdigest()
