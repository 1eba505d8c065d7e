"""Where the weights of `pretrained=True` come from: one answer, an opened local file, before anything is built."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, resolve_pretrained_cfg, split_model_name_tag

from .fetched import fetched_file
from .hub import download
from .integrity import WEIGHTS, read_config, stated_sha256
from .record import Record
from .weights import Weights, open_weights

# In a folder: the names that timm prefers, then any file that ends so, if it is the only one.
LOCAL_NAMES = (WEIGHTS, 'pytorch_model.bin', 'pytorch_model.pth', 'model.pth')
LOCAL_ENDINGS = ('.safetensors', '.pth', '.pth.tar', '.bin')
GOLDEN = 'golden.safetensors'  # what `timm-3g export` puts beside the weights

FROM_CONFIG = ('hf-hub', 'local-dir')  # sources whose pretrained_cfg is a config.json
ELSEWHERE = ('state_dict', 'url', 'hf_hub_filename', 'custom_load')  # what would send timm to other weights than its folder's


def find_weights(arch: str, kwargs: Mapping[str, Any]) -> Weights | None:
    """Settle which file holds the weights that a model is asked for, fetch it from the Hub if it is there, and open it.

    In this order: what the caller names (`local-dir:` or `hf-hub:`, else state_dict, file or url), what ships with the package,
    what `timm-3g get` has fetched, what the owner of `hub.py` has published.

    Args:
        arch: name of the architecture.
        kwargs: of its entry point, as timm.create_model passes them.

    Returns:
        The weights. None where the caller names a state dict, a url or another file of a repository: those timm reads by
        itself.

    Raises:
        RuntimeError: there are no weights, and what to do.
        FileNotFoundError: the file is not there.
        ValueError: see `open_weights`.
    """
    cfg = _resolve(arch, kwargs)
    by_caller = cfg.state_dict or (not cfg.file and cfg.url) or cfg.hf_hub_filename not in (None, WEIGHTS)
    if by_caller and cfg.source not in FROM_CONFIG:
        return None
    if cfg.source == 'local-dir':
        return _open_in_folder(Path(str(cfg.file)))
    return open_weights(_locate(f'{arch}.{cfg.tag}' if cfg.tag else arch, cfg, kwargs.get('cache_dir')))


def _resolve(arch: str, kwargs: Mapping[str, Any]) -> PretrainedCfg:
    """timm's own resolution, with a clear word on keys that it does not know, and on a config.json that names other weights."""
    given, overlay = kwargs.get('pretrained_cfg'), kwargs.get('pretrained_cfg_overlay')
    known = {field.name for field in fields(PretrainedCfg)}
    for where, keys in (('pretrained_cfg (of config.json)', given), ('pretrained_cfg_overlay', overlay)):
        unknown = keys.keys() - known if isinstance(keys, dict) else set()
        if unknown:
            raise ValueError(
                f'{where} has keys that timm does not know: {", ".join(sorted(unknown))}. Remove them; at the top level of '
                f'config.json, timm ignores what it does not know.'
            )
    if isinstance(given, dict) and given.get('source') in FROM_CONFIG:
        elsewhere = [key for key in ELSEWHERE if given.get(key)]
        if elsewhere:
            raise ValueError(
                f'pretrained_cfg of config.json has {", ".join(elsewhere)}, which names other weights than those beside it. '
                f'Remove it from config.json.'
            )
        other = [key for key in ('file', *ELSEWHERE) if isinstance(overlay, dict) and overlay.get(key)]
        if other:
            raise ValueError(
                f'pretrained_cfg_overlay has {", ".join(other)}, which names other weights than {given["source"]}: does. Leave '
                f'it out, or name the architecture alone: create_model({arch!r}, ...).'
            )
    return resolve_pretrained_cfg(arch, given, overlay)


def _locate(name: str, cfg: PretrainedCfg, cache_dir: str | Path | None) -> Path:
    if cfg.source == 'hf-hub':
        return download(str(cfg.hf_hub_id), cache_dir)
    if cfg.file:
        file = Path(cfg.file)
        if not file.is_file():
            what = "is a folder: load it as 'local-dir:...'" if file.is_dir() else 'does not exist'
            raise FileNotFoundError(f'No weights of {name} at {cfg.file!r}: the file of pretrained_cfg_overlay {what}.')
        return file
    fetched = fetched_file(name)
    if fetched and is_tag(name) and timm.get_pretrained_cfg(name).hf_hub_id == cfg.hf_hub_id:  # not a repository that he names
        return fetched
    if not cfg.hf_hub_id:
        raise RuntimeError(f'No pretrained weights exist for {name} on this machine. {_remedy(name, cfg)}')
    try:
        return download(cfg.hf_hub_id, cache_dir)
    except RuntimeError as error:
        raise RuntimeError(f'No pretrained weights of {name}: {error} {_remedy(name, cfg)}') from error


def is_tag(name: str) -> bool:
    """Whether `<arch>.<tag>` is in timm's registry.

    >>> import timm_3g
    >>> is_tag('resnet50_3g.orig_in1k'), is_tag('resnet50_3g.birds')
    (True, False)
    """
    return name in timm.list_models(f'{split_model_name_tag(name)[0]}.*', include_tags=True)


def _open_in_folder(folder: Path) -> Weights:
    """The weights in a folder. Where config.json has the SHA-256 of model.safetensors, that file and no other.

    Raises:
        FileNotFoundError: none that is recognizable.
    """
    config = read_config(folder / WEIGHTS)
    if (folder / WEIGHTS).is_file():
        return open_weights(folder / WEIGHTS, config=config)
    names = () if stated_sha256(Record(folder / WEIGHTS, {}, config, {})) else LOCAL_NAMES[1:]
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found:
        return open_weights(found, config=config)
    others = [f for f in sorted(folder.glob('*')) if f.name.endswith(LOCAL_ENDINGS) and f.name != GOLDEN]
    if len(others) != 1 or not names:
        listed = f'; there are {", ".join(f.name for f in others)}' if others else ''
        name = WEIGHTS if all(f.suffix == '.safetensors' for f in others) else LOCAL_NAMES[-1]
        remedy = f'Rename the right one to {name}.' if others and names else 'Fetch or export the folder again.'
        raise FileNotFoundError(
            f'{str(folder)!r} contains no recognizable weights file: none of {", ".join((WEIGHTS, *names))}{listed}. {remedy}'
        )
    return open_weights(others[0], config=config)


def _remedy(name: str, cfg: PretrainedCfg) -> str:
    """What tags there are, and how to come by weights."""
    arch = split_model_name_tag(name)[0]
    keys = [k for k in timm.list_models(f'{arch}.*', include_tags=True) if not k.endswith('.untrained')]
    tags = [split_model_name_tag(key)[1] + (' (fetched)' if fetched_file(key) else '') for key in keys]
    listed = f'Tags of {arch}: {", ".join(tags)}. ' if tags else ''
    fetch = f'`timm-3g get {name}` fetches them from their authors ({cfg.origin_url}; licence: {cfg.license}). '
    return (
        f'{fetch if cfg.origin_url else "Nobody has published any under this tag. "}{listed}Load a file with '
        f'pretrained_cfg_overlay=dict(file=...) (--checkpoint FILE on the command line), or use `pretrained=False` for random '
        f'init.'
    )
