"""Arguments of train.py, checked with its own parser before it starts. timm silently ignores a misspelt key of a YAML file."""

import argparse
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
from timm.models import split_model_name_tag
from timm.optim import create_optimizer_v2, get_optimizer_class

from timm_3g.checkpoints import open_weights
from timm_3g.checkpoints.function import defaults_of
from timm_3g.compat import parser_options
from timm_3g.data import has_splits, read_class_map, reads_folder, require_data, require_split
from timm_3g.layers import pool_options
from timm_3g.models import SecondOrderHead
from timm_3g.models.loading import require_config, require_model
from timm_3g.utils.launched import is_first_process, number_of_processes
from timm_3g.utils.yaml_file import read_yaml

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


# Options of which train.py takes any word. A wrong one counts as another, or is an error after the first epoch.
WORDS = {
    'amp_dtype': ('float16', 'bfloat16'),
    'dist_bn': ('reduce', 'broadcast', ''),
    'eval_metric': ('top1', 'top5', 'loss'),
    'lr_base_scale': ('', 'linear', 'sqrt'),
}


def check_arguments(script: Path, argv: Sequence[str], for_run: bool = False) -> list[str]:
    """Parse argv as the script will, and check what its parser lets through.

    These are checked: keys and types in the YAML file of --config, the keys of model_kwargs and opt_kwargs against model and
    optimizer, words of which train.py takes any, files that are to be read, and the splits of a folder of images. An argument
    that the parser itself rejects ends the process with the parser's own message. A line on stderr says where SGD will hardly
    move the head, where the command line replaces options of the file, or where there is no GPU.

    Args:
        script: timm's train.py.
        argv: its arguments.
        for_run: whether training follows, which needs images.

    Returns:
        What to add to argv: `--device cpu` if no device is named and there is no GPU (train.py's own default is cuda).

    Raises:
        ValueError: an unknown model, a value of the wrong type or out of range, an unknown key (with its place and the nearest
            valid ones), a truncated file of --resume, a GPU that is not there.
        OSError: a missing file.
        RuntimeError: the Hub does not give the config.json of `hf-hub:`.

    >>> from timm_3g.training import find_script
    >>> script = find_script('train.py')  # doctest: +SKIP
    >>> check_arguments(script, ['--model', 'resnet18_3g', '--opt-kwargs', 'nestrov=True'])  # doctest: +SKIP
    Traceback (most recent call last):
    ValueError: the command line: unknown key 'nestrov' in opt_kwargs. Nearest: nesterov.
    """
    names = runpy.run_path(str(script))  # its functions and parsers; main() does not run under this name
    options = parser_options(names['parser'])
    given, others = names['config_parser'].parse_known_args(list(argv))
    config = given.config
    content = check_config(config, (option.dest for option in options)) if config else {}
    check_value_types(str(config), content, options)
    names['parser'].set_defaults(device=None)  # to see whether anybody names one
    _check_options(names['parser'], others)
    args = _parse(names['_parse_args'], script, argv)
    require_model(args.model)
    require_config(args.model)
    for part, valid in (('model_kwargs', model_options), ('opt_kwargs', optimizer_options)):
        for where, given in ((config, content.get(part, {})), ('the command line', getattr(args, part))):
            if not isinstance(given, Mapping):
                raise ValueError(f'{where}: {part} must map names to values; got {given!r}.')
            if given:
                _check_keys(part, given, where, valid(args.model if part == 'model_kwargs' else args.opt, given))
        replaced = content.get(part, {}).keys() - getattr(args, part).keys()
        if replaced and is_first_process():
            print(
                f'{_spelled(part)} replaces all of {part} in {config}: {", ".join(sorted(replaced))} no longer counts.',
                file=sys.stderr,
            )
    _check_values(args)
    _check_data(args, for_run)
    _check_files(args)
    slow = slow_sgd(args, number_of_processes())
    if slow and is_first_process():
        print(slow, file=sys.stderr)
    if args.device is None and not torch.cuda.is_available():
        print('There is no GPU: training on the CPU (--device cpu).', file=sys.stderr)
        return ['--device', 'cpu']
    return []


def _check_options(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Raise ValueError for an option that train.py does not have. Its parser would print all that it has."""
    unknown = [word.partition('=')[0] for word in parser.parse_known_args(list(argv))[1] if word.startswith('--')]
    if unknown:
        known = [spelling for option in parser_options(parser) for spelling in option.option_strings]
        nearest = difflib.get_close_matches(unknown[0], known, n=3)
        said = f'Nearest: {", ".join(nearest)}.' if nearest else '--help lists its options.'
        raise ValueError(f'train.py has no option {unknown[0]}. {said}')


def _spelled(option: str) -> str:
    return f'--{option.replace("_", "-")}'


def _check_values(args: Any) -> None:
    """Raise ValueError for words and numbers that train.py takes for something else, or stumbles over after an epoch."""
    for option, words in WORDS.items():
        if getattr(args, option) not in words:
            said = ', '.join(word or "''" for word in words)
            raise ValueError(f'{_spelled(option)} must be one of {said}; got {getattr(args, option)!r}.')
    if not args.lr_base_size > 0:
        raise ValueError(f'--lr-base-size must be positive; got {args.lr_base_size}.')
    if str(args.device).startswith('cuda') and not torch.cuda.is_available():
        raise ValueError(f'--device {args.device}: there is no GPU that PyTorch can use. Leave it out to train on the CPU.')


def _check_data(args: Any, for_run: bool) -> None:
    """Raise an error for a folder or splits that are not there, where timm would take other images."""
    root = args.data_dir or args.data
    if not reads_folder(args.dataset or ''):
        return
    if not root:
        if not for_run:
            return
        raise ValueError('Name the images: --data-dir DIR, a folder or a tar file, or --dataset NAME.')
    require_data(root)
    if args.val_split and Path(root).is_file():
        raise ValueError(
            f'{root} is a tar file, and timm reads all of it for every split: it would validate on what it trains on. Name a '
            "folder with splits, or train without validation: --val-split ''."
        )
    if args.val_split or args.train_split != 'train' or has_splits(root):
        require_split(root, args.train_split)
    if args.val_split:
        require_split(root, args.val_split)


def _check_files(args: Any) -> None:
    """Raise an error for a file that train.py is to read, and cannot."""
    if args.resume:
        if not Path(args.resume).is_file():
            raise FileNotFoundError(
                f'--resume {args.resume}: there is no such file. A run keeps last.pth.tar and checkpoint-N.pth.tar.'
            )
        open_weights(args.resume).verify()
    for option in ('initial_checkpoint', 'pretrained_path'):
        file = getattr(args, option)
        if file and not Path(file).is_file():
            raise FileNotFoundError(f'{_spelled(option)} {file}: there is no such file.')
    if args.pretrained_path and not args.pretrained:
        raise ValueError('train.py reads --pretrained-path with --pretrained alone. Add --pretrained.')
    if args.class_map:
        read_class_map(args.class_map, args.data_dir or args.data or '')


def check_config(file: str | Path, valid: Iterable[str]) -> dict[str, Any]:
    """The content of a YAML file for train.py, whose keys are all in `valid`.

    Raises:
        OSError: it cannot be read.
        ValueError: not YAML, a key that stands twice, not a mapping, an unknown key.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile('w', suffix='.yaml') as file:
    ...     _ = file.write('lr: 0.1')
    ...     file.flush()
    ...     check_config(file.name, ['lr', 'epochs'])
    {'lr': 0.1}
    """
    content = read_yaml(file)
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
    # The backbone of a network on any backbone settles which options there are.
    has_backbone = 'backbone' in given and 'backbone' in defaults_of(split_model_name_tag(model)[0])
    base = {'backbone': given['backbone']} if has_backbone else {}
    with torch.device('meta'):
        net = timm.create_model(model, **base)
        names = _parameters(timm.models.build_model_with_cfg, timm.create_model, *type(net).__mro__)
        names |= pool_options() if isinstance(net, SecondOrderHead) else set()
        for key in given.keys() - names:
            try:
                timm.create_model(model, **{**base, key: given[key]})
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
