"""Every public function and class has an example in its docstring, and the examples run."""

import doctest
import inspect
import pkgutil
import types
from importlib import import_module

import pytest
import torch

import timm_3g

# The package comes last: what it offers stands in a room, too, and is tested once.
FOUND = list(pkgutil.walk_packages(timm_3g.__path__, 'timm_3g.'))
PACKAGES = [module.name for module in FOUND if module.ispkg]
ROOMS = [*PACKAGES, 'timm_3g.utils.options', 'timm_3g.utils.table', 'timm_3g']
MODULES = ['timm_3g', *(module.name for module in FOUND if not module.name.endswith('__main__'))]
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


def run_example(test: doctest.DocTest) -> None:
    report: list[str] = []
    torch.manual_seed(0)
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not report, ''.join(report)


@pytest.mark.parametrize('name', PUBLIC)
def test_public_names_have_an_example(name):
    assert '>>> ' in (inspect.getdoc(PUBLIC[name]) or ''), f'{name} has no >>> example in its docstring'


@pytest.mark.parametrize('name', MODULES)
def test_the_examples_run(name):
    """Those of private functions, too."""
    module = import_module(name)
    room = vars(import_module(name.rpartition('.')[0] or name))
    for test in doctest.DocTestFinder().find(module, globs={'torch': torch, **room, **vars(module)}):
        run_example(test)


def test_examples_that_the_finder_misses_run():
    """It takes what a module defines. What a decorator or a function has made is defined elsewhere."""
    found = {test.name for name in MODULES for test in doctest.DocTestFinder().find(import_module(name)) if test.examples}
    missed = 0
    for name, value in PUBLIC.items():
        value = getattr(value, 'fget', value)  # a property
        if f'{value.__module__}.{value.__qualname__}' not in found:
            missed += 1
            names = {'torch': torch, **vars(import_module(value.__module__))}
            run_example(doctest.DocTestParser().get_doctest(inspect.getdoc(value) or '', names, name, None, None))
    assert missed, 'this test is needed no more'


def test_a_wrong_example_is_found():
    test = doctest.DocTestParser().get_doctest('>>> 1 + 1\n3\n', {}, 'wrong', None, None)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1
