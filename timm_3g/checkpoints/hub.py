"""Weights on the Hugging Face Hub: whose repositories, and a download whose two files belong to one commit."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from timm_3g.compat import HTTP_ERROR

from .integrity import CONFIG, WEIGHTS, read_config
from .source_name import split_source

# The one setting: whose repositories OWNER/<arch>.<tag> hold these weights. Nobody has published them yet, so it is empty, and
# `pretrained=True` asks no network. People who host their own set the variable before they import timm_3g.
OWNER = ''
ENV = 'TIMM_3G_HUB_OWNER'

# What the client raises while the network fails. Its own errors are both.
NETWORK_ERRORS: tuple[type[Exception], ...] = (OSError, HTTP_ERROR)

# In words; the first class that fits counts. Private and gated repositories look absent to those who may not see them.
_REASONS: dict[type[Exception], str] = {
    OfflineModeIsEnabled: 'HF_HUB_OFFLINE is set, and the cache does not hold what is asked for',
    LocalEntryNotFoundError: 'it cannot be reached, and the cache does not hold it whole',
    RepositoryNotFoundError: 'no such repository; or a private one, and no token that may see it (`hf auth login`)',
    RevisionNotFoundError: 'no such revision',
    EntryNotFoundError: f'it lacks {CONFIG} or {WEIGHTS}; pickles are not read from the Hub (`timm-3g export` converts them)',
}


def hub_owner() -> str:
    """User or organisation on the Hub: $TIMM_3G_HUB_OWNER, else OWNER. '' for none.

    >>> isinstance(hub_owner(), str)
    True
    """
    return os.environ.get(ENV, OWNER)


def on_hub(cfgs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A table for timm's generate_default_cfgs: with an owner set, every tag that stands for weights gets its repository.

    The file is named, so that timm never falls back on a pickle.
    """
    owner = hub_owner()
    if not owner:
        return cfgs
    return {
        key: cfg if cfg.get('file') or key.endswith('.untrained') else {**cfg, **_repository(f'{owner}/{key}')}
        for key, cfg in cfgs.items()
    }


def _repository(hub_id: str) -> dict[str, str]:
    return {'hf_hub_id': hub_id, 'hf_hub_filename': WEIGHTS}


def download(hub_id: str, cache_dir: str | Path | None = None) -> Path:
    """model.safetensors of `ORG/NAME[@revision]` in the Hub's cache, with the config.json of the same commit beside it.

    A cached file needs one request, or none if the revision is a full commit hash or the network is away. If something is
    missing, one request without retries settles whether there is anything to download.

    Raises:
        RuntimeError: there is nothing to load, and why: no such repository, revision or file, no access, or no network.
    """
    repo, _, revision = hub_id.partition('@')
    where: dict[str, Any] = {'revision': revision or None, 'cache_dir': cache_dir}
    try:
        if not all(isinstance(try_to_load_from_cache(repo, name, **where), str) for name in (CONFIG, WEIGHTS)):
            get_hf_file_metadata(hf_hub_url(repo, CONFIG, revision=where['revision']))
        config = Path(hf_hub_download(repo, CONFIG, **where))
        return Path(hf_hub_download(repo, WEIGHTS, revision=config.parent.name, cache_dir=cache_dir))
    except NETWORK_ERRORS as error:
        raise RuntimeError(f'{hub_id} on the Hub: {explain(error)}.') from error


def download_config(hub_id: str, cache_dir: str | Path | None = None) -> Path:
    """config.json of `ORG/NAME[@revision]` in the Hub's cache, whoever has written it.

    Raises:
        RuntimeError: see `download`.

    >>> download_config('timm/resnet18.a1_in1k').name  # doctest: +SKIP
    'config.json'
    """
    repo, _, revision = hub_id.partition('@')
    try:
        return Path(hf_hub_download(repo, CONFIG, revision=revision or None, cache_dir=cache_dir))
    except NETWORK_ERRORS as error:
        raise RuntimeError(f'{hub_id} on the Hub: {explain(error)}.') from error


def config_of_base(model: Any) -> dict[str, Any]:
    """config.json of the weights that a run began with, if train.py got `local-dir:` or `hf-hub:` and it is on this machine.

    {} otherwise. No request is made.

    >>> config_of_base('resnet50_3g.orig_in1k')
    {}
    """
    source, name = split_source(model)
    if source == 'local-dir':
        return read_config(Path(name, WEIGHTS))
    if source != 'hf-hub':
        return {}
    repo, _, revision = name.partition('@')
    cached = try_to_load_from_cache(repo, CONFIG, revision=revision or None)
    return read_config(Path(cached)) if isinstance(cached, str) else {}


def explain(error: BaseException) -> str:
    """One line on what the Hub's client raised, without a full stop.

    >>> explain(OSError('The disk is full.'))
    'The disk is full'
    """
    known = next((text for kind, text in _REASONS.items() if isinstance(error, kind)), None)
    if known:
        return known
    if getattr(getattr(error, 'response', None), 'status_code', None) == 401:
        return 'invalid token, or none (`hf auth login`, or HF_TOKEN)'
    said = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip('.')
    server: str | None = getattr(error, 'server_message', None)
    if server and server.rstrip('.') not in said:
        said += f': {server.rstrip(".")}'
    return f'{said}: {explain(error.__cause__)}' if type(error) is RuntimeError and error.__cause__ else said
