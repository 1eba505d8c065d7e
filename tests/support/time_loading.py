"""Seconds of timm.create_model(..., pretrained=True): resnet50_3g against timm's own load of a resnet50 file of the same size.

    python tests/support/time_loading.py [--rounds 15]

Both from a folder and from a warm cache of the Hub (a server on this machine). Ours verifies the SHA-256; timm does not. Each
round loads both, in alternating order; what counts is the median of the ratios. Run it on a quiet machine.
"""

# isort: off
from local_hub import HUB  # first: before anything imports huggingface_hub
# isort: on

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
from huggingface_hub import HfApi
from safetensors.torch import save_file
from torch import nn

from timm_3g.checkpoints import CONFIG, SHA256, WEIGHTS, sha256_of, stamp

OURS, THEIRS = 'resnet50_3g', 'resnet50'


def write_ours(folder: Path) -> None:
    """An exported folder: weights with their stamp, config.json with their SHA-256."""
    net = timm.create_model(OURS)
    timm.models.save_for_hf(net, str(folder), safe_serialization=True)
    config = json.loads((folder / CONFIG).read_text())
    for name in ('num_classes', 'in_chans'):
        config['model_args'].pop(name, None)
    save_file(net.state_dict(), folder / WEIGHTS, metadata=stamp(OURS, 1000, config['model_args']))
    (folder / CONFIG).write_text(json.dumps({**config, SHA256: sha256_of(folder / WEIGHTS)}))


def write_theirs(folder: Path, size: int) -> None:
    """The same for timm's resnet50, with as many classes as give a file of `size` bytes."""
    with torch.device('meta'):
        backbone = sum(value.numel() for value in timm.create_model(THEIRS, num_classes=0).state_dict().values())
    classes = round((size / 4 - backbone) / 2049)
    timm.models.save_for_hf(timm.create_model(THEIRS, num_classes=classes), str(folder), safe_serialization=True)


def seconds(name: str) -> float:
    """Of one load."""
    start = time.perf_counter()
    net: nn.Module = timm.create_model(name, pretrained=True)
    taken = time.perf_counter() - start
    assert next(net.parameters()).device.type == 'cpu'
    return taken


def compare(label: str, ours: str, theirs: str, rounds: int) -> None:
    """Print the medians and the median of the ratios."""
    pairs = []
    for number in range(rounds + 1):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        taken = {name: seconds(name) for name in order}
        if number:  # the first is to warm up
            pairs.append((taken[ours], taken[theirs]))
    ratios = sorted(a / b for a, b in pairs)
    medians = [statistics.median(values) for values in zip(*pairs, strict=True)]
    spread = f'{ratios[len(ratios) // 4]:.2f} to {ratios[-1 - len(ratios) // 4]:.2f}'
    print(
        f'{label:14} {OURS} {medians[0]:.3f} s, {THEIRS} {medians[1]:.3f} s, '
        f'ratio {statistics.median(ratios):.2f} (middle half {spread}, {rounds} rounds)',
        flush=True,
    )


def main() -> None:
    """Write both folders, publish them on the local Hub, and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=15)
    rounds = parser.parse_args().rounds
    os.environ['HF_TOKEN'] = 'hf_acme'
    with tempfile.TemporaryDirectory() as scratch:
        folders = {OURS: Path(scratch, 'ours'), THEIRS: Path(scratch, 'theirs')}
        for folder in folders.values():
            folder.mkdir()
        write_ours(folders[OURS])
        write_theirs(folders[THEIRS], (folders[OURS] / WEIGHTS).stat().st_size)
        sizes = ', '.join(f'{name} {(folder / WEIGHTS).stat().st_size / 1e6:.1f} MB' for name, folder in folders.items())
        print(f'{sizes}; torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} CPUs, {HUB.url}')
        for name, folder in folders.items():
            HfApi().create_repo(f'acme/{name}.timing')
            HfApi().upload_folder(repo_id=f'acme/{name}.timing', folder_path=folder)
        compare('folder', *(f'local-dir:{folders[name]}' for name in (OURS, THEIRS)), rounds)
        compare("Hub's cache", *(f'hf-hub:acme/{name}.timing' for name in (OURS, THEIRS)), rounds)


if __name__ == '__main__':
    main()
