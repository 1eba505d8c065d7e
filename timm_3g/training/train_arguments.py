"""Arguments of train.py, checked with its own parser before it starts. timm silently ignores a misspelt key of a YAML file."""

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

from timm_3g.checkpoints import open_weights
from timm_3g.compat import parser_options
from timm_3g.data import require_data, require_split
from timm_3g.layers import pool_options
from timm_3g.models import SecondOrderHead
from timm_3g.models.loading import require_model
from timm_3g.utils.launched import is_first_process, number_of_processes

from .slow_sgd import slow_sgd
from .yaml_values import check_value_types

_logger = logging.getLogger(__name__)

# Keyword arguments that train.py passes from its own options. A second value would be a TypeError after the start.
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

    These are checked: keys and types in the YAML file of --config, the keys of model_kwargs and opt_kwargs against model and
    optimizer, the checkpoint of --resume, and the splits of a folder of images. An argument that the parser itself rejects ends
    the process with the parser's own message. A line on stderr says where SGD will hardly move the head, or there is no GPU.

    Args:
        script: timm's train.py.
        argv: its arguments.

    Returns:
        What to add to argv: `--device cpu` if no device is named and there is no GPU (train.py's own default is cuda).

    Raises:
        ValueError: an unknown model, a value of the wrong type, an unknown key (with its place and the nearest valid ones), a
            truncated file of --resume.
        OSError: a missing config file or checkpoint.

    >>> from timm_3g.training import find_script
    >>> script = find_script('train.py')  # doctest: +SKIP
    >>> check_arguments(script, ['--model', 'resnet18_3g', '--opt-kwargs', 'nestrov=True'])  # doctest: +SKIP
    Traceback (most recent call last):
    ValueError: the command line: unknown key 'nestrov' in opt_kwargs. Nearest: nesterov.
    """
    names = runpy.run_path(str(script))  # its functions and parsers; main() does not run under this name
    options = parser_options(names['parser'])
    config = names['config_parser'].parse_known_args(list(argv))[0].config
    content = check_config(config, (option.dest for option in options)) if config else {}
    check_value_types(str(config), content, options)
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
        open_weights(args.resume).verify()
    slow = slow_sgd(args, number_of_processes())
    if slow and is_first_process():
        print(slow, file=sys.stderr)
    if args.device is None and not torch.cuda.is_available():
        print('There is no GPU: training on the CPU (--device cpu).', file=sys.stderr)
        return ['--device', 'cpu']
    return []


def check_config(file: str | Path, valid: Iterable[str]) -> dict[str, Any]:
    """The content of a YAML file for train.py, whose keys are all in `valid`.

    Raises:
        ValueError: not YAML, not a mapping, an unknown key.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile('w', suffix='.yaml') as file:
    ...     _ = file.write('lr: 0.1')
    ...     file.flush()
    ...     check_config(file.name, ['lr', 'epochs'])
    {'lr': 0.1}
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
    """The keyword arguments that a timm model takes.

    They are those of its classes, its config dataclass, its builder and our poolings, and those of `given` whose name the model
    accepts when it is built (some are passed on to where no signature shows them).

    >>> {'num_iters', 'num_reweights'} <= model_options('resnet18_3g', {})
    True
    """
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
    """The keyword arguments that timm's factory and this optimizer's class take. Those of `given` too if the class is unknown.

    >>> 'betas' in optimizer_options('adamw', {}), 'betas' in optimizer_options('momentum', {})
    (True, False)
    """
    names = _parameters(create_optimizer_v2) - {'model_or_params'}
    try:
        optimizer: Any = get_optimizer_class(opt.lower().split('_')[-1], bind_defaults=False)  # lookahead_adamw: of adamw
    except (ValueError, AssertionError):  # no such optimizer, or none on this machine: train.py will say so
        return names | set(given)
    return names | _parameters(optimizer.__init__) - {'params'}


def _parse(parse: Any, script: Path, argv: Sequence[str]) -> Any:
    """The namespace that train.py makes of argv. Its function reads sys.argv."""
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
