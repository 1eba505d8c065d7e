"""`python -m timm_3g VERB` and `timm-3g VERB`. A verb is a module of `timm_3g.cli` and its line in VERBS."""

import argparse
import importlib
import sys
from collections.abc import Sequence

VERBS = {
    'convert': "a weight file, the authors' or ours, to a folder with model.safetensors and config.json",
    'demo': 'train the small network on real images that a pip package ships, and print what came out',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Returns the exit code: 0, or 1 after a one-line error."""
    parser = argparse.ArgumentParser('timm-3g', description='Second-order pooling for timm.')
    verbs = parser.add_subparsers(dest='verb', required=True, metavar='VERB')
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        for name, text in VERBS.items():
            sub = verbs.add_parser(name, help=text, description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
            if argv[:1] == [name]:  # only the verb that runs is imported, and only it needs its extras
                module = importlib.import_module(f'timm_3g.cli.{name}')
                sub.epilog = f'example:\n  {module.EXAMPLE}'
                module.add_arguments(sub)
                sub.set_defaults(run=module.run)
        args = parser.parse_args(argv)
        args.run(args)
    except ImportError as error:
        print(f"timm-3g {argv[0]}: {error}. This verb needs extras: pip install 'timm_3g[demo]'", file=sys.stderr)
        return 1
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        print(f'timm-3g {argv[0]}: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
