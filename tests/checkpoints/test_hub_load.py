"""Loading from the Hub, its cache and folders, and the refusal of what is not as it was published. conftest's `hub`."""

import copy
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from common import SMALL
from fakehub import CUT, DROP
from PIL import Image
from safetensors.torch import load_file, save_file

from timm_3g.__main__ import main
from timm_3g.checkpoints import hub as _hub
from timm_3g.publishing import export

NAME = f'{SMALL}.birds'
REPO = f'acme/{NAME}'
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(3)
    return timm.create_model(SMALL, num_classes=4).eval()


@pytest.fixture(scope='module')
def exported(model, tmp_path_factory):
    file = tmp_path_factory.mktemp('run') / 'best.pth'
    torch.save(model.state_dict(), file)
    return export(file, NAME, output=tmp_path_factory.mktemp('exported') / NAME).path


@pytest.fixture
def folder(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / NAME))


@pytest.fixture(scope='module')
def what_was_published():
    """The repositories and files of the Hub after the one push; filled by the first test that asks for `published`."""
    return {}


@pytest.fixture
def published(hub, exported, what_was_published):
    if not what_was_published:
        assert main(['publish', str(exported), '--repo', REPO, '--tag', 'v1']) == 0
        what_was_published |= {'repos': copy.deepcopy(hub.repos), 'lfs': dict(hub.lfs)}
    hub.repos.update(copy.deepcopy(what_was_published['repos']))
    hub.lfs.update(what_was_published['lfs'])
    hub.requests.clear()
    return hub


@pytest.fixture
def logits(model):
    return run(model)


@torch.no_grad()
def run(model):
    return model(IMAGE)


def load(name, **kwargs):
    return timm.create_model(name, pretrained=True, **kwargs).eval()


def by_registry(**overlay):
    """As `pretrained=True` goes when the owner of the repositories is set: timm's pretrained_cfg names one."""
    return load(SMALL, pretrained_cfg_overlay={'file': None, 'num_classes': 4, **overlay})


ON_HUB = {'hf_hub_id': REPO, 'hf_hub_filename': 'model.safetensors'}


# Where from.


def test_every_way_gives_the_same_logits(published, exported, logits):
    commit = published.repos[REPO].refs['main']
    for name in (
        f'hf-hub:{REPO}',
        f'hf-hub:{REPO}@v1',
        f'hf-hub:{REPO}@main',
        f'hf-hub:{REPO}@{commit}',
        f'local-dir:{exported}',
    ):
        assert torch.equal(run(load(name)), logits), name
    assert torch.equal(run(by_registry(**ON_HUB)), logits)
    file = str(exported / 'model.safetensors')
    assert torch.equal(run(by_registry(file=file)), logits)
    assert torch.equal(run(timm.create_model(SMALL, num_classes=4, checkpoint_path=file).eval()), logits)


def test_a_revision_is_pinned(published, folder, logits):
    other = timm.create_model(SMALL, num_classes=4)
    torch.save(other.state_dict(), folder.parent / 'other.pth')
    assert main(['publish', str(folder.parent / 'other.pth'), '--repo', REPO]) == 0
    assert torch.equal(run(load(f'hf-hub:{REPO}@v1')), logits)
    assert not torch.equal(run(load(f'hf-hub:{REPO}')), logits)


@pytest.mark.parametrize('source', [f'hf-hub:{REPO}', 'local-dir'])
@pytest.mark.parametrize(
    ('change', 'shape'),
    [
        ({'num_classes': 0}, (1, 2080)),
        ({'num_classes': 7}, (1, 7)),
        ({'num_classes': 0, 'global_pool': ''}, (1, 128, 8, 8)),
        ({'in_chans': 1}, (1, 4)),
    ],
)
def test_timms_adaptations(published, exported, model, source, change, shape):
    again = load(source if source != 'local-dir' else f'local-dir:{exported}', **change)
    image = IMAGE[:, : change.get('in_chans', 3)]
    assert again(image).shape == shape
    assert torch.equal(again.state_dict()['layer4.0.conv2.weight'], model.state_dict()['layer4.0.conv2.weight'])
    if 'global_pool' not in change:
        reduce = 'global_pool.reduce.conv.weight'
        assert torch.equal(again.state_dict()[reduce], model.state_dict()[reduce])


def test_features_only(published, model):
    maps = load(f'hf-hub:{REPO}', features_only=True)(IMAGE)
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 32, 32), (32, 32, 32), (64, 16, 16), (128, 8, 8), (128, 8, 8)]
    assert torch.equal(maps[-1], model.forward_features(IMAGE))


def test_cold_and_warm_cache(published, logits, tmp_path):
    commit = published.repos[REPO].refs['main']
    by_registry(**ON_HUB)
    downloads = [r for r in published.requests if r[0] == 'GET' and r[2] == 200]
    assert len(downloads) == 2  # config.json and model.safetensors, once each
    assert [r[3] for r in published.requests if r[4]] == [False]  # storage is asked without the token
    published.requests.clear()
    assert torch.equal(run(by_registry(**ON_HUB)), logits)
    assert [r[0] for r in published.requests] == ['HEAD']
    published.requests.clear()
    by_registry(**{**ON_HUB, 'hf_hub_id': f'{REPO}@{commit}'})
    assert not published.requests
    assert torch.equal(run(load(f'hf-hub:{REPO}', cache_dir=tmp_path / 'mine')), logits)
    assert (tmp_path / 'mine' / f'models--acme--{NAME}').is_dir()


def test_offline(published, logits, monkeypatch):
    load(f'hf-hub:{REPO}')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert torch.equal(run(load(f'hf-hub:{REPO}')), logits)
    assert torch.equal(run(by_registry(**ON_HUB)), logits)
    with pytest.raises(RuntimeError, match=rf'acme/other on the Hub: .*Tags of {SMALL}: cifar10, open_cifar10'):
        by_registry(**{**ON_HUB, 'hf_hub_id': 'acme/other'})


@pytest.mark.slow
def test_network_away_and_an_owner_in_the_environment(published, logits, tmp_path):
    """In a process of its own: timm registers at import, and its Hub is a port where nobody listens."""
    load(f'hf-hub:{REPO}')
    torch.save(logits, tmp_path / 'logits.pt')
    torch.save(IMAGE, tmp_path / 'image.pt')
    code = (
        'import timm, timm_3g, torch\n'
        'print(timm.get_pretrained_cfg("resnet50_3g").hf_hub_id, "resnet50_3g.orig_in1k" in timm.list_pretrained())\n'
        f'model = timm.create_model("hf-hub:{REPO}", pretrained=True).eval()\n'
        'with torch.no_grad(): print(torch.equal(model(torch.load("image.pt")), torch.load("logits.pt")))\n'
        'try: timm.create_model("resnet50_3g", pretrained=True)\n'
        'except RuntimeError as error: print(error)'
    )
    away = {'HF_ENDPOINT': 'http://127.0.0.1:9', 'HF_HUB_CACHE': str(tmp_path / 'hub cache'), 'TIMM_3G_HUB_OWNER': 'acme'}
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env={**os.environ, **away}, capture_output=True, text=True
    )
    owned, equal, message = done.stdout.splitlines()
    assert owned == 'acme/resnet50_3g.orig_in1k True' and equal == 'True', done.stderr
    assert 'acme/resnet50_3g.orig_in1k on the Hub: ' in message and '`timm-3g get resnet50_3g.orig_in1k`' in message
    assert 'retry' not in done.stderr.lower()


def test_a_download_that_breaks_off_is_resumed(published, logits):
    published.fail.append(('GET /_lfs/', CUT))
    with pytest.raises(RuntimeError, match='on the Hub'):
        by_registry(**ON_HUB)
    published.fail.clear()
    assert torch.equal(run(by_registry(**ON_HUB)), logits)


# Who, and when nobody.


def test_no_owner_no_network(hub):
    for name in ('resnet50_3g', 'resnet101_isqrt.mpncov_in1k'):
        with pytest.raises(RuntimeError, match=r'`timm-3g get resnet\w+\.\w+` fetches them from their authors \(http'):
            timm.create_model(name, pretrained=True)
    with pytest.raises(RuntimeError, match=r'Nobody has published any under this tag. Load a file'):
        timm.create_model('resnet152_3g', pretrained=True)
    assert not hub.requests
    assert timm.get_pretrained_cfg('resnet50_3g').hf_hub_id is None and 'resnet50_3g.orig_in1k' not in timm.list_pretrained()


def test_the_owner_is_one_setting(monkeypatch):
    cfgs = {'a_3g.orig': {'x': 1}, 'b_3g.untrained': {}, 'c_3g.mini': {'file': 'f'}}
    assert _hub.on_hub(cfgs) == cfgs
    monkeypatch.setattr(_hub, 'OWNER', 'us')
    assert _hub.on_hub(cfgs)['a_3g.orig'] == {'x': 1, 'hf_hub_id': 'us/a_3g.orig', 'hf_hub_filename': 'model.safetensors'}
    assert {k: v for k, v in _hub.on_hub(cfgs).items() if k != 'a_3g.orig'} == {
        'b_3g.untrained': {},
        'c_3g.mini': {'file': 'f'},
    }
    monkeypatch.setenv('TIMM_3G_HUB_OWNER', 'them')
    assert _hub.on_hub(cfgs)['a_3g.orig']['hf_hub_id'] == 'them/a_3g.orig'


@pytest.mark.parametrize(('fault', 'said'), [(404, 'no such repository; or a private one'), (500, '500'), (DROP, 'onnect')])
def test_a_hub_without_the_weights_is_asked_once(hub, fault, said):
    if fault != 404:
        hub.fail.append(('', fault))
    with pytest.raises(
        RuntimeError, match=rf'acme/nothing on the Hub: .*{said}.*Tags of {SMALL}: cifar10, open_cifar10.*`pretrained=False`'
    ):
        by_registry(**{**ON_HUB, 'hf_hub_id': 'acme/nothing'})
    assert len(hub.requests) == (fault != DROP)


def test_private_repositories(hub, exported, logits, monkeypatch):
    assert main(['publish', str(exported), '--repo', REPO, '--private']) == 0
    assert torch.equal(run(by_registry(**ON_HUB)), logits)
    for token in ('hf_wrong', 'hf_other', None):
        monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', f'{token} has nothing')
        monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
        with pytest.raises(RuntimeError, match=r'no such repository; or a private one|invalid token') as error:
            by_registry(**ON_HUB)
        assert not token or token not in str(error.value)


def test_no_such_revision_nor_file(published):
    with pytest.raises(RuntimeError, match='no such revision'):
        by_registry(**{**ON_HUB, 'hf_hub_id': f'{REPO}@v9'})
    main_files = published.repos[REPO].commits[published.repos[REPO].refs['main']]['files']
    main_files['pytorch_model.bin'] = main_files.pop('model.safetensors')
    with pytest.raises(RuntimeError, match=r'it lacks config.json or model.safetensors; pickles are not read from the Hub'):
        load(f'hf-hub:{REPO}')


# Integrity.


def flip(file, offset=-1):
    data = bytearray(Path(file).read_bytes())
    data[offset] ^= 1
    Path(file).write_bytes(data)


def cached(hub_cache):
    return next(Path(hub_cache).glob('**/snapshots/*/model.safetensors'))


@pytest.mark.parametrize('damage', [flip, lambda file: os.truncate(file, 1000)], ids=['flipped', 'truncated'])
@pytest.mark.parametrize('where', ['file', 'local-dir', 'hub', 'registry'])
def test_damage_is_found_before_timm_reads(published, folder, damage, where, tmp_path):
    weights = folder / 'model.safetensors'
    sources = {
        'file': lambda: by_registry(file=str(weights)),
        'local-dir': lambda: load(f'local-dir:{folder}'),
        'hub': lambda: load(f'hf-hub:{REPO}'),
        'registry': lambda: by_registry(**ON_HUB),
    }
    sources[where]()
    damage(weights if where in ('file', 'local-dir') else cached(tmp_path / 'hub cache').resolve())
    with pytest.raises(ValueError, match='is not the published file: its sha256 is'):
        sources[where]()


def test_the_hubs_own_name_is_checked_where_config_has_no_sha256(hub, folder, tmp_path):
    """As in a repository that timm's push_to_hf_hub made."""
    from huggingface_hub import HfApi

    config = json.loads((folder / 'config.json').read_text())
    config.pop('sha256')
    (folder / 'config.json').write_text(json.dumps(config))
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=folder)
    load(f'hf-hub:{REPO}')
    flip(cached(tmp_path / 'hub cache').resolve())
    with pytest.raises(ValueError, match='and the name that the Hub gave it says'):
        load(f'hf-hub:{REPO}')


class Payload:
    """A pickle that leaves a trace if it is ever executed."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.mkdir, (self.trace,)


@pytest.mark.parametrize('name', ['pytorch_model.bin', 'model.safetensors'])
def test_a_malicious_pickle_is_not_executed(folder, name, tmp_path):
    (folder / 'model.safetensors').unlink()
    change_config(folder, lambda c: c.pop('sha256'))
    (folder / name).write_bytes(pickle.dumps({'fc.weight': Payload(tmp_path / 'trace')}))
    with pytest.raises(ValueError, match=r'cannot be read as weights|is not the published file'):
        load(f'local-dir:{folder}')
    with pytest.raises(ValueError, match=r'cannot be read as weights|is not the published file'):
        by_registry(file=str(folder / name))
    assert not (tmp_path / 'trace').exists()


def change_config(folder, change):
    config = json.loads((folder / 'config.json').read_text())
    change(config)
    (folder / 'config.json').write_text(json.dumps(config))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda c: c['pretrained_cfg'].update(metrics={'top1': 99}), 'pretrained_cfg .* timm does not know: metrics'),
        (lambda c: c['model_args'].update(num_itres=5), 'contradicts the weights.*num_itres: 5, the file None'),
        (lambda c: c['model_args'].update(act_layer='silu'), "contradicts the weights.*act_layer: 'silu', the file None"),
        (lambda c: c['model_args'].update(num_classes=7), 'declares num_classes 4, and model_args has 7'),
        (lambda c: c.pop('num_classes') and c['pretrained_cfg'].update(num_classes=-1), 'declares num_classes -1'),
        (lambda c: c['pretrained_cfg'].update(hf_hub_filename='x.bin'), 'has hf_hub_filename, which names other weights'),
        (lambda c: c['pretrained_cfg'].update(state_dict={'a': 1}), 'has state_dict, which names other weights'),
        (lambda c: c['pretrained_cfg'].update(url='http://127.0.0.1/x'), 'has url, which names other weights'),
        (lambda c: c['model_args'].update(triangle='upper'), "contradicts the weights.*triangle: 'upper', the file 'lower'"),
        (lambda c: c['model_args'].update(num_iters=7), 'contradicts the weights.*num_iters: 7, the file 5'),
        (lambda c: c['model_args'].update(eps=0.0), 'contradicts the weights.*eps: 0.0, the file 1e-07'),
        (lambda c: c['model_args'].update(global_pool='isqrt'), "contradicts the weights.*global_pool: 'isqrt', the file '3g'"),
        (lambda c: c['model_args'].update(reduce_dim=32), 'contradicts the weights.*reduce_dim: 32, the file 64'),
        (lambda c: c.update(num_classes=1000), 'contradicts the weights.*num_classes: 1000, the file 4'),
        (lambda c: c.update(sha256='0' * 64), 'is not the published file'),
    ],
)
def test_config_that_lies(folder, change, message):
    change_config(folder, change)
    with pytest.raises(ValueError, match=message):
        load(f'local-dir:{folder}')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'num_iters': 7}, 'num_iters: weights 5, model 7'),
        ({'triangle': 'upper'}, "triangle: weights 'lower', model 'upper'"),
        ({'global_pool': 'isqrt'}, "These weights are of global_pool='3g'"),
        ({'num_reweights': 1}, 'num_reweights: weights 3, model 1'),
    ],
)
def test_a_caller_who_contradicts_the_weights(published, folder, change, message):
    for name in (f'hf-hub:{REPO}', f'local-dir:{folder}'):
        with pytest.raises(ValueError, match=message):
            load(name, **change)


def test_a_config_that_is_silent(tmp_path):
    """Where it has lost an option, the model is built with the default; the stamp knows better."""
    torch.save(timm.create_model(SMALL, num_iters=7).state_dict(), tmp_path / 'seven.pth')
    folder = export(tmp_path / 'seven.pth', SMALL, output=tmp_path / 'out', model_kwargs={'num_iters': 7}).path
    change_config(folder, lambda c: c['model_args'].pop('num_iters'))
    with pytest.raises(ValueError, match='num_iters: None, the file 7'):
        load(f'local-dir:{folder}')


def test_the_stamp_counts_for_other_architectures_too(folder):
    """cov, isqrt and mpn have the same names and shapes; so have two architectures that differ in these alone."""
    record = {'architecture': 'resnet10_mini_isqrt', 'num_classes': 4, 'model_args': {'global_pool': '3g', 'num_iters': 7}}
    stamped = folder.parent / 'stamped.safetensors'
    save_file(load_file(folder / 'model.safetensors'), stamped, metadata={'timm_3g': json.dumps(record)})
    with pytest.raises(ValueError, match='num_iters: weights 7, model 5'):
        by_registry(file=str(stamped))


def test_commands_check_too(folder, capsys):
    flip(folder / 'model.safetensors')
    image = folder.parent / 'image.png'
    Image.new('RGB', (32, 32)).save(image)
    assert main(['predict', str(image), '--model', SMALL, '--checkpoint', str(folder / 'model.safetensors')]) == 1
    assert 'is not the published file' in capsys.readouterr().err


def test_num_classes_that_the_weights_do_not_have(folder):
    """Without the stamp in the file, as from timm's save_for_hf: the rows of the classifier tell."""
    without_stamp(folder)
    change_config(folder, lambda c: (c.update(num_classes=1000), c['pretrained_cfg'].update(num_classes=1000)))
    with pytest.raises(ValueError, match=r'fc.weight has 4 rows, but these weights are declared to have num_classes=1000'):
        load(f'local-dir:{folder}')


@pytest.mark.parametrize('text', ['{"architecture": ', '[]', '\xff'])
def test_broken_config_beside_a_file(folder, text):
    (folder / 'config.json').write_text(text, encoding='latin-1')
    with pytest.raises(ValueError, match=r'is not a valid timm config.json'):
        by_registry(file=str(folder / 'model.safetensors'))


def test_an_empty_folder(folder):
    (folder / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'contains no recognizable weights file: none of model.safetensors'):
        load(f'local-dir:{folder}')


def without_stamp(folder):
    """As timm's save_for_hf leaves a folder."""
    save_file(load_file(folder / 'model.safetensors'), folder / 'model.safetensors')
    change_config(folder, lambda c: c.pop('sha256'))


def test_unknown_options_of_a_config_without_stamp(folder):
    without_stamp(folder)
    change_config(folder, lambda c: c['model_args'].update(num_itres=5))
    with pytest.raises(ValueError, match=r"model_args of config.json has 'num_itres', which"):
        load(f'local-dir:{folder}')


def test_other_weights_in_the_place_of_those_with_a_sha256(folder, model):
    torch.save(timm.create_model(SMALL, num_classes=4).state_dict(), folder / 'pytorch_model.bin')
    (folder / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'none of model.safetensors; there are pytorch_model.bin'):
        load(f'local-dir:{folder}')


@pytest.mark.parametrize('name', ['weights.safetensors', 'checkpoint.bin', 'model_best.pth', 'model_best.pth.tar'])
def test_other_names_in_a_folder(folder, name, model, logits):
    without_stamp(folder)
    (folder / 'model.safetensors').unlink()
    save_file(model.state_dict(), folder / name) if name.endswith('s') else torch.save(model.state_dict(), folder / name)
    assert torch.equal(run(load(f'local-dir:{folder}')), logits)
    torch.save({}, folder / 'another.pth')
    with pytest.raises(FileNotFoundError, match=rf'there are .*{name}'):
        load(f'local-dir:{folder}')


@pytest.mark.parametrize('header', ['{', '[]', '{"architecture": "x"}', '{"num_classes": 4, "model_args": 3}'])
def test_a_header_that_is_not_ours(folder, header):
    stamped = folder.parent / 'stamped.safetensors'
    save_file(load_file(folder / 'model.safetensors'), stamped, metadata={'timm_3g': header})
    with pytest.raises(ValueError, match=r"header 'timm_3g' of .* is not ours"):
        by_registry(file=str(stamped))


@pytest.mark.parametrize('other', ['file', 'url', 'hf_hub_filename', 'state_dict'])
def test_a_name_and_an_overlay_that_name_two_weights(published, exported, model, other):
    overlay = {other: model.state_dict() if other == 'state_dict' else 'other.safetensors'}
    for name in (f'local-dir:{exported}', f'hf-hub:{REPO}'):
        with pytest.raises(ValueError, match=f'pretrained_cfg_overlay has {other}, which names other weights than'):
            load(name, pretrained_cfg_overlay=overlay)


def test_a_state_dict_of_the_caller_is_taken_as_it_is(folder, model, logits):
    assert torch.equal(run(by_registry(state_dict=model.state_dict())), logits)
    with pytest.raises(ValueError, match='pretrained_cfg_overlay has keys that timm does not know: fille'):
        by_registry(fille='x')


def test_keys_at_the_top_level_are_nobodys_business(folder, logits):
    change_config(folder, lambda c: c.update(comment='timm ignores it'))
    assert torch.equal(run(load(f'local-dir:{folder}')), logits)


# Others who read the folder.


def test_transformers_gives_identical_logits(published, exported, logits):
    import transformers

    classes = transformers.TimmWrapperForImageClassification
    for name in (str(exported), REPO):
        with torch.no_grad():
            assert torch.equal(classes.from_pretrained(name).eval()(IMAGE).logits, logits)


def test_the_snippets_of_the_card_run_as_they_stand(published, monkeypatch, capsys):
    card = published.repos[REPO].commits[published.repos[REPO].refs['main']]['files']['README.md'].data.decode()
    snippets = re.findall(r'```python\n(.*?)```', card, re.DOTALL)
    assert len(snippets) == 3
    picture = io.BytesIO()
    Image.new('RGB', (64, 48), 'tan').save(picture, 'png')
    monkeypatch.setattr('urllib.request.urlopen', lambda url: io.BytesIO(picture.getvalue()))  # no network in tests
    spaces = []
    for snippet in snippets:
        spaces.append({})
        exec(compile(snippet, 'card', 'exec'), spaces[-1])
    promised = re.findall(r'#   (\(1, .*\))', snippets[1])
    assert capsys.readouterr().out.splitlines() == [f'torch.Size([{shape[1:-1]}])' for shape in promised]
    assert spaces[0]['logits'].shape == (1, 4) and len(spaces[0]['classes'][0]) == 4
    assert torch.equal(spaces[2]['same'], spaces[2]['embedding']) and f'{tuple(spaces[2]["features"].shape)}' in snippets[2]


def test_fine_tuned_by_transformers(exported, tmp_path):
    """The same number of labels and another; what it saves carries the old sha256 along."""
    import transformers

    for labels in (4, 3):
        theirs = transformers.TimmWrapperForImageClassification.from_pretrained(
            exported, num_labels=labels, ignore_mismatched_sizes=True
        ).eval()
        with torch.no_grad():
            next(theirs.parameters()).mul_(1.5)
            expected = theirs(IMAGE).logits
        saved = tmp_path / f'saved{labels}'
        theirs.save_pretrained(saved)
        assert 'sha256' in json.loads((saved / 'config.json').read_text())
        assert torch.equal(run(load(f'local-dir:{saved}')), expected)
        again = tmp_path / f'again{labels}'
        assert main(['export', str(saved / 'model.safetensors'), '--output', str(again)]) == 0
        assert torch.equal(run(load(f'local-dir:{again}')), expected)
        assert main(['publish', str(again), '--repo', f'acme/{SMALL}.x', '--dry-run']) == 0


def test_what_the_trainer_of_transformers_saves_and_pushes(exported, hub, tmp_path):
    """Trainer needs accelerate; its save_model hands the state dict to save_pretrained, and puts its own arguments beside."""
    import transformers

    theirs = transformers.AutoModelForImageClassification.from_pretrained(
        exported, num_labels=3, ignore_mismatched_sizes=True
    ).train()
    theirs(IMAGE, labels=torch.tensor([2])).loss.backward()
    torch.optim.SGD(theirs.parameters(), 0.1).step()
    with torch.no_grad():
        expected = theirs.eval()(IMAGE).logits
    saved = tmp_path / 'saved'
    theirs.save_pretrained(saved, state_dict=theirs.state_dict(), is_main_process=True)
    torch.save({'learning_rate': 0.1}, saved / 'training_args.bin')
    theirs.push_to_hub('acme/theirs')

    again = tmp_path / 'again'
    assert main(['export', str(saved / 'model.safetensors'), '--output', str(again)]) == 0
    assert main(['publish', str(again), '--repo', f'acme/{SMALL}.ours']) == 0
    for name in (f'local-dir:{saved}', 'hf-hub:acme/theirs', f'hf-hub:acme/{SMALL}.ours'):
        model = load(name)
        assert model.num_classes == 3 and torch.equal(run(model), expected), name
    weights = saved / 'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ValueError, match='cannot be read as weights'):
        load(f'local-dir:{saved}')
