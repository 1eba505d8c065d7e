"""`python -m timm_3g VERB` and `timm-3g VERB`. A verb is a module of `timm_3g.cli` and its line in VERBS."""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Iterable, Sequence

from timm_3g import __version__

from .utils.terminal import one_line

# Packages that only some verbs need, and the extra that brings them.
EXTRAS = {'matplotlib': 'demo', 'skimage': 'demo', 'sklearn': 'demo', 'scipy': 'demo', 'gdown': 'get', 'pandas': 'inference'}

VERBS = {
    'train': "timm's own train.py with these models: one process, or many under torchrun",
    'run': "any other script of timm's (validate.py, benchmark.py, onnx_export.py, inference.py) with these models",
    'curves': 'loss and accuracy of runs against epochs, as a picture',
    'validate': 'top-1 and top-5 on any data set of timm, one crop or ten, one process or many',
    'predict': 'top-k classes of images, and pictures of the re-weighting',
    'get': 'weights from where their authors host them, or from a file, for `pretrained=True`',
    'export': "a weight file, the authors' or ours, to a folder with model.safetensors, config.json and a model card",
    'card': 'the model card of such a folder, written anew',
    'publish': 'such a folder, or a weight file, to the Hugging Face Hub',
    'figure1': 'are activations long-tailed, and do learned weights follow the exact estimator? On a model and images',
    'benchmark': 'time, memory and precision of the pooling on this machine, against its textbook forms',
    'demo': 'train the small network on real images that a pip package ships, and print what came out',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, 1 after a one-line error or where nobody reads on, 130 after Ctrl-C.

    A verb's `run` may return a function: work that is not ours (timm's scripts), whose errors keep their traceback, but for a
    missing extra.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):  # a name that the terminal cannot say must not end the command
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
    parser = argparse.ArgumentParser('timm-3g', description='Second-order pooling for timm.')
    parser.add_argument('--version', action='version', version=f'timm_3g {__version__}')
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    options: list[str] = []
    if argv and argv[0][:1] != '-' and argv[0] not in VERBS:
        parser.error(f'unknown verb {argv[0]!r}.{_nearest(argv[0], VERBS)} Verbs: {", ".join(VERBS)}.')
    try:
        for name, text in VERBS.items():
            sub = verbs.add_parser(
                name,
                help=text,
                description=text,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,  # train.py's options must not be taken for ours
            )
            if argv[:1] == [name]:  # only the verb that runs is imported, and only it needs its extras
                module = importlib.import_module(f'timm_3g.cli.{name}')
                sub.epilog = f'example:\n  {module.EXAMPLE}'
                module.add_arguments(sub)
                sub.set_defaults(run=module.run)
                options = [option for action in sub._actions for option in action.option_strings]
        args, rest = parser.parse_known_args(argv)
        args.rest = rest
        if rest and not getattr(args, 'forward', False):
            nearest = ''.join(_nearest(word.split('=')[0], options) for word in rest if word.startswith('--'))
            parser.error(f'unrecognized arguments: {" ".join(rest)}{"." * bool(nearest)}{nearest}')
        remaining = args.run(args)
    except ModuleNotFoundError as error:
        return _name_extra(argv[0], error)
    except BrokenPipeError:
        raise
    except (ValueError, TypeError, OSError, RuntimeError, OverflowError, MemoryError) as error:
        print(f'timm-3g {argv[0]}: {one_line(str(error)) or "out of memory"}', file=sys.stderr)
        return 1
    if remaining:
        try:
            remaining()
        except ModuleNotFoundError as error:
            return _name_extra(argv[0], error)
    return 0


def _name_extra(verb: str, error: ModuleNotFoundError) -> int:
    """Print which extra brings the package that is missing, and return the exit code. Raise the error where none does."""
    extra = EXTRAS.get((error.name or '').split('.')[0])
    if not extra:
        raise error
    print(f"timm-3g {verb}: {error}. This needs an extra: pip install 'timm_3g[{extra}]'", file=sys.stderr)
    return 1


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1)
    return f' Nearest: {found[0]}.' if found else ''


if __name__ == '__main__':
    sys.exit(main())
