"""What is recorded in a weights file or beside it about its function: our header, config.json, the arguments of a run."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from timm.models import is_model, model_entrypoint, split_model_name_tag

from timm_3g.layers.create_pool import POOLS, pool_options

from .function import MOST_CLASSES, checked_options, defaults_of, function_of, is_ours, leaves_trace, recorded_options
from .integrity import CONFIG, SHA256, WEIGHTS
from .known_files import KnownFile, known_file
from .source_name import split_source

STAMP = 'timm_3g'  # key of the safetensors header under which `stamp` is kept


def stamp(arch: str, num_classes: int, model_args: Mapping[str, Any]) -> dict[str, str]:
    """The metadata of a safetensors file that says which function its tensors are of, so that config.json cannot say another.

    >>> stamp('resnet50_3g', 10, {'num_iters': 5})['timm_3g']
    '{"architecture": "resnet50_3g", "model_args": {"num_iters": 5}, "num_classes": 10}'
    """
    record = {'architecture': arch, 'num_classes': num_classes, 'model_args': dict(model_args)}
    return {'format': 'pt', STAMP: json.dumps(record, sort_keys=True)}


@dataclass(frozen=True)
class Record:
    """All that a weights file and the config.json beside it say, apart from the tensors. Plain data that was read once.

    Attributes:
        file: the weights file.
        header: metadata in the header of a safetensors file. {} for other formats.
        config: content of config.json in the folder of `file`. {} where there is none.
        training: arguments of the run that timm's train.py keeps in its checkpoints, with 'epoch' and 'metric'. Else {}.
        base: content of the config.json of the weights that the run began with, if `local-dir:` or `hf-hub:` named them. Else
            {}.

    >>> from pathlib import Path
    >>> record = Record(Path('last.pth.tar'), {}, {}, {'model': 'resnet50_3g', 'epoch': 7})
    >>> record.key, record.function('resnet50_3g')['num_iters']
    ('resnet50_3g', 5)
    """

    file: Path
    header: Mapping[str, Any]
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    base: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known_file(self) -> KnownFile | None:
        """The authors' file that this is, by the digits in its name."""
        return known_file(self.file)

    @property
    def is_carried_along(self) -> bool:
        """Whether the sha256 in config.json is of an older file: transformers has written both anew, and kept the key.

        Our writer leaves its stamp in the header of the weights, and never states a version of transformers. Only where both
        say so is the sha256 not of this file: a stamp that damage has removed stays damage.
        """
        return 'transformers_version' in self.config and STAMP not in self.header

    @property
    def config_is_ours(self) -> bool:
        """Whether this package wrote config.json for these weights, and not for others in the same folder."""
        return self.file.name == WEIGHTS and SHA256 in self.config and not self.is_carried_along

    @cached_property
    def key(self) -> str:
        """<arch> or <arch>.<tag> of the weights, by the header, train.py, config.json or the file's name. '' if none says it.

        Raises:
            ValueError: a header or config.json that is invalid.
        """
        recorded = self.stamp.get('architecture') or self._trained_architecture() or self.config.get('architecture')
        if recorded is None:
            return self.known_file.key if self.known_file else ''
        if not isinstance(recorded, str):
            raise ValueError(
                f'{str(self.file)!r} or its config.json names no architecture: {recorded!r:.80}. Name it: --model NAME.'
            )
        cfg = self.config.get('pretrained_cfg')
        tag = cfg.get('tag') if self.config_is_ours and isinstance(cfg, Mapping) else None  # timm writes the default one
        return f'{recorded}.{tag}' if tag and recorded == self.config.get('architecture') else recorded

    def _trained_architecture(self) -> Any:
        """The architecture that train.py was given. Its tag is of the weights that the run began with, not of these.

        None where it was given `local-dir:` or `hf-hub:`, and neither a config.json nor the name says which that is.
        """
        model = self.training.get('model')
        if not isinstance(model, str):
            return model
        source, name = split_source(model)
        if not source:
            return split_model_name_tag(model)[0]
        named = split_model_name_tag(Path(name.split('@')[0]).name)[0]
        return self.base.get('architecture') or (named if is_ours(named) else None)

    @cached_property
    def stamp(self) -> dict[str, Any]:
        """What `stamp` wrote into the header: architecture, num_classes, model_args. {} where it wrote nothing.

        Raises:
            ValueError: something else stands there.
        """
        text = self.header.get(STAMP)
        if not text:
            return {}
        try:
            record = json.loads(text)
            architecture, classes, model_args = (record[name] for name in ('architecture', 'num_classes', 'model_args'))
            if not isinstance(architecture, str) or type(classes) is not int or not 0 <= classes <= MOST_CLASSES:
                raise ValueError(f'architecture must be a name and num_classes a number; got {architecture!r}, {classes!r}')
            return {'architecture': architecture, 'num_classes': classes, 'model_args': _plain_args(model_args)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(
                f'The header {STAMP!r} of {str(self.file)!r} is not ours: {error!r}. Write the file without it in Python: '
                f'safetensors.torch.save_file(safetensors.torch.load_file({str(self.file)!r}), {WEIGHTS!r})'
            ) from error

    @cached_property
    def architecture(self) -> str | None:
        """The architecture that the header, train.py or config.json names. None where none does."""
        said = self.stamp.get('architecture') or self._trained_architecture() or self.config.get('architecture')
        return said if isinstance(said, str) else None

    def _meant(self, arch: str) -> str:
        """The architecture whose record counts for `arch`: another one of this package, if that is recorded. Else `arch`."""
        return self.architecture if self.architecture and is_ours(self.architecture) and is_ours(arch) else arch

    def require_architecture(self, arch: str, given: Mapping[str, Any]) -> None:
        """Raise ValueError where the weights are of another architecture whose tensors may fit, and mean another function.

        Architectures of this package share names and shapes. Two of them mean the same with the same pooling.

        >>> from pathlib import Path
        >>> record = Record(Path('last.pth.tar'), {}, {}, {'model': 'resnet18_3g', 'gp': 'cov'})
        >>> record.require_architecture('resnet18_isqrt', {})
        Traceback (most recent call last):
        ValueError: The weights in 'last.pth.tar' are of resnet18_3g with global_pool='cov'; got resnet18_isqrt. Name it: ...
        """
        own = self.architecture
        if own in (None, arch) or not (is_registered(own) or (is_registered(arch) and not is_ours(arch))):
            return
        pool = self.function(own).get('global_pool') if is_ours(own) else None
        asked = given.get('global_pool') or defaults_of(arch).get('global_pool')
        alike = 'gcp' in (own, arch) or _without_pool(own) == _without_pool(arch)
        if pool and alike and pool == asked:
            return
        with_pool = f' with global_pool={pool!r}' if pool else ''
        raise ValueError(f'The weights in {str(self.file)!r} are of {own}{with_pool}; got {arch}. Name it: --model {own}.')

    def function(self, arch: str) -> dict[str, Any]:
        """The function that the weights are of: global_pool, reduce_dim and the pooling's options. {} where nothing says it.

        From the header that `timm-3g export` wrote, from the arguments of timm's train.py, or from config.json. The last two
        count if they name an architecture of this package.

        Raises:
            ValueError: config.json is invalid or contradicts the header.
        """
        arch = self._meant(arch)
        config = self.config_of(arch)
        if config:
            self._check_config(config)
        if config or self.stamp:
            return dict((self.stamp or config)['model_args'])
        args = self.training_of(arch)
        if not args:
            known = self.known_file
            return dict(known.options) if known and split_model_name_tag(known.key)[0] == arch else {}
        given = self._said_by_run(arch)
        return function_of(arch, {**self._options_of_base(given), **given}, f'The training run in {str(self.file)!r}')

    def _options_of_base(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of the weights that the run began with, if `local-dir:` or `hf-hub:` named them. {} for other runs.

        Raises:
            ValueError: their config.json is not on this machine, or invalid.
        """
        source, name = split_source(self.training.get('model'))
        if not source:
            return {}
        if not isinstance(self.base.get('pretrained_cfg'), Mapping | None):
            raise ValueError(f'{CONFIG} of {source}:{name} has a pretrained_cfg that maps no names to values. Fetch it again.')
        if not self.base:
            repo, _, revision = name.partition('@')
            fetch = f'Fetch it: hf download {repo} {CONFIG}{f" --revision {revision}" if revision else ""}'
            remedy = fetch if source == 'hf-hub' else 'Put the folder back.'
            raise ValueError(
                f'The training run in {str(self.file)!r} began from {source}:{name}, whose {CONFIG} says how the '
                f'network is built. It is not on this machine. {remedy}'
            )
        known = _plain_args(self.base.get('model_args') or {})
        own = known.get('global_pool')
        dropped = pool_options() if 'global_pool' in given and given['global_pool'] != own else set()  # as timm_3g does
        return {key: value for key, value in known.items() if key not in dropped}

    def require_stated(self, arch: str, given: Mapping[str, Any]) -> None:
        """Raise ValueError where `given` leaves out, or contradicts, an option of the network that `function` does not have.

        What a file says about other options than those of `recorded_options` is not passed on to timm. Where it changes the
        logits, such as `act_layer`, the caller states it.

        >>> from pathlib import Path
        >>> trained = {'model': 'resnet10_mini_3g', 'model_kwargs': {'act_layer': 'silu', 'drop_rate': 0.1}}
        >>> record = Record(Path('last.pth.tar'), {}, {}, trained)
        >>> record.require_stated('resnet10_mini_3g', {'act_layer': 'silu'})
        >>> record.require_stated('resnet10_mini_3g', {})
        Traceback (most recent call last):
        ValueError: The weights in 'last.pth.tar' are of a network with act_layer='silu'; got nothing. State it: ...
        """
        arch = self._meant(arch)
        if is_ours(arch):
            config, run = self.config_of(arch), self._said_by_run(arch)
            said = (self.stamp or config)['model_args'] if config or self.stamp else {**self._options_of_base(run), **run}
            said = {name: value for name, value in said.items() if name not in recorded_options()}
        else:
            taken = self.pooling_of_run(arch).keys() - given.keys()
            said = {name: value for name, value in self._said_by_run(arch).items() if name not in taken}
        for name, value in said.items():
            if value is None or not leaves_trace(name) or _same(value, given.get(name)):
                continue
            raise ValueError(
                f'The weights in {str(self.file)!r} are of a network with {name}={value!r:.80}; got '
                f'{f"{given[name]!r:.80}" if name in given else "nothing"}. State it: {name}={value!r:.80} in Python, '
                f'--model-kwargs {name}={value!s:.80} on the command line.'
            )

    def pooling_of_run(self, arch: str) -> dict[str, Any]:
        """Pooling and eps that train.py was given for a network of timm's own, as arguments of timm.create_model."""
        return {name: value for name, value in self._said_by_run(arch).items() if name in ('global_pool', 'bn_eps')}

    def _said_by_run(self, arch: str) -> dict[str, Any]:
        """The options of the network that train.py was given, if they are of the architecture `arch`. Else {}."""
        args = self.training_of(arch)
        more = args.get('model_kwargs')
        options = {'global_pool': args.get('gp'), 'bn_eps': args.get('bn_eps'), **(more if isinstance(more, Mapping) else {})}
        return {name: value for name, value in options.items() if value is not None}

    def config_of(self, arch: str) -> dict[str, Any]:
        """config.json if it is of the architecture `arch`. Else {}, and for a checkpoint of train.py, which has its own record.

        Raises:
            ValueError: it is not timm's.
        """
        try:
            if not self.config or self.config['architecture'] != arch or self._trained_architecture() == arch:
                return {}
            cfg = self.config.get('pretrained_cfg')
            if not isinstance(cfg, Mapping | None):
                raise ValueError(f'pretrained_cfg must map names to values; got {cfg!r:.80}')
            for where in (self.config, cfg or {}, self.config['model_args'] or {}):
                if type(where.get('num_classes', 0)) is not int:
                    raise ValueError(f'num_classes must be an integer; got {where["num_classes"]!r:.80}')
            return {**self.config, 'model_args': _plain_args(self.config['model_args'])}
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{self.file.with_name(CONFIG)} beside the weights is not a valid timm config.json: {error!r}. Fix or move it.'
            ) from error

    def training_of(self, arch: str) -> Mapping[str, Any]:
        """The arguments of train.py if they are of the architecture `arch`, or of one that nothing names. Else {}."""
        named = isinstance(self.training.get('model'), str)
        return self.training if named and self._trained_architecture() in (arch, None) else {}

    def _check_config(self, config: Mapping[str, Any]) -> None:
        """Raise ValueError where config.json contradicts itself or the weights beside it."""
        declared = config.get('num_classes', (config.get('pretrained_cfg') or {}).get('num_classes'))  # as timm reads it
        built = config['model_args'].get('num_classes', declared)
        if built != declared or (declared is not None and declared < 0):
            raise ValueError(
                f'config.json beside {str(self.file)!r} declares num_classes {declared!r}, and model_args has {built!r}: the '
                f'classifier would be random. Fetch or export it again.'
            )
        if not self.stamp:
            return
        said = {key: value for key, value in config['model_args'].items() if key not in ('num_classes', 'in_chans')}
        said |= {'num_classes': declared}
        found = {**self.stamp['model_args'], 'num_classes': self.stamp['num_classes']}
        differing = [
            f'{key}: {said.get(key)!r}, the file {found.get(key)!r}'
            for key in sorted(said.keys() | found.keys())
            if said.get(key) != found.get(key)
        ]
        if differing:
            raise ValueError(
                f'config.json beside {str(self.file)!r} contradicts the weights, which know what they were made for '
                f'({"; ".join(differing)}). It was changed, or is of other weights. Move it, and export the file again.'
            )


def _without_pool(arch: str) -> str:
    """The name of a network before that of its pooling: resnet18 of resnet18_3g."""
    return next((arch.removesuffix(f'_{pool}') for pool in POOLS if arch.endswith(f'_{pool}')), arch)


def is_registered(arch: str) -> bool:
    """Whether this package has registered the architecture, with a head of its own or without.

    >>> import timm_3g
    >>> is_registered('resnet50_sort'), is_registered('resnet50')
    (True, False)
    """
    return is_model(arch) and model_entrypoint(arch).__module__.startswith('timm_3g.')


def _same(said: Any, given: Any) -> bool:
    """Whether an option that a file says is the given one, as far as plain data can tell: a class has no name to compare."""
    if isinstance(said, (list, tuple)) and isinstance(given, (list, tuple)):
        return list(said) == list(given)
    return bool(said == given) or not isinstance(given, str | int | float | list | tuple | None)


def _plain_args(model_args: Any) -> dict[str, Any]:
    """model_args of a header or a config.json.

    Raises:
        ValueError: no mapping of names to plain data, or a value that no network has.
    """
    if not isinstance(model_args, Mapping):
        raise ValueError(f'model_args must map names to values; got {model_args!r:.80}')
    return {**model_args, **checked_options(model_args, 'model_args')}
