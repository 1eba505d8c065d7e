"""The command's entry: it answers without torch, it ships, and a verb is added in the steps that CONTRIBUTING lists."""

import argparse
import re
import subprocess
import sys

import pytest
from common import ROOT

import timm_3g
import timm_3g.cli
import timm_3g_cli
from timm_3g_cli import VERBS, main

# Importing any of these fails then.
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(['torch', 'timm', 'timm_3g', 'numpy']))
from timm_3g_cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    'argv, code, text',
    [
        (['--help'], 0, 'Second-order pooling for timm.'),
        (['--version'], 0, f'timm_3g {timm_3g.__version__}\n'),
        (['predit'], 2, "unknown verb 'predit'. Nearest: predict."),
        ([], 2, 'the following arguments are required: VERB'),
    ],
)
def test_answers_without_importing_torch(argv, code, text):
    done = subprocess.run([sys.executable, '-c', WITHOUT_TORCH, *argv], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert text in done.stdout + done.stderr


def test_a_verb_needs_the_package():
    """The judge of the test above: these modules are out of reach there."""
    done = subprocess.run([sys.executable, '-c', WITHOUT_TORCH, 'get', '--list'], capture_output=True, text=True)
    assert done.returncode == 1 and 'ModuleNotFoundError' in done.stderr


def test_version_of_a_source_tree_that_is_not_installed(monkeypatch, capsys):
    from importlib import metadata

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, 'version', missing)
    with pytest.raises(SystemExit) as stop:
        main(['--version'])
    assert stop.value.code == 0 and capsys.readouterr().out == f'timm_3g {timm_3g.__version__}\n'


def test_the_command_ships():
    settings = (ROOT / 'pyproject.toml').read_text()
    module, function = re.search(r'^timm-3g = "(\w+):(\w+)"$', settings, re.MULTILINE).groups()
    assert getattr(sys.modules[module], function) is main
    assert f'py-modules = ["{module}"]' in settings and (ROOT / f'{module}.py').is_file()


def test_dash_m_is_the_same_command():
    from timm_3g import __main__

    assert __main__.main is main and __main__.VERBS is VERBS


@pytest.mark.parametrize('verb', VERBS)
def test_options_for_suggestions_are_those_of_the_verb(verb):
    parser = argparse.ArgumentParser(verb)
    getattr(__import__(f'timm_3g.cli.{verb}').cli, verb).add_arguments(parser)
    expected = {option for action in parser._actions for option in action.option_strings if option.startswith('--')}
    assert expected <= set(timm_3g_cli._long_options(parser))


TOY = '''"""`timm-3g toy`: says a word."""

import argparse

EXAMPLE = 'timm-3g toy hello --times 2'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument('word', metavar='WORD', help='what to say')
    parser.add_argument('--times', type=int, default=1, metavar='N', help='how often (1)')


def run(args: argparse.Namespace) -> None:
    """Print the word."""
    if args.times < 1:
        raise ValueError(f'--times must be at least 1; got {args.times}.')
    print(args.word * args.times)
'''


def test_adding_a_verb(tmp_path, monkeypatch, capsys):
    """In the two steps that CONTRIBUTING names: the module, and its line in VERBS."""
    (tmp_path / 'toy.py').write_text(TOY)
    monkeypatch.setattr(timm_3g.cli, '__path__', [*timm_3g.cli.__path__, str(tmp_path)])  # step 1
    monkeypatch.setitem(VERBS, 'toy', 'say a word')  # step 2

    assert main(['toy', 'hi', '--times', '2']) == 0 and capsys.readouterr().out == 'hihi\n'
    assert main(['toy', 'hi', '--times', '0']) == 1
    assert capsys.readouterr().err == 'timm-3g toy: --times must be at least 1; got 0.\n'
    for argv, text in (
        (['--help'], 'say a word'),
        (['toy', '--help'], 'example:\n  timm-3g toy hello --times 2'),
        (['tyo'], "unknown verb 'tyo'. Nearest: toy."),
        (['toy', 'hi', '--time', '2'], 'unrecognized arguments: --time 2. Nearest: --times.'),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert text in ''.join(capsys.readouterr())
    sys.modules.pop('timm_3g.cli.toy')
