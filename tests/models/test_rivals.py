"""The first-order networks of Tables 3 and 4 that timm lacks, against other implementations and the papers' formulas."""

import os
import subprocess
import sys

import onnxruntime
import pytest
import timm
import torch
from common import EXACT, FIRST_ORDER, FLOAT32, MODELS
from pytorchcv.models.pyramidnet import get_pyramidnet
from timm.layers import DropPath
from timm.models import group_parameters
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnetv2 import PreActBottleneck
from timm.utils.onnx import onnx_export
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import googlenet
from torchvision.transforms.functional import to_pil_image

from timm_3g.checkpoints import is_ours
from timm_3g.compat import count_graph_breaks
from timm_3g.models.crunet import CollectiveUnits
from timm_3g.models.pyramidnet import PyramidUnit
from timm_3g.models.resnet_a2 import DoubleAttention
from timm_3g.models.resnet_sort import SortBasicBlock, SortBottleneck
from timm_3g.training import read_summary
from timm_3g.training.digits_demo import load_digits

# Parameters, and multiply-adds in units of 1e9 for one image of 224 px.
SIZES = {
    'resnet50_sort': (25_557_032, 4.09),  # those of ResNet-50
    'resnet101_sort': (44_549_160, 7.80),  # those of ResNet-101
    # Those of ResNet-50, and of a block of c channels 4 c (c / 2) weights, c / 2 biases, 2 c of BatchNorm.
    'resnet50_a2': (25_557_032 + sum(2 * c * c + c // 2 + 2 * c for c in (512, 512, 1024, 1024, 1024)), 6.66),
    'crunet116': (43_912_616, 10.72),
    'pyramidnet200': (62_368_168, 16.55),
    'googlenet_places': (5_974_029, 1.50),
}
# Smaller networks of the same classes.
SMALL_ONES = {
    'resnet50_sort': {'layers': (1, 1, 1, 1)},
    'resnet101_sort': {'layers': (1, 1, 1, 1)},
    'resnet50_a2': {'layers': (1, 2, 2, 1)},
    'crunet116': {'layers': (1, 3, 3, 1), 'widths': (32, 32, 64, 64), 'channels': (64, 64, 128, 256)},
    'pyramidnet200': {'layers': (1, 1, 1, 1), 'alpha': 16},
    'googlenet_places': {},
}
CLASSES = [name for name in FIRST_ORDER if name != 'resnet101_sort']  # one network of each


def small(name, **options):
    return timm.create_model(name, **{'num_classes': 10, **SMALL_ONES[name], **options})


def test_the_registry():
    """A network of this package has our head or stands here. These are timm's to all that reads checkpoints."""
    assert set(SIZES) == set(FIRST_ORDER) and not any(map(is_ours, FIRST_ORDER)) and not set(FIRST_ORDER) & set(MODELS)
    for name in FIRST_ORDER:
        assert timm.models.get_pretrained_cfg(name).architecture == name


@pytest.mark.parametrize('name', SIZES)
def test_parameters_and_multiply_adds(name):
    model = timm.create_model(name, device='meta').eval()
    parameters, multiply_adds = SIZES[name]
    assert sum(p.numel() for p in model.parameters()) == parameters
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device='meta'))
    assert round(counter.get_total_flops() / 2e9, 2) == multiply_adds


def randomize_batch_norms(model):
    """Statistics and scales away from 0 and 1, so that a BatchNorm in another place shows."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight):
                torch.nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.running_mean, module.bias):
                torch.nn.init.uniform_(tensor, -0.1, 0.1)


@torch.no_grad()
def test_pyramidnet_is_that_of_pytorchcv():
    theirs = get_pyramidnet(blocks=200, alpha=300).eval()
    theirs.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)  # 7 x 7 otherwise: too large for a small image
    randomize_batch_norms(theirs)
    ours = timm.create_model('pyramidnet200', device='meta').eval()
    copied = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(copied, assign=True)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x), **FLOAT32)


def test_an_odd_side_is_halved_upwards():
    """By the convolution and by the shortcut: 224 px have 7 x 7 in the last stage, and 200 px 13 in front of it."""
    assert PyramidUnit(8, 4, stride=2)(torch.randn(2, 8, 13, 13)).shape == (2, 16, 7, 7)


@torch.no_grad()
def test_googlenet_is_torchvisions():
    theirs = googlenet(num_classes=365, aux_logits=False, init_weights=False).eval()
    randomize_batch_norms(theirs)
    ours = timm.create_model('googlenet_places').eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 80, 80)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)
    ours.set_grad_checkpointing()
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize('stride', [1, 2])
def test_a_unit_of_sort_is_the_formula(stride):
    """F is timm's unit without shortcut and last ReLU."""
    project = torch.nn.Conv2d(16, 16, 1, stride=stride) if stride == 2 else None
    unit = SortBottleneck(16, 4, stride, project).double().eval()
    randomize_batch_norms(unit)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64).relu()
    branch = F.relu(unit.bn2(unit.conv2(F.relu(unit.bn1(unit.conv1(x))))))
    branch = unit.bn3(unit.conv3(branch))
    shortcut = x if project is None else project.double()(x)
    product = shortcut.clamp(min=0) * branch.clamp(min=0)
    torch.testing.assert_close(unit(x), F.relu(shortcut + branch + (product + 0.01).sqrt()), **EXACT)
    assert all(type(m) is SortBottleneck for m in small('resnet50_sort').modules() if isinstance(m, Bottleneck))


@torch.no_grad()
def test_the_small_network_of_sort_is_the_small_member_with_other_sums():
    ours = timm.create_model('resnet10_mini_sort').double().eval()
    randomize_batch_norms(ours)
    unit, x = ours.layer2[0], torch.randn(2, 32, 8, 8, dtype=torch.float64).relu()
    branch = unit.bn2(unit.conv2(F.relu(unit.bn1(unit.conv1(x)))))
    shortcut = unit.downsample(x)
    product = shortcut.clamp(min=0) * branch.clamp(min=0)
    torch.testing.assert_close(unit(x), F.relu(shortcut + branch + (product + 0.01).sqrt()), **EXACT)
    plain = timm.create_model('resnet10_mini_3g', global_pool='avg', num_classes=10)
    assert plain.state_dict().keys() == ours.state_dict().keys() and type(ours) is type(plain)
    assert all(isinstance(m, SortBasicBlock) for m in ours.modules() if isinstance(m, BasicBlock))


@torch.no_grad()
def test_the_small_a2_net_starts_as_the_small_member():
    ours = timm.create_model('resnet10_mini_a2', bn_eps=1e-3).eval()
    plain = timm.create_model('resnet10_mini_3g', global_pool='avg', num_classes=10, bn_eps=1e-3).eval()
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and {name.split('.')[1] for name in missing} == {'0_attention'}
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), plain(x), **FLOAT32)
    assert {m.eps for m in ours.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


@torch.no_grad()
def test_a_new_a2_net_is_the_plain_resnet():
    ours = small('resnet50_a2').eval()
    plain = timm.create_model('resnet50', layers=(1, 2, 2, 1), num_classes=10).eval()
    missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and {name.split('.')[1] for name in missing} == {'1_attention'}
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours(x), plain(x), **FLOAT32)
    blocks = [module for module in ours.modules() if isinstance(module, DoubleAttention)]
    for block in blocks:
        torch.nn.init.ones_(block.bn.weight)
    assert len(blocks) == 2 and not torch.allclose(ours(x), plain(x), **FLOAT32)


def test_plain_weights_go_into_a2_and_keep_their_function(tmp_path):
    plain = timm.create_model('resnet50', num_classes=5).eval()
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    overlay = {'file': str(tmp_path / 'plain.pth'), 'num_classes': 5}
    model = timm.create_model('resnet50_a2', num_classes=5, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), plain(x))


def test_blocks_of_a2_initialized_anew_are_as_new():
    model = timm.create_model('resnet10_mini_a2')
    before = {name: float(p.detach().std()) for name, p in model.named_parameters() if '_attention' in name and p.ndim == 4}
    model.init_weights()
    for name, deviation in before.items():
        assert float(model.get_parameter(name).detach().std()) == pytest.approx(deviation, rel=0.1)


def test_googlenet_takes_torchvisions_file_with_auxiliary_heads(tmp_path):
    whole = googlenet(num_classes=5, aux_logits=True, init_weights=False)
    torch.save(whole.state_dict(), tmp_path / 'whole.pth')
    overlay = {'file': str(tmp_path / 'whole.pth'), 'num_classes': 5}
    model = timm.create_model('googlenet_places', num_classes=5, pretrained=True, pretrained_cfg_overlay=overlay)
    assert torch.equal(model.fc.weight, whole.fc.weight)
    four = timm.create_model('googlenet_places', in_chans=4).conv1.conv.weight
    assert float(four.detach().std()) == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(('classes', 'megabytes'), [(1000, 168), (365, 163)])
def test_crunet_has_116_layers_and_the_size_of_the_published_files(classes, megabytes):
    """Those of ImageNet and Places365, in units of 2^20 bytes: parameters and statistics of the BatchNorms."""
    model = timm.create_model('crunet116', num_classes=classes, device='meta').eval()
    stored = [tensor for name, tensor in model.state_dict().items() if not name.endswith('num_batches_tracked')]
    assert round(sum(tensor.numel() for tensor in stored) * 4 / 2**20) == megabytes
    calls = []
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)) and 'downsample' not in name:
            module.register_forward_hook(lambda *_: calls.append(1))
    model(torch.empty(1, 3, 64, 64, device='meta'))
    assert len(calls) == 116


@torch.no_grad()
def test_collective_units_are_the_formula():
    units = CollectiveUnits(16, 16, 8, groups=2, drop_paths=(0.0, 0.0)).double().eval()
    randomize_batch_norms(units)
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    expected = x
    for unit in units.units:
        layers = (units.conv1, units.conv2, unit.conv3, unit.conv4)
        branch = expected
        for bn, conv in zip((unit.norm1, unit.norm2, unit.norm3, unit.norm4), layers, strict=True):
            branch = F.batch_norm(branch, bn.running_mean, bn.running_var, bn.weight, bn.bias, False, 0.0, bn.eps).relu()
            branch = F.conv2d(branch, conv.weight, None, 1, conv.kernel_size[0] // 2, 1, conv.groups)
        expected = expected + branch
    torch.testing.assert_close(units(x), expected, **EXACT)


def test_which_units_of_crunet_share_their_convolutions():
    model = timm.create_model('crunet116', device='meta')
    assert [[len(getattr(block, 'units', (1,))) for block in stage.blocks] for stage in model.stages] == [
        [1, 1, 1],
        [1, 3, 2],
        [1, 3, 3, 3, 3, 3, 2],
        [1, 1, 1],
    ]
    assert isinstance(model.stages[0].blocks[0], PreActBottleneck)
    rates = [m.drop_prob for m in small('crunet116', drop_path_rate=0.7).modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_crunet_refuses_what_has_no_meaning():
    with pytest.raises(ValueError, match='Units that share convolutions must keep channels and stride; got 16 to 32 channels'):
        CollectiveUnits(16, 32, 8, groups=2, drop_paths=(0.0, 0.0))
    with pytest.raises(ValueError, match=r'widths must be four numbers, one for each stage; got \(128, 320\)'):
        timm.create_model('crunet116', widths=(128, 320))


def test_where_the_blocks_of_a2_stand():
    modules = timm.create_model('resnet50_a2', device='meta').named_modules()
    names = [name for name, module in modules if isinstance(module, DoubleAttention)]
    assert names == [f'{unit}_attention' for unit in ('layer2.1', 'layer2.3', 'layer3.1', 'layer3.3', 'layer3.5')]


def test_a_block_of_a2_has_the_rate_of_its_unit():
    model = timm.create_model('resnet50_a2', device='meta')
    layer = group_parameters(model, model.group_matcher(), reverse=True)
    assert layer['layer2.1_attention.gather.weight'] == layer['layer2.1.conv1.weight'] < layer['layer2.2.conv1.weight']


@pytest.mark.parametrize('name', FIRST_ORDER)
def test_maps_have_the_channels_and_the_strides_that_they_state(name):
    model = small(name, features_only=True)
    maps = model(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == model.feature_info.channels()
    assert [64 // m.shape[2] for m in maps] == model.feature_info.reduction() == [2, 4, 8, 16, 32]


@pytest.mark.parametrize('name', ['crunet116', 'pyramidnet200', 'googlenet_places'])
def test_another_stride_is_refused(name):
    with pytest.raises(ValueError, match='output_stride must be 32; got 16'):
        small(name, output_stride=16)


def test_pyramidnet_refuses_what_would_drop_channels():
    with pytest.raises(ValueError, match='planes must be at least 16 for 64 input channels; got 15'):
        PyramidUnit(64, 15)
    with pytest.raises(ValueError, match=r'layers must be four numbers of units, each at least 1; got \(1, 1, 1\)'):
        small('pyramidnet200', layers=(1, 1, 1))


def test_googlenet_keeps_its_head_where_nothing_is_pruned():
    model = small('googlenet_places', global_pool='catavgmax')
    assert model.prune_intermediate_layers([4], prune_head=False) == [4]
    assert model.head_hidden_size == 2048 and model(torch.randn(2, 3, 64, 64)).shape == (2, 10)
    assert model.prune_intermediate_layers([1]) == [1] and model.num_features == model.head_hidden_size == 192


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('name', CLASSES)
def test_a_step_under_autocast_is_finite(name, dtype):
    model = small(name)
    with torch.autocast('cpu', dtype):
        logits = model(torch.randn(2, 3, 64, 64))
    logits.float().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize('name', FIRST_ORDER)
def test_they_are_backbones_of_a_second_order_head(name):
    model = timm.create_model('gcp', backbone=name, num_classes=10, reduce_dim=16, **SMALL_ONES[name])
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 10)


@pytest.mark.slow
# What torch's first exporter makes of padding channels. The export is right.
@pytest.mark.filterwarnings('ignore:Constant folding - Only steps=1:UserWarning')
@pytest.mark.parametrize('name', CLASSES)
def test_onnx_and_one_graph(name, tmp_path):
    """By both exporters where an operation is ours, and without a break for torch.compile."""
    x = torch.randn(2, 3, 64, 64)
    model = small(name, exportable=True).eval()
    assert count_graph_breaks(model, x) == 0
    for dynamo in (False, True) if name in ('resnet50_sort', 'resnet50_a2') else (False,):
        onnx_export(model, str(tmp_path / 'model.onnx'), batch_size=2, input_size=(3, 64, 64), use_dynamo=dynamo)
        session = onnxruntime.InferenceSession(str(tmp_path / 'model.onnx'))
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), model(x).detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('name', [*CLASSES, 'resnet50_fbn'])
def test_an_epoch_on_digits(name):
    """The loss falls while a network sees 800 real images once. Seen by us with two seeds: by 40 to 84 %."""
    x, y, *_ = load_digits(0)
    model = timm.create_model(name, num_classes=10, in_chans=1, **small_options(name))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for batch in torch.randperm(len(x))[:800].split(16):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[batch]), y[batch])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10]), losses


def small_options(name):
    """Of a network of this class that trains in seconds."""
    return SMALL_ONES.get(name, {}) | ({'channels': (16, 32, 64, 128)} if name.startswith('resnet') else {})


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    """An ImageFolder of scikit-learn's digits: 800 to train on, 360 to evaluate."""
    folder = tmp_path_factory.mktemp('digits')
    x, y, held_out_x, held_out_y = load_digits(0)
    for split, images, labels in (('train', x[:800], y), ('val', held_out_x, held_out_y)):
        for index, (image, label) in enumerate(zip(images, labels, strict=False)):
            file = folder / split / str(int(label)) / f'{index}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            to_pil_image((image - image.min()) / (image.max() - image.min())).save(file)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', [*CLASSES, 'resnet50_fbn'])
def test_an_epoch_of_train_py_on_digits(name, digits, timm_script, tmp_path):
    """Real images of 32 px, one epoch, AdamW. Seen by us: 35 to 85 %, where guessing has 10."""
    options = small_options(name)
    command = [
        *(sys.executable, '-m', 'timm_3g', 'train', '--timm-scripts', str(timm_script('train.py').parent)),
        *('--model', name, '--model-kwargs', *(f'{key}={value!r}'.replace(' ', '') for key, value in options.items())),
        *('--data-dir', str(digits), '--val-split=val', '--num-classes=10', '--img-size=32'),
        *('--device=cpu', '--epochs=1', '-b=16', '--opt=adamw', '--lr=2e-3', '--warmup-epochs=0', '--no-aug', '--seed=0'),
        *('-j=0', '--no-prefetcher', f'--output={tmp_path}', '--experiment=run'),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    summary = read_summary(tmp_path / 'run')
    assert summary.column('train_loss')[-1] < 2.2 and summary.column('eval_top1')[-1] > 25, summary


def test_pyramidnet_trains_with_gradient_checkpointing():
    images, grads = torch.rand(2, 3, 64, 64), []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = timm.create_model('pyramidnet200', layers=(1, 1, 1, 1), alpha=8, num_classes=5).train()
        model.set_grad_checkpointing(checkpointed)
        model(images).sum().backward()
        grads.append(model.conv1.weight.grad if hasattr(model.conv1, 'weight') else model.conv1[0].weight.grad)
    torch.testing.assert_close(*grads)
