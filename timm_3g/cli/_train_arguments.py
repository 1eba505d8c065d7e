"""What train.py is given, checked with its own parser before it starts: timm takes a misspelt key of a YAML file in silence."""

import dataclasses
import difflib
import inspect
import logging
import runpy
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import yaml
from timm.optim import create_optimizer_v2, get_optimizer_class

from timm_3g.data import require_data, require_split
from timm_3g.layers import pool_options
from timm_3g.models import SecondOrderHead, read_weights

from ._model import require_model
from ._yaml_types import check_types

_logger = logging.getLogger(__name__)

# Keyword arguments that train.py gives from options of its own: a second value would be a TypeError after the start.
OWN_OPTIONS = {
    'model_kwargs': {
        'global_pool': 'gp',
        'num_classes': 'num_classes',
        'in_chans': 'in_chans',
        'pretrained': 'pretrained',
        'drop_rate': 'drop',
        'drop_path_rate': 'drop_path',
        'drop_block_rate': 'drop_block',
        'bn_momentum': 'bn_momentum',
        'bn_eps': 'bn_eps',
    },
    'opt_kwargs': {'opt': 'opt', 'lr': 'lr', 'weight_decay': 'weight_decay', 'momentum': 'momentum'},
}


def check_arguments(script: Path, argv: Sequence[str]) -> list[str]:
    """Parse argv as the script will, and check what its parser lets through.

    Checked: that --config is a YAML file of keys that train.py has; the keys of model_kwargs, by what the model takes; those of
    opt_kwargs, by what the optimizer takes; that --resume is a whole checkpoint; that a folder of images has the splits
    to train and to validate on. An argument that the parser itself refuses ends in the parser's own message.

    Returns:
        What to add to argv: `--device cpu` where nobody named a device and there is no GPU, which is train.py's own default.

    Raises:
        ValueError: an unknown model; a value of the wrong type in the YAML file; an unknown key: names it, where it stands, and
            the nearest valid ones. A file of --resume that is cut off.
        OSError: no such config file, nothing to resume.
    """
    names = runpy.run_path(str(script))  # its functions and parsers; main() does not run under this name
    config = names['config_parser'].parse_known_args(list(argv))[0].config
    content = check_config(config, {action.dest for action in names['parser']._actions}) if config else {}
    check_types(str(config), content, names['parser']._actions)
    names['parser'].set_defaults(device=None)  # to see whether anybody names one
    args = _parse(names['_parse_args'], script, argv)
    require_model(args.model)
    for part, valid in (('model_kwargs', model_options), ('opt_kwargs', optimizer_options)):
        for where, given in ((config, content.get(part, {})), ('the command line', getattr(args, part))):
            if not isinstance(given, Mapping):
                raise ValueError(f'{where}: {part} must map names to values; got {given!r}.')
            if given:
                _check_keys(part, given, where, valid(args.model if part == 'model_kwargs' else args.opt, given))
    root = args.data_dir or args.data
    if root and not args.dataset:
        require_data(root)
    if root and args.val_split and not args.dataset:
        require_split(root, args.train_split)
        require_split(root, args.val_split)
    if args.resume:
        if not Path(args.resume).is_file():
            raise FileNotFoundError(
                f'--resume {args.resume}: there is no such file. A run keeps last.pth.tar and checkpoint-N.pth.tar.'
            )
        read_weights(args.resume)
    if args.device is None and not torch.cuda.is_available():
        print('There is no GPU: training on the CPU (--device cpu).', file=sys.stderr)
        return ['--device', 'cpu']
    return []


def check_config(file: str | Path, valid: Iterable[str]) -> dict[str, Any]:
    """The content of a YAML file of train.py's, all of whose keys are in `valid`.

    Raises:
        ValueError: no YAML, no mapping; an unknown key.
    """
    with open(file) as stream:
        try:
            content = yaml.safe_load(stream)
        except yaml.YAMLError as error:
            raise ValueError(f'{file} is no YAML: {" ".join(str(error).split())}') from error
    if not isinstance(content, dict):
        raise ValueError(f'{file} must map option names to values; it holds {type(content).__name__}.')
    _check_keys('', content, str(file), set(valid) - {'help', 'config'})
    return content


def model_options(model: str, given: Mapping[str, Any]) -> set[str]:
    """The keyword arguments that a timm model takes: those of its classes, of its config dataclass, of its builder, of our
    poolings, and those of `given` that it was built with without complaint about their name (some are passed on to where no
    signature shows them)."""
    with torch.device('meta'):
        net = timm.create_model(model)
        names = _parameters(timm.models.build_model_with_cfg, timm.create_model, *type(net).__mro__)
        names |= pool_options() if isinstance(net, SecondOrderHead) else set()
        for key in given.keys() - names:
            try:
                timm.create_model(model, **{key: given[key]})
            except TypeError as error:
                if 'unexpected keyword' in str(error):
                    continue
            except Exception:  # the name is known, the value is not: train.py will say so
                _logger.debug('%s=%r', key, given[key], exc_info=True)
            names.add(key)
    return names


def optimizer_options(opt: str, given: Mapping[str, Any]) -> set[str]:
    """The keyword arguments that timm's factory and this optimizer's class take, and `given`'s where the class is unknown."""
    names = _parameters(create_optimizer_v2) - {'model_or_params'}
    try:
        optimizer: Any = get_optimizer_class(opt.lower().split('_')[-1], bind_defaults=False)  # lookahead_adamw: of adamw
    except (ValueError, AssertionError):  # no such optimizer, or none on this machine: train.py will say so
        return names | set(given)
    return names | _parameters(optimizer.__init__) - {'params'}


def _parse(parse: Any, script: Path, argv: Sequence[str]) -> Any:
    """train.py's own namespace for argv: it reads sys.argv."""
    saved = sys.argv
    sys.argv = [str(script), *argv]
    try:
        return parse()[0]
    finally:
        sys.argv = saved


def _parameters(*functions: Any) -> set[str]:
    """Names of the parameters, and of the fields of those that are dataclasses (RegNet's cfg, ByobNet's cfg, ...)."""
    names = set()
    for function in functions:
        for name, parameter in inspect.signature(function).parameters.items():
            names.add(name)
            if dataclasses.is_dataclass(parameter.annotation):
                names |= {field.name for field in dataclasses.fields(parameter.annotation)}
    return names - {'self', 'args', 'kwargs'}


def _check_keys(part: str, given: Mapping[str, Any], where: str, valid: set[str]) -> None:
    own = OWN_OPTIONS.get(part, {})
    for key in given:
        if key in own:
            raise ValueError(f"{where}: {key!r} in {part} is train.py's own option {own[key]}; give it as that.")
        if key not in valid:
            nearest = difflib.get_close_matches(str(key), valid - own.keys(), n=3, cutoff=0.5) or sorted(valid - own.keys())[:8]
            within = f' in {part}' if part else ''
            raise ValueError(f'{where}: unknown key {key!r}{within}. Nearest: {", ".join(nearest)}.')
