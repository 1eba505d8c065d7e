"""validate and predict called from Python: a name or a model, options by position or by name, and what is refused."""

import json

import pytest
import timm
import torch
from common import SMALL, image_folder

from timm_3g.__main__ import main
from timm_3g.inference import ModelOptions, ValidateOptions, predict, validate
from timm_3g.inference.validate import evaluate

NAME = f'{SMALL}.cifar10'
HERE = {'device': 'cpu', 'workers': 0}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp('data'), {'val': 4}, classes=3)


@pytest.fixture(scope='module')
def model():
    return timm.create_model(NAME, pretrained=True).eval()


def test_a_model_gives_what_its_name_gives(data, model):
    by_name = validate(NAME, data, split='val', **HERE)
    by_model = validate(ValidateOptions(model, data, split='val', **HERE))
    for name in ('images', 'top1_count', 'top5_count', 'img_size', 'crop_pct', 'tag', 'param_count', 'device'):
        assert getattr(by_name, name) == getattr(by_model, name), name
    assert (by_name.model, by_model.model, by_name.images) == (NAME, SMALL, 12)
    found = predict(NAME, data, **HERE)
    assert found == predict(model, [data / 'val'], batch_size=5, **HERE)
    assert [prediction.file for prediction in found] == sorted(data.rglob('*.png'))


def test_predictions_are_those_of_the_command_line(data, model, capsys):
    assert main(['predict', str(data), '--model', NAME, '--json', '--topk', '2', '-j', '0', '--device', 'cpu']) == 0
    printed = json.loads(capsys.readouterr().out)
    for entry, prediction in zip(printed, predict(model, data, topk=2, workers=0), strict=True):
        assert entry['file'] == str(prediction.file)
        assert entry['top'] == [{'class': c.name, 'index': c.index, 'probability': c.probability} for c in prediction.classes]
        assert len(prediction.classes) == 2 and not prediction.failed


def test_a_damaged_image_is_a_prediction_with_an_error(tmp_path, model):
    (tmp_path / 'a.png').write_text('no image')
    (found,) = predict(model, tmp_path / 'a.png', workers=0)
    assert found.classes == () and found.failed == 'read' and found.error.startswith('UnidentifiedImageError')


def test_the_model_computes_where_its_parameters_are(model):
    assert ModelOptions(model).torch_device == torch.device('cpu')
    assert ModelOptions(timm.create_model(SMALL, device='meta').eval()).torch_device == torch.device('meta')
    assert ModelOptions(NAME, device='cpu').torch_device == torch.device('cpu')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'checkpoint': 'a.pth'}, 'checkpoint applies to the name of a model; got a model that has its weights'),
        ({'num_classes': 3}, 'num_classes applies to the name of a model'),
        ({'gp': 'avg'}, 'gp applies to the name of a model'),
        ({'model_kwargs': {'num_iters': 3}}, 'model_kwargs applies to the name of a model'),
        ({'amp_dtype': 'float8'}, "amp_dtype must be one of float16, bfloat16; got 'float8'"),
        ({'crop_mode': 'big'}, "crop_mode must be one of center, squash, border; got 'big'"),
        ({'crops': 2}, 'crops must be 1 or 10; got 2'),
        ({'batch_size': 0}, 'batch_size must be at least 1; got 0'),
        ({'workers': -1}, 'workers must be at least 0; got -1'),
        ({'mean': [0.1, 0.2]}, r'mean must be one number, or one for each of 3 channels; got \[0.1, 0.2\]'),
        ({'data_dir': None}, r'Name the data: a folder or tar file \(data_dir\)'),
    ],
)
def test_options_that_are_refused(options, message, data, model):
    with pytest.raises(ValueError, match=f'^{message}'):
        validate(model, **{'data_dir': data, 'split': 'val', **HERE, **options})


def test_models_that_are_not_ready(model):
    with pytest.raises(ValueError, match=r'model must be in eval mode; .*Call model.eval\(\) first'):
        ModelOptions(timm.create_model(SMALL, device='meta'))
    with pytest.raises(ValueError, match='model must be a model of timm or its name; got Identity'):
        ModelOptions(torch.nn.Identity().eval())
    with pytest.raises(TypeError, match=r"validate has no option 'datadir'. Did you mean 'data_dir'"):
        validate(model, datadir='x')


def test_a_process_group_that_exists_is_used_and_kept(data, model, tmp_path):
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path / "group"}', rank=0, world_size=1)
    try:
        assert validate(model, data, split='val', workers=0).images == 12
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()


def test_a_model_that_is_evaluated_keeps_its_parameters(data, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    validate(model, data, split='val', crops=10, workers=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_evaluate_counts_batches_of_any_source(model):
    options = ValidateOptions(model, 'unused', workers=0)
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        labels = model(images).argmax(1)
    counts = evaluate(model, [(images[:3], labels[:3]), (images[3:], (labels[3:] + 1) % 10)], options, show=False)
    assert (counts.images, counts.top1) == (4, 3)
