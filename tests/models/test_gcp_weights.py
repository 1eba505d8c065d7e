"""Weights under `gcp`: those of the backbone, those of a run, and the way to a folder, the Hub and back."""

import argparse
import json
import logging
import sys

import pytest
import timm
import torch
from any_backbone import CONV, TOKEN, gcp
from common import FLOAT32
from PIL import Image
from timm.models import save_for_hf

from timm_3g.__main__ import main
from timm_3g.models.loading import create_loaded


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A file of a plain ConvNeXt with seven classes."""
    torch.manual_seed(3)
    net = timm.create_model(CONV, num_classes=7).eval()
    file = tmp_path_factory.mktemp('plain') / 'convnext.pth'
    torch.save({'state_dict': net.state_dict()}, file)
    return net, file


@pytest.mark.parametrize('declared', [{}, {'num_classes': -1}], ids=['python', 'train.py'])
def test_weights_of_the_backbone_go_under_a_random_head(plain, caplog, declared):
    net, file = plain
    with caplog.at_level(logging.INFO, 'timm_3g'):
        model = gcp(pretrained=True, pretrained_cfg_overlay={'file': str(file), **declared}).eval()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f'gcp: the weights of {CONV} are loaded under a random head. Train it before use.'
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.forward_features(x), net.forward_features(x)) and model.num_classes == 10
    assert 'file' not in model._model_args and not model.pretrained_cfg.get('state_dict')


def test_features_of_the_backbone_come_without_a_warning(plain, caplog):
    model = gcp(pretrained=True, pretrained_cfg_overlay={'file': str(plain[1])}, features_only=True).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = plain[0].forward_intermediates(x, intermediates_only=True, norm=False)
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True)) and not caplog.records


def test_weights_of_the_backbones_tag_take_timms_own_path(plain, monkeypatch):
    """What timm asks its Hub for is the backbone's repository, once; without network the error says what to do."""
    asked = []

    def download(repo_id, *args, **kwargs):
        asked.append(repo_id)
        return str(plain[1])

    monkeypatch.setattr('timm.models._hub.hf_hub_download', download)
    with pytest.raises(ValueError, match=r'These are no weights for the backbone convnext_atto\.d2_in1k: '):
        gcp('convnext_atto.d2_in1k', pretrained=True)
    assert set(asked) == {'timm/convnext_atto.d2_in1k'}

    def offline(*args, **kwargs):
        raise OSError('no network')

    monkeypatch.setattr('timm.models._hub.hf_hub_download', offline)
    with pytest.raises(
        RuntimeError, match=r'of the backbone convnext_atto\.d2_in1k cannot be fetched: no network.*dict\(file='
    ):
        gcp('convnext_atto.d2_in1k', pretrained=True)


def test_foreign_weights_are_refused(plain, tmp_path):
    with pytest.raises(ValueError, match='These are no weights for the backbone resnet10t: '):
        gcp('resnet10t', pretrained=True, pretrained_cfg_overlay={'file': str(plain[1])})
    part = {k: v for k, v in plain[0].state_dict().items() if not k.startswith('stages.3')}
    torch.save(part, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'no weights for the backbone .*Missing key.*stages\.3'):
        gcp(pretrained=True, pretrained_cfg_overlay={'file': str(tmp_path / 'part.pth')})


def test_a_bare_state_dict_of_the_whole_network(tmp_path):
    """Without a reduction the pooling has no tensors: what tells it is the name of the classifier."""
    model = gcp(reduce_dim=0).eval()
    torch.save(model.state_dict(), tmp_path / 'bare.pth')
    overlay = {'file': str(tmp_path / 'bare.pth'), 'num_classes': 10}
    again = gcp(reduce_dim=0, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))


def test_a_bare_state_dict_where_the_backbone_has_a_classifier_too(tmp_path):
    """Then its columns tell."""
    options = {'backbone': 'test_efficientnet', 'out_index': -2, 'first_order': True, 'reduce_dim': 0, 'num_classes': 4}
    model = gcp(**options)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'bare.pth')
    overlay = {'file': str(tmp_path / 'bare.pth'), 'num_classes': 4}
    again = gcp(**options, pretrained=True, pretrained_cfg_overlay=overlay)
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


def test_files_of_jax_go_to_the_backbones_own_loader(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(
        'timm.models.vision_transformer.VisionTransformer.load_pretrained', lambda net, file: taken.append(file)
    )
    gcp('test_vit', pretrained=True, pretrained_cfg_overlay={'file': str(tmp_path / 'a.npz')})
    assert taken == [str(tmp_path / 'a.npz')]


@pytest.mark.parametrize(
    ('backbone', 'resized'),
    [('test_vit', 'pos_embed'), ('swin_tiny_patch4_window7_224', 'layers.0.blocks.0.attn.relative_position_bias_table')],
)
@pytest.mark.filterwarnings('ignore:torch.searchsorted', 'ignore:Using a non-tuple sequence')  # timm's own, of Swin's tables
def test_weights_of_a_whole_transformer_at_another_size_of_images(backbone, resized, tmp_path):
    """What belongs to the size is resized as timm does it, and the rest is as it was."""
    options = {'backbone': backbone, 'reduce_dim': 8, 'num_classes': 3}
    size, other = (64, 96) if backbone == 'test_vit' else (224, 384)
    window = {} if backbone == 'test_vit' else {'window_size': 12}
    model, plain = gcp(**options, img_size=size), timm.create_model(backbone, img_size=other, **window)
    save_for_hf(model, tmp_path)
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, img_size=other, **window)
    before, after = model.state_dict(), again.state_dict()
    filter_fn = sys.modules[type(plain).__module__].checkpoint_filter_fn
    torch.testing.assert_close(after[resized], filter_fn({resized: before[resized]}, plain)[resized])
    assert after[resized].shape == plain.state_dict()[resized].shape != before[resized].shape
    same = {name for name in after if after[name].shape == before[name].shape}
    assert all(torch.equal(after[name], before[name]) for name in same) and len(same) > len(after) - 26


def test_weights_of_two_first_convolutions_at_another_number_of_channels(tmp_path):
    model = gcp('fastvit_t8', num_classes=3)
    save_for_hf(model, tmp_path)
    again = timm.create_model(f'local-dir:{tmp_path}', pretrained=True, in_chans=1)
    first = 'stem.0.conv_kxk.0.conv.weight'
    torch.testing.assert_close(again.state_dict()[first], model.state_dict()[first].sum(1, keepdim=True))


def test_images_of_another_size_than_the_network_is_built_for(tmp_path, capsys):
    options = {'backbone': TOKEN, 'reduce_dim': 8, 'img_size': 64, 'num_classes': 3}
    args = argparse.Namespace(model='gcp', gp='isqrt', num_classes=3, model_kwargs=options)
    torch.save({'state_dict': gcp(**options).state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    Image.new('RGB', (80, 80)).save(tmp_path / 'a.png')
    command = ['predict', str(tmp_path / 'a.png'), '--model', 'gcp', '--checkpoint', str(tmp_path / 'last.pth.tar')]
    assert main([*command, '--img-size', '96']) == 1
    assert '--model-kwargs img_size=96' in capsys.readouterr().err
    assert main([*command, '--img-size', '96', '--model-kwargs', 'img_size=96']) == 0


@pytest.mark.parametrize('img_size', [96, (64, 96)])
def test_a_run_at_another_image_size_is_known(tmp_path, capsys, img_size):
    options = {'backbone': TOKEN, 'reduce_dim': 8, 'img_size': img_size}
    model = timm.create_model('gcp', num_classes=3, global_pool='isqrt', **options).eval()
    args = argparse.Namespace(model='gcp', gp='isqrt', num_classes=3, model_kwargs=options)
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    x = torch.randn(1, 3, *([img_size] * 2 if isinstance(img_size, int) else img_size))
    assert torch.equal(create_loaded('gcp', tmp_path / 'last.pth.tar').eval()(x), model(x))
    assert main(['export', str(tmp_path / 'last.pth.tar'), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    assert torch.equal(timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True).eval()(x), model(x))
    args.model_kwargs['img_size'] = 'large'
    torch.save({'state_dict': model.state_dict(), 'args': args}, tmp_path / 'last.pth.tar')
    with pytest.raises(ValueError, match='img_size must be a finite int'):
        create_loaded('gcp', tmp_path / 'last.pth.tar')
    capsys.readouterr()


def test_a_random_head_is_never_evaluated():
    with pytest.raises(ValueError, match='convnext_atto_3g names no weights of its own'):
        create_loaded('convnext_atto_3g')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint as timm's train.py writes it, and its model."""
    options = {'backbone': CONV, 'reduce_dim': 16, 'num_iters': 3, 'out_index': -2, 'first_order': True}
    model = timm.create_model('gcp', num_classes=5, global_pool='isqrt', **options).eval()
    args = argparse.Namespace(model='gcp', gp='isqrt', num_classes=5, model_kwargs=options, bn_eps=None)
    file = tmp_path_factory.mktemp('run') / 'model_best.pth.tar'
    torch.save({'state_dict': model.state_dict(), 'args': args, 'epoch': 3}, file)
    return model, file


def test_from_training_to_a_folder_and_back(trained, tmp_path, monkeypatch, capsys):
    """No request for the backbone's weights, equal logits, sha256 and refusals as for other models."""
    model, file = trained
    monkeypatch.setattr('timm.models._hub.hf_hub_download', lambda *a, **k: pytest.fail('asked the Hub'))
    assert main(['export', str(file), '--output', str(tmp_path / 'out'), '--license', 'mit', '--model', 'gcp.toy']) == 0
    config = json.loads((tmp_path / 'out' / 'config.json').read_text())
    assert config['architecture'] == 'gcp' and len(config['sha256']) == 64
    assert config['model_args'].items() >= {'backbone': CONV, 'out_index': -2, 'first_order': True, 'num_iters': 3}.items()
    folder = f'local-dir:{tmp_path / "out"}'
    again = timm.create_model(folder, pretrained=True).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and tuple(again.pretrained_cfg['mean']) == model.pretrained_cfg['mean']
    assert torch.equal(create_loaded(folder).eval()(x), model(x)) and torch.equal(
        create_loaded('gcp', file).eval()(x), model(x)
    )
    for options, message in (
        ({'backbone': 'convnext_atto'}, f"backbone: weights '{CONV}', model 'convnext_atto'"),
        ({'global_pool': 'cov'}, "weights are of global_pool='isqrt'.*the model has 'cov'"),
        ({'num_iters': 5}, 'num_iters: weights 3, model 5'),
        ({'triangle': 'lower'}, "triangle: weights 'upper', model 'lower'"),
        ({'out_index': 3}, 'out_index: weights 2, model 3'),
        ({'first_order': False}, 'first_order: weights True, model False'),
        ({'output_stride': 16}, 'output_stride: weights None, model 16'),
    ):
        with pytest.raises(ValueError, match=message):
            timm.create_model(folder, pretrained=True, **options)
    damaged = bytearray((tmp_path / 'out' / 'model.safetensors').read_bytes())
    damaged[-5] ^= 1
    (tmp_path / 'out' / 'model.safetensors').write_bytes(damaged)
    with pytest.raises(ValueError, match='is not the published file'):
        timm.create_model(folder, pretrained=True)
    capsys.readouterr()


@pytest.mark.parametrize('key', ['checkpoint_path', 'backbone_weights'])
def test_a_config_names_no_other_file(trained, tmp_path, capsys, key):
    """What would reach timm.create_model of the backbone."""
    assert main(['export', str(trained[1]), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    capsys.readouterr()
    file = tmp_path / 'out' / 'config.json'
    config = json.loads(file.read_text())
    config['model_args'][key] = {'url': 'http://127.0.0.1/other.pth'}
    file.write_text(json.dumps(config))
    with pytest.raises((TypeError, ValueError), match=key):
        timm.create_model(f'local-dir:{tmp_path / "out"}')
    with pytest.raises((TypeError, ValueError), match=key):
        timm.create_model(f'local-dir:{tmp_path / "out"}', pretrained=True)


def test_to_the_hub_and_back(trained, hub, capsys):
    """Nothing but its own repository is asked for."""
    model, file = trained
    assert main(['publish', str(file), '--model', 'gcp.toy', '--license', 'mit', '--repo', 'acme/gcp.toy']) == 0
    capsys.readouterr()
    hub.requests.clear()
    again = timm.create_model('hf-hub:acme/gcp.toy', pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and again.pretrained_cfg['tag'] == 'toy'
    assert all('acme/gcp.toy' in path or 'lfs' in path for _, path, *_ in hub.requests) and hub.requests


def test_a_checkpoint_of_train_is_known_by_its_arguments(trained):
    model, file = trained
    options = {'reduce_dim': 16, 'num_iters': 3, 'out_index': 2, 'first_order': True, 'num_classes': 5}
    overlay = {'file': str(file), 'num_classes': 5}
    again = gcp(pretrained=True, pretrained_cfg_overlay=overlay, **options).eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match='first_order: weights True, model False'):
        gcp(pretrained=True, pretrained_cfg_overlay=overlay, **{**options, 'first_order': False})
    with pytest.raises(ValueError, match='output_stride: weights None, model 16'):
        gcp(pretrained=True, pretrained_cfg_overlay=overlay, output_stride=16, **options)


@pytest.mark.slow
def test_through_the_wrapper_of_transformers(trained, tmp_path, capsys):
    from transformers import TimmWrapperForImageClassification

    model, file = trained
    assert main(['export', str(file), '--output', str(tmp_path / 'out'), '--license', 'mit']) == 0
    wrapped = TimmWrapperForImageClassification.from_pretrained(tmp_path / 'out').eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(wrapped(x).logits, model(x), **FLOAT32)
    capsys.readouterr()
