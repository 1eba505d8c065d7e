"""The conftest.py that tests/timm_contract.py puts above timm's own tests: it limits timm's lists of models to ours."""

import dataclasses
import os
from operator import itemgetter

import timm
import torch
from common import REGISTERED
from timm.models import _registry


def few() -> list[str]:
    """The smallest model of every class."""
    nets = [timm.create_model(name, device='meta') for name in REGISTERED]
    sizes = [sum(p.numel() for p in net.parameters()) for net in nets]
    smallest = {
        type(net): name for _, name, net in sorted(zip(sizes, REGISTERED, nets, strict=True), reverse=True, key=itemgetter(0))
    }
    return list(smallest.values())


OURS = set(few() if os.environ['TIMM_3G_CONTRACT'] == 'few' else REGISTERED)

# Two of the tests want pretrained weights: a state dict of the right names and shapes stands in, one number expanded.
for name in OURS:
    shapes = timm.create_model(name, device='meta').state_dict()
    state_dict = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in shapes.items()}
    _registry._model_pretrained_cfgs[name] = dataclasses.replace(_registry._model_pretrained_cfgs[name], state_dict=state_dict)


def limited(original):
    def listed(*args, module='', pretrained=False, **kwargs):  # module= would skip some tests in silence
        if pretrained:
            return sorted(OURS)
        return [name for name in original(*args, **kwargs) if name.split('.')[0] in OURS]

    return listed


timm.list_models, timm.list_pretrained = limited(timm.list_models), limited(timm.list_pretrained)


def is_ours(item):
    params = item.callspec.params if hasattr(item, 'callspec') else {}
    return str(params.get('model_name', '')).split('.')[0] in OURS  # pytest puts a marker for empty lists


def pytest_collection_modifyitems(config, items):
    config.hook.pytest_deselected(items=[item for item in items if not is_ours(item)])
    items[:] = filter(is_ours, items)
    if not config.option.keyword:  # every test that timm runs on a model runs on each of ours
        tests = {item.originalname for item in items}
        assert len(tests) == 13, sorted(tests)
        run = {(item.originalname, item.callspec.params['model_name'].split('.')[0]) for item in items}
        assert run == {(test, model) for test in tests for model in OURS}
