"""Every public function and class has an example in its docstring, and the examples run."""

import doctest
import inspect
import types
from importlib import import_module

import pytest
import torch

import timm_3g

# The package comes last: what it offers stands in a room, too, and is tested once.
ROOMS = [
    f'timm_3g{room}'
    for room in (
        '.ops', '.mggd', '.layers', '.data', '.checkpoints', '.models', '.publishing', '.inference', '.training', '.benchmarks',
        '.figure1', '.models.loading', '.utils.options', '.utils.table', ''
    )
]  # fmt: skip
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def public_objects() -> dict[str, object]:
    """Functions and classes that the rooms offer, and the public methods of the distribution. Constants and modules are not."""
    found: dict[str, object] = {}
    for room in ROOMS:
        for name, value in vars(import_module(room)).items():
            if name.startswith('_') or isinstance(value, types.ModuleType) or not callable(value):
                continue
            if getattr(value, '__module__', '').startswith('timm_3g') and value not in found.values():
                found[f'{room}.{name}'] = value
    cls = timm_3g.mggd.MultivariateGeneralizedGaussian
    for name, value in vars(cls).items():
        if not name.startswith('_') and (callable(value) or isinstance(value, property)):
            found[f'timm_3g.mggd.{cls.__name__}.{name}'] = value
    return found


PUBLIC = public_objects()


def examples_of(name: str) -> doctest.DocTest:
    room = max((room for room in ROOMS if name.startswith(f'{room}.')), key=len)
    doc = inspect.getdoc(PUBLIC[name]) or ''
    own = import_module(getattr(PUBLIC[name], '__module__', room))
    names = {'torch': torch, **vars(import_module(room)), **vars(own)}  # as `doctest` gives to examples of a module
    return doctest.DocTestParser().get_doctest(doc, names, name, None, None)


@pytest.mark.parametrize('name', PUBLIC)
def test_the_examples_run(name):
    test = examples_of(name)
    assert test.examples, f'{name} has no >>> example in its docstring'
    report: list[str] = []
    torch.manual_seed(0)
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not report, ''.join(report)


def test_a_wrong_example_is_found():
    test = doctest.DocTestParser().get_doctest('>>> 1 + 1\n3\n', {}, 'wrong', None, None)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1
