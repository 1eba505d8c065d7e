"""The folder that `local-dir:` reads and the Hub gets: weights, config, a golden pair; whole or not there, and read back."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn

from timm_3g.checkpoints import CONFIG, GOLDEN, SHA256, WEIGHTS, sha256_of, stamp
from timm_3g.checkpoints.sound import require_pixels, require_sound
from timm_3g.utils.files import umask
from timm_3g.utils.temporary import start_of, sweep

CARD = 'README.md'
FILES = (WEIGHTS, CONFIG, GOLDEN, CARD)  # all that is ever pushed

# Logits of the golden input on another machine or release than the folder was written on: float32 through a network.
GOLDEN_RTOL, GOLDEN_ATOL = 1e-3, 1e-4


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A folder under a temporary name beside `output`, renamed to `output` if the block ends well and removed if not.

    Raises:
        FileExistsError: `output` exists already.
        OSError: it cannot be written.
    """
    if os.path.lexists(output):
        raise FileExistsError(f'{output} exists already; name another --output.')
    output.parent.mkdir(parents=True, exist_ok=True)
    sweep(output.parent, output.name)
    partial = Path(tempfile.mkdtemp(prefix=start_of(output.name), dir=output.parent))
    try:
        yield partial
        partial.chmod(0o777 & ~umask())
        for file in partial.iterdir():  # safetensors writes for the owner alone
            file.chmod(0o666 & ~umask())
        os.rename(partial, output)
    except SafetensorError as error:  # its word for a full disk, too
        raise OSError(f'{output} cannot be written: {error}. Nothing is kept.') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@torch.no_grad()
def write_folder(net: Any, folder: Path) -> None:
    """Write model.safetensors, config.json and golden.safetensors of a model in eval mode, and prove that they read back.

    The golden pair is an input (1, C, H, W), already normalised, and the logits (1, classes) that it gives.

    The header of model.safetensors says which function its tensors are of; config.json has its sha256, and num_classes and
    in_chans only where both timm and transformers read them.

    Raises:
        ValueError: weights, logits, mean or std are no numbers to compute with, or the folder reads back with other logits.
    """
    save_for_hf(net, str(folder), safe_serialization=True)
    config = json.loads((folder / CONFIG).read_text(encoding='utf-8'))
    for name in ('num_classes', 'in_chans'):  # stated again in pretrained_cfg; from here, transformers passes them twice
        config['model_args'].pop(name, None)
    if config['pretrained_cfg'].get('label_names'):  # where transformers looks
        config['label_names'] = list(config['pretrained_cfg']['label_names'])
    header = stamp(config['architecture'], config['num_classes'], config['model_args'])
    save_file(net.state_dict(), str(folder / WEIGHTS), metadata=header)
    _sort_header(folder / WEIGHTS)
    config[SHA256] = sha256_of(folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + '\n', encoding='utf-8')

    image = torch.randn(1, *config['pretrained_cfg']['input_size'], generator=torch.Generator().manual_seed(0))
    golden = {'input': image, 'logits': net(image)}
    if not golden['logits'].isfinite().all():
        raise ValueError('These weights give logits that are not finite; nothing is kept.')
    require_sound(net)
    require_pixels(net.pretrained_cfg)
    save_file(golden, str(folder / GOLDEN))
    if not torch.equal(timm.create_model(f'local-dir:{folder}', pretrained=True).eval()(image), golden['logits']):
        raise ValueError('The folder reads back with other logits than the model it was written from; nothing is kept.')


def _sort_header(file: Path) -> None:
    """safetensors writes the entries of its header in random order; in a fixed one, the same model gives the same file."""
    with open(file, 'r+b') as stream:
        size = int.from_bytes(stream.read(8), 'little')
        header = json.loads(stream.read(size))
        header = {'__metadata__': dict(sorted(header.pop('__metadata__').items())), **header}
        text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
        if len(text) > size:
            raise ValueError(f'{file}: safetensors wrote a shorter header than JSON allows; please report this.')
        stream.seek(8)
        stream.write(text.ljust(size))  # blanks at the end are part of the format


@torch.no_grad()
def check_folder(folder: Path) -> nn.Module:
    """The model in a folder that `write_folder` wrote, in eval mode, after its sha256 and its golden logits were compared.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: damaged, or the golden input gives other logits.
    """
    require_exported(folder)
    try:
        net: Any = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
        require_sound(net)
        require_pixels(net.pretrained_cfg)
        golden = load_file(str(folder / GOLDEN))
        _require_golden(golden, net, folder)
        same = torch.allclose(net(golden['input']), golden['logits'], GOLDEN_RTOL, GOLDEN_ATOL)
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever timm, safetensors and torch raise over damaged or foreign files
        raise ValueError(f'{folder} is damaged: {type(error).__name__}: {error}. Export it again.') from error
    if not same:
        raise ValueError(f'{folder}: the golden input gives other logits than {GOLDEN} has. Export it again.')
    return net


def _require_golden(golden: dict[str, torch.Tensor], net: Any, folder: Path) -> None:
    """Raise ValueError unless the pair is one image of the model's size, with as many logits as it has outputs."""
    if golden.keys() != {'input', 'logits'}:
        raise ValueError(
            f'{folder / GOLDEN} must hold input and logits, and nothing else; got {", ".join(sorted(golden)):.80}. Export the '
            f'folder again.'
        )
    image, logits = golden['input'], golden['logits']
    outputs = net.num_classes or net.head_hidden_size
    size = tuple(net.pretrained_cfg['input_size'])
    shapes = tuple(image.shape) == (1, *size) and tuple(logits.shape) == (1, outputs)
    finite = image.dtype == logits.dtype == torch.float32 and bool(image.isfinite().all() and logits.isfinite().all())
    if not shapes or not finite:
        raise ValueError(
            f'{folder / GOLDEN} must hold finite float32 numbers, input (1, {", ".join(map(str, size))}) and logits '
            f'(1, {outputs}); got {image.dtype} {tuple(image.shape)} and {logits.dtype} {tuple(logits.shape)}. '
            f'Export the folder again.'
        )


def require_own_files(folder: Path) -> None:
    """Raise ValueError if a file that would be read or pushed is a link to something outside the folder."""
    inside = Path(os.path.realpath(folder))
    for name in FILES:
        file = folder / name
        if inside not in Path(os.path.realpath(file)).parents:
            raise ValueError(
                f'{file} is a link to {os.path.realpath(file)}, outside the folder, and is not read. Put a copy in its place.'
            )
        if os.path.lexists(file) and not file.is_file():
            raise ValueError(f'{file} must be a regular file. Export the folder again.')


def require_exported(folder: Path) -> None:
    """Raise FileNotFoundError or ValueError unless `write_folder` has written all its files here."""
    missing = [name for name in (WEIGHTS, CONFIG, GOLDEN) if not (folder / name).is_file()]
    remedy = f'`timm-3g export {folder / WEIGHTS}` makes one of the weights.'
    if missing:
        raise FileNotFoundError(f'{folder} is no folder of `timm-3g export`: it lacks {", ".join(missing)}. {remedy}')
    if not re.fullmatch(r'[0-9a-f]{64}', str(read_json(folder).get(SHA256))):
        raise ValueError(f'{folder} is no folder of `timm-3g export`: its {CONFIG} has no {SHA256}. {remedy}')


def read_json(folder: Path) -> dict[str, Any]:
    """The content of config.json.

    Raises:
        ValueError: it is not JSON (NaN is none), says something twice, or lacks the architecture or pretrained_cfg.
    """
    try:
        text = (folder / CONFIG).read_text(encoding='utf-8')
        config = json.loads(text, parse_constant=_no_number, object_pairs_hook=_once)
        if not isinstance(config, dict):
            raise ValueError(f'it must be a JSON object, not {type(config).__name__}')
        if not isinstance(config.get('architecture'), str) or not isinstance(config.get('pretrained_cfg'), dict):
            raise ValueError('it must name an architecture and hold pretrained_cfg')
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{folder / CONFIG} is damaged: {error}. Fetch or export the folder anew.') from error
    return config


def _no_number(text: str) -> None:
    raise ValueError(f'{text} is no number of JSON')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'it has {next(name for name in names if names.count(name) > 1)!r} twice')
    return found


def key_of(folder: Path) -> str:
    """<arch>.<tag> by config.json; <arch> where it names no tag."""
    config = read_json(folder)
    tag = config['pretrained_cfg'].get('tag')
    return f'{config["architecture"]}.{tag}' if tag else config['architecture']
