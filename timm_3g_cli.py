"""The command `timm-3g VERB`. A verb is a module of `timm_3g.cli` and its line in VERBS.

This module stands outside the package, because importing the package imports torch. `--help`, `--version` and a misspelt verb
answer without torch.
"""

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# The extra that brings each package that only some verbs need.
EXTRAS = {
    'matplotlib': 'demo',
    'skimage': 'demo',
    'sklearn': 'demo',
    'scipy': 'demo',
    'gdown': 'get',
    'pandas': 'inference',
    'gradio': 'page',
}

# The one place to add a verb, besides its module.
VERBS = {
    'train': "timm's own train.py with these models: one process, or many under torchrun",
    'run': "any script of timm's (validate.py, benchmark.py, onnx_export.py, inference.py) with these models",
    'curves': 'loss and accuracy of runs against epochs, as a picture',
    'validate': 'top-1 and top-5 on any data set of timm, one crop or ten, one process or many',
    'predict': 'top-k classes of images, and pictures of the re-weighting',
    'page': 'a page to look at models in a browser, or the same as a Space of the Hub',
    'get': 'weights from where their authors host them, or from a file, for `pretrained=True`',
    'export': "a weights file, the authors' or ours, to a folder with model.safetensors, config.json and a model card",
    'card': 'the model card of an exported folder, written anew',
    'publish': 'an exported folder, or a weights file, to the Hugging Face Hub',
    'figure1': 'whether activations are long-tailed and learned weights follow the exact estimator, on a model and images',
    'backbones': 'which networks of timm take a second-order head, tried on one network of each family',
    'study': 'a comparison of many runs: what is missing is trained, and one CSV has the results',
    'benchmark': 'time, memory and precision of the pooling on this machine, against its textbook forms',
    'demo': 'train a small network on real images that a pip package ships, and print the accuracy',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    A verb's `run` may return a function: work that is not ours (timm's scripts). Its errors keep their traceback, except for a
    missing extra.

    Args:
        argv: the words after `timm-3g`. None for those of this process.

    Returns:
        The exit code: 0, 1 after a one-line error or a closed pipe, 130 after Ctrl-C.

    Raises:
        SystemExit: `--help` and `--version` (code 0), or an invalid command line (code 2).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # a name that the terminal cannot show must not end the command
            stream.reconfigure(errors='backslashreplace')
    try:
        code = _run(argv)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print(f'timm-3g {" ".join(argv[:1])}: interrupted', file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has what it wants; Python would complain once more when it closes the stream
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    try:
        remaining = _prepare(argv)
    except ModuleNotFoundError as error:
        return _name_extra(argv[0], error)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError, OverflowError, MemoryError) as error:
        from timm_3g.utils.terminal import one_line  # the package is imported by now: a verb has run

        print(f'timm-3g {argv[0]}: {one_line(str(error)) or _without_text(error)}', file=sys.stderr)
        return 1
    if remaining:
        try:
            remaining()
        except ModuleNotFoundError as error:
            return _name_extra(argv[0], error)
    return 0


def _without_text(error: Exception) -> str:
    return 'out of memory' if isinstance(error, MemoryError) else f'{type(error).__name__}, without a reason'


def _prepare(argv: list[str]) -> Callable[[], object] | None:
    """Parse the command line and call the verb's `run`. Returns what that returns."""
    parser = argparse.ArgumentParser('timm-3g', description='Second-order pooling for timm.')
    parser.add_argument('--version', action=_Version, nargs=0, dest=argparse.SUPPRESS, help='show the version and exit')
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    if argv and argv[0][:1] != '-' and argv[0] not in VERBS:
        parser.error(f'unknown verb {argv[0]!r}.{_nearest(argv[0], VERBS)} Verbs: {", ".join(VERBS)}.')
    parsers = {
        name: verbs.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # train.py's options must not be taken for ours
        )
        for name, text in VERBS.items()
    }
    if argv and argv[0] in parsers:  # only the verb that runs is imported, and only it needs its extras
        module = importlib.import_module(f'timm_3g.cli.{argv[0]}')
        sub = parsers[argv[0]]
        sub.epilog = f'example:\n  {module.EXAMPLE}'
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    args, rest = parser.parse_known_args(argv)
    args.rest = rest
    if rest and not getattr(args, 'forward', False):
        options = _long_options(parsers[args.verb])
        nearest = ''.join(_nearest(word.split('=')[0], options) for word in rest if word.startswith('--'))
        parser.error(f'unrecognized arguments: {" ".join(rest)}{"." * bool(nearest)}{nearest}')
    return args.run(args)


class _Version(argparse.Action):
    """Prints the version. It is looked up only when it is asked for: importlib.metadata takes time to import."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        try:
            version = metadata.version('timm_3g')
        except metadata.PackageNotFoundError:  # a source tree that is on the path, not installed
            version = importlib.import_module('timm_3g').__version__
        print(f'timm_3g {version}')
        parser.exit()


def _long_options(parser: argparse.ArgumentParser) -> list[str]:
    """The options that the parser's help lists. argparse has no other public list of them."""
    text = re.sub(r'\x1b\[[\d;]*m', '', parser.format_help())  # without colours
    return re.findall(r'(?:^  |, )(--[a-z][\w-]*)', text, re.MULTILINE)


def _name_extra(verb: str, error: ModuleNotFoundError) -> int:
    """Print which extra brings the missing package, and return the exit code. Raise the error if no extra does."""
    extra = EXTRAS.get((error.name or '').split('.')[0])
    if not extra:
        raise error
    from timm_3g.utils.home import HOME  # imports torch

    print(
        f"timm-3g {verb}: {error}. This needs an extra: pip install 'timm_3g[{extra}] @ git+{HOME}', "
        f"or pip install -e '.[{extra}]' in a clone.",
        file=sys.stderr,
    )
    return 1


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f' Nearest: {found[0]}.' if found else ''


if __name__ == '__main__':
    sys.exit(main())
