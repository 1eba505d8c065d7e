"""`timm-3g export`, `card` and `publish`, with the real client against a local Hub (conftest's `hub`)."""

import argparse
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import timm
import torch
import yaml
from common import ROOT, SMALL
from fakehub import CUT, DROP, Blob
from PIL import Image
from safetensors.torch import load_file

from timm_3g.__main__ import main
from timm_3g.checkpoints import sha256_of
from timm_3g.publishing import export, push
from timm_3g.publishing.card import make_card, read_source, write_card
from timm_3g.publishing.card_facts import REQUIRED
from timm_3g.publishing.front_matter import read_text, split_front_matter
from timm_3g.publishing.marks import BEGIN, END, hand_written, merge, readdress
from timm_3g.utils.files import write_text

REPO = f'acme/{SMALL}.birds'
FILES = {'model.safetensors', 'config.json', 'golden.safetensors', 'README.md'}
IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope='module')
def model():
    torch.manual_seed(3)
    return timm.create_model(SMALL, num_classes=4).eval()


@pytest.fixture(scope='module')
def checkpoint(model, tmp_path_factory):
    """What train.py leaves, with EMA weights."""
    torch.manual_seed(4)
    plain = timm.create_model(SMALL, num_classes=4).state_dict()
    args = argparse.Namespace(
        model=SMALL, dataset='', data_dir='/data/birds', val_split='validation', seed=7, eval_metric='top1'
    )
    file = tmp_path_factory.mktemp('run') / 'model_best.pth.tar'
    torch.save({'state_dict': plain, 'state_dict_ema': model.state_dict(), 'args': args, 'epoch': 11, 'metric': 61.25}, file)
    return file


@pytest.fixture(scope='module')
def exported(checkpoint, tmp_path_factory):
    return export(checkpoint, f'{SMALL}.birds', output=tmp_path_factory.mktemp('exported') / f'{SMALL}.birds').path


@pytest.fixture
def folder(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / exported.name))


def publish(source, *options, repo=REPO):
    return main(['publish', str(source), '--repo', repo, *options])


def files(hub, revision='main', repo=REPO):
    return hub.repos[repo].commits[hub.repos[repo].sha(revision)]['files']


def test_from_the_training_run_to_the_hub_and_back(hub, checkpoint, model, capfd):
    assert publish(checkpoint, '--license', 'apache-2.0') == 0
    out, err = capfd.readouterr()
    assert f"timm.create_model('hf-hub:{REPO}', pretrained=True)" in out and 'hf_acme' not in out + err
    again = timm.create_model(f'hf-hub:{REPO}', pretrained=True).eval()
    assert torch.equal(again(IMAGE), model(IMAGE)) and again.pretrained_cfg['tag'] == 'birds'

    assert files(hub).keys() == FILES
    assert all(files(hub)[name].lfs == name.endswith('.safetensors') for name in FILES)
    weights = [path for method, path, *_ in hub.requests if method == 'PUT']
    assert len(weights) == 2  # the two LFS files, each sent once
    fields, body = split_front_matter(files(hub)['README.md'].data.decode())
    assert fields['license'] == 'apache-2.0' and fields['library_name'] == 'timm' and 'transformers' not in fields['tags']
    assert fields['model-index'][0]['results'][0]['metrics'][0]['value'] == 61.25
    assert 'after epoch 12' in body and '**Seeds:** 7' in body and '| birds | validation |' in body


def test_plain_weights_and_class_names(hub, checkpoint, tmp_path):
    (tmp_path / 'classes.txt').write_text('auk\nbittern\ncrane\ndove\n')
    assert publish(checkpoint, '--no-ema', '--class-map', str(tmp_path / 'classes.txt')) == 0
    again = timm.create_model(f'hf-hub:{REPO}', pretrained=True).eval()
    plain = torch.load(checkpoint, weights_only=False)['state_dict']
    assert torch.equal(again.state_dict()['fc.weight'], plain['fc.weight'])
    assert again.pretrained_cfg['label_names'] == ['auk', 'bittern', 'crane', 'dove']


def test_golden_pair(exported, model):
    golden = load_file(exported / 'golden.safetensors')
    with torch.inference_mode():
        assert torch.equal(model(golden['input']), golden['logits'])


def test_three_channels_are_not_taken_for_granted(tmp_path):
    """in_chans is not in model_args (transformers passes it again), so it must come from elsewhere."""
    grey = timm.create_model(SMALL, in_chans=1, num_classes=2).eval()
    torch.save(grey.state_dict(), tmp_path / 'grey.pth')
    folder = tmp_path / 'out'
    options = ['--model-kwargs', 'in_chans=1', '--output', str(folder)]
    assert main(['export', str(tmp_path / 'grey.pth'), '--model', SMALL, *options]) == 0
    x = IMAGE[:, :1]
    assert torch.equal(timm.create_model(f'local-dir:{folder}', pretrained=True).eval()(x), grey(x))


def test_config_and_card_state_one_licence(tmp_path):
    shipped = timm.get_pretrained_cfg(f'{SMALL}.cifar10').file
    made = export(shipped, f'{SMALL}.mine', output=tmp_path / 'mine', license='mit')
    assert made.config['pretrained_cfg']['license'] == 'mit' == split_front_matter(made.card)[0]['license']


def test_dry_run_asks_no_network(hub, folder, capsys):
    assert publish(folder, '--dry-run', '--private') == 0
    out = capsys.readouterr().out
    assert out.startswith('Nothing was pushed.') and sha256_of(folder / 'model.safetensors') in out
    assert all(name in out for name in FILES) and 'states no licence' in out
    assert not hub.requests


@pytest.mark.parametrize(
    'option',
    [
        ['--model', SMALL],
        ['--num-classes', '0'],
        ['--model-kwargs', 'num_iters=5'],
        ['--no-ema'],
        ['--class-map', 'x'],
        ['--with-run'],
        ['--img-size', '64'],
        ['--mean', '0'],
        ['--std', '1'],
        ['--interpolation', 'bicubic'],
        ['--crop-pct', '0.5'],
    ],
    ids=lambda option: option[0],
)
def test_options_of_files_are_refused_for_folders(hub, folder, option, capsys):
    assert publish(folder, *option) == 1
    said = capsys.readouterr().err
    assert 'is exported already' in said and option[0] in said and not hub.requests


def test_a_folder_without_a_card_gets_one_and_stays_as_it_is(hub, folder):
    """As `timm-3g get` leaves it."""
    (folder / 'README.md').unlink()
    assert publish(folder, '--license', 'mit') == 0
    assert split_front_matter(files(hub)['README.md'].data.decode())[0]['license'] == 'mit'
    assert not (folder / 'README.md').exists()


def test_the_second_push_makes_no_commit(hub, folder, checkpoint, capsys):
    assert publish(folder) == 0
    commits = len(hub.repos[REPO].commits)
    hub.requests.clear()
    assert publish(folder) == 0
    assert publish(checkpoint) == 0  # exported anew: the same bytes
    assert 'nothing had changed' in capsys.readouterr().out
    assert len(hub.repos[REPO].commits) == commits
    assert not [r for r in hub.requests if r[0] == 'PUT']


def test_only_four_files_are_ever_sent(hub, folder, capsys):
    torch.save({}, folder / 'pytorch_model.bin')
    assert publish(folder) == 0
    assert files(hub).keys() == FILES and 'Not pushed: pytorch_model.bin' in capsys.readouterr().out


def test_private(hub, folder, monkeypatch, capsys):
    assert publish(folder, '--private') == 0
    assert hub.repos[REPO].private
    timm.create_model(f'hf-hub:{REPO}', pretrained=True)
    monkeypatch.setenv('HF_TOKEN', 'hf_other')
    assert publish(folder) == 1
    assert "don't have the rights" in capsys.readouterr().err and len(hub.repos[REPO].commits) == 2


def test_private_is_refused_for_a_public_repository(hub, folder, capsys):
    assert publish(folder) == 0
    commits = len(hub.repos[REPO].commits)
    assert publish(folder, '--private') == 1
    assert 'exists and is public. Nothing was pushed' in capsys.readouterr().err
    assert len(hub.repos[REPO].commits) == commits


def test_branch(hub, folder, model, capsys):
    assert publish(folder, '--branch', 'next') == 0
    assert files(hub, 'next').keys() == FILES and not files(hub, 'main')
    assert torch.equal(timm.create_model(f'hf-hub:{REPO}@next', pretrained=True).eval()(IMAGE), model(IMAGE))
    assert publish(folder, '--revision', 'next') == 0  # it is there already
    assert capsys.readouterr().out.count(f"create_model('hf-hub:{REPO}@next', pretrained=True)") == 2


def test_pull_request(hub, folder, model, capsys):
    assert publish(folder, '--create-pr') == 0
    out = capsys.readouterr().out
    assert f'{hub.url}/{REPO}/discussions/1' in out and f"'hf-hub:{REPO}@refs/pr/1'" in out
    assert torch.equal(timm.create_model(f'hf-hub:{REPO}@refs/pr/1', pretrained=True).eval()(IMAGE), model(IMAGE))
    assert not files(hub, 'main') and files(hub, 'refs/pr/1').keys() == FILES


@pytest.mark.parametrize('other', [['--tag', 'v1'], ['--revision', 'next']])
def test_pull_request_goes_alone(hub, folder, other, capsys):
    assert publish(folder, '--create-pr', *other) == 1
    assert 'neither --tag nor --revision' in capsys.readouterr().err and not hub.requests


def test_tags_are_set_and_never_moved(hub, folder, model, capsys):
    assert publish(folder, '--tag', 'v1') == 0
    assert publish(folder, '--tag', 'v1') == 0  # the same commit bears it already
    first = hub.repos[REPO].tags['v1']
    (folder / 'README.md').write_text((folder / 'README.md').read_text() + '\nMore.\n')
    assert publish(folder, '--tag', 'v1') == 1
    assert f"Tag 'v1' names {first} and is not moved to what would be pushed. Nothing was" in capsys.readouterr().err
    assert hub.repos[REPO].refs['main'] == first
    assert publish(folder) == 0
    second = hub.repos[REPO].refs['main']
    assert publish(folder, '--tag', 'v1') == 1
    assert hub.repos[REPO].tags == {'v1': first} and hub.repos[REPO].refs['main'] == second != first
    assert publish(folder, '--revision', 'v1') == 1
    assert "--revision must be a branch; 'v1' is a tag" in capsys.readouterr().err
    assert torch.equal(timm.create_model(f'hf-hub:{REPO}@v1', pretrained=True).eval()(IMAGE), model(IMAGE))


@pytest.mark.parametrize(
    ('token', 'repo', 'message'),
    [
        ('hf_wrong', REPO, 'Invalid'),
        (None, REPO, 'Invalid'),
        ('hf_acme', f'someone/{SMALL}.birds', 'rights'),
    ],
)
def test_credentials(hub, folder, token, repo, message, monkeypatch, capfd):
    monkeypatch.delenv('HF_TOKEN') if token is None else monkeypatch.setenv('HF_TOKEN', token)
    assert publish(folder, repo=repo) == 1
    out, err = capfd.readouterr()
    assert 'was not published' in err and message.lower() in err.lower() and err.count('\n') == 1
    assert not hub.repos and (not token or token not in out + err)


FAULTS = [
    ('GET .*/refs', 500),
    ('POST .*/paths-info', 500),
    ('POST /api/repos/create', 500),
    ('POST .*/preupload/', 500),
    ('POST .*/objects/batch', 500),
    ('PUT /_lfs/', 500),
    ('PUT /_lfs/', DROP),
    ('POST /_lfs/verify', 500),
    ('POST .*/commit/main', 500),
    ('POST .*/commit/main', DROP),
    ('POST .*/validate-yaml', DROP),
    ('GET /api/models/', 500),
]


@pytest.mark.parametrize('fault', FAULTS, ids=lambda f: f'{f[0]} {f[1]}')
def test_a_failure_on_the_way_leaves_nothing_half_published(hub, folder, model, fault, capfd):
    hub.fail.append(fault)
    assert publish(folder) == 1
    assert 'was not published' in capfd.readouterr().err
    assert not any(commit['files'] for repo in hub.repos.values() for commit in repo.commits.values())
    hub.fail.clear()
    assert publish(folder) == 0
    assert files(hub).keys() == FILES
    assert torch.equal(timm.create_model(f'hf-hub:{REPO}', pretrained=True).eval()(IMAGE), model(IMAGE))


def test_what_has_arrived_is_not_sent_twice(hub, folder):
    hub.fail.append(('POST .*/commit/main', 500))
    assert publish(folder) == 1
    hub.fail.clear()
    hub.requests.clear()
    assert publish(folder) == 0
    assert not [r for r in hub.requests if r[0] == 'PUT']


def test_a_lost_answer_to_the_commit_is_found_out(hub, folder, capsys):
    """The server has committed, and the connection breaks before it says so: the second run has nothing to do."""
    hub.fail.append(('POST .*/commit/main', CUT))
    assert publish(folder) == 1
    assert files(hub).keys() == FILES
    hub.fail.clear()
    assert publish(folder) == 0
    assert 'nothing had changed' in capsys.readouterr().out


def test_the_licence_of_timms_default_tag_is_not_that_of_other_weights(tmp_path, monkeypatch):
    """timm's save_for_hf writes it into every config.json."""
    monkeypatch.chdir(tmp_path)
    timm.models.save_for_hf(timm.create_model(SMALL, num_classes=3), 'saved', safe_serialization=True)
    assert json.loads(Path('saved/config.json').read_text())['pretrained_cfg']['license'] == 'apache-2.0'
    assert main(['export', 'saved/model.safetensors', '--output', 'out']) == 0
    fields, _ = split_front_matter(Path('out/README.md').read_text())
    assert fields['license'] == 'unknown' and f'# Model card for {SMALL}\n' in Path('out/README.md').read_text()


def test_text_that_only_grew_on_the_hub(hub, folder):
    write_text(folder / 'README.md', (folder / 'README.md').read_text() + '\nMine.\n')
    assert publish(folder) == 0
    edit(hub, files(hub)['README.md'].data.decode() + '\nTheirs.\n')
    assert publish(folder) == 0
    assert hand_written(files(hub)['README.md'].data.decode()) == 'Mine.\n\nTheirs.'


def test_broken_marks_of_the_folder_are_found_first(hub, folder, capsys):
    write_text(folder / 'README.md', (folder / 'README.md').read_text().replace(END, ''))
    assert publish(folder, '--dry-run') == 1
    assert f'The marks of {folder / "README.md"}' in capsys.readouterr().err
    assert publish(folder) == 1 and not hub.requests


def test_a_damaged_config_is_named(folder, capsys):
    (folder / 'config.json').write_text('{')
    for verb in (['card', str(folder)], ['publish', str(folder), '--repo', REPO, '--dry-run']):
        assert main(verb) == 1
        assert f'{folder / "config.json"} is damaged' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('where', 'name', 'value', 'said'),
    [
        ('both', 'label_names', ['a', 'b'], 'has 2 label_names for 4 classes'),
        ('cfg', 'mean', [0, 0], 'has a mean of 2 channels for 3'),
        ('cfg', 'classifier', 'nope', "names a classifier that the network lacks: 'nope'"),
    ],
)
def test_a_config_that_does_not_fit_the_network(where, name, value, said, folder, capsys):
    config = json.loads((folder / 'config.json').read_text())
    config['pretrained_cfg'][name] = value
    if where == 'both':
        config[name] = value
    (folder / 'config.json').write_text(json.dumps(config))
    assert publish(folder, '--dry-run') == 1
    assert said in capsys.readouterr().err


def test_files_can_be_read_by_others(exported):
    umask = os.umask(0)
    os.umask(umask)
    assert {oct(file.stat().st_mode & 0o777) for file in exported.iterdir()} == {oct(0o666 & ~umask)}
    assert oct(exported.stat().st_mode & 0o777) == oct(0o777 & ~umask)


def test_other_weights_than_were_sent_are_noticed(hub, folder, monkeypatch, capsys):
    monkeypatch.setattr(hub, 'commit_hook', lambda files: files.update({'model.safetensors': Blob(b'others', True)}))
    assert publish(folder) == 1
    assert 'has other files at' in capsys.readouterr().err


def test_text_written_on_the_hub_is_kept(hub, folder, capsys):
    assert publish(folder) == 0
    card = files(hub)['README.md'].data.decode()
    edited = (
        card.replace('library_name: timm\n', 'library_name: timm\nthumbnail: a.png\n')
        + '\n## Who uses this\n\nThe zoo of Bern.\n'
    )
    edit(hub, edited)
    write_card(folder, license='mit', repo=REPO)  # the card is made anew
    assert publish(folder) == 0
    fields, _ = split_front_matter(files(hub)['README.md'].data.decode())
    assert fields['license'] == 'mit' and fields['thumbnail'] == 'a.png'
    assert hand_written(files(hub)['README.md'].data.decode()) == '## Who uses this\n\nThe zoo of Bern.'

    (folder / 'README.md').write_text((folder / 'README.md').read_text() + '\nSomething else.\n')
    assert publish(folder) == 1
    assert 'it differs. Nothing was pushed' in capsys.readouterr().err
    assert publish(folder, '--replace-text') == 0
    assert hand_written(files(hub)['README.md'].data.decode()) == 'Something else.'


@pytest.mark.parametrize('warm', [False, True])
def test_text_on_the_hub_survives_a_card_that_cannot_be_read(hub, folder, warm, tmp_path):
    assert publish(folder) == 0
    if warm:
        timm.create_model(f'hf-hub:{REPO}', pretrained=True)
        assert publish(folder) == 0  # the card is in the cache, as it was
    edit(hub, files(hub)['README.md'].data.decode() + '\nBy hand.\n')
    write_card(folder, license='mit')
    hub.fail.append(('(HEAD|GET) .*README.md', 500))
    assert publish(folder) == 1
    assert hand_written(files(hub)['README.md'].data.decode()) == 'By hand.'


def test_a_commit_of_somebody_else_meanwhile_is_not_written_over(hub, folder, monkeypatch, capsys):
    assert publish(folder) == 0
    write_card(folder, license='mit')
    plain = push._with_their_text

    def slow(*args):
        edit(hub, files(hub)['README.md'].data.decode() + '\nMeanwhile.\n')
        return plain(*args)

    with monkeypatch.context() as patch:
        patch.setattr(push, '_with_their_text', slow)
        assert publish(folder) == 1
    assert 'A commit has happened since' in capsys.readouterr().err
    assert publish(folder) == 0
    assert hand_written(files(hub)['README.md'].data.decode()) == 'Meanwhile.'


@pytest.mark.parametrize(
    'break_marks',
    [
        lambda text: text.replace(END, '') + '\nMine.\n',
        lambda text: re.sub('<!-- timm_3g: begin.*?-->', '', text),
        lambda text: text + text.split('---\n', 2)[2],
    ],
    ids=['no end', 'no begin', 'twice'],
)
def test_broken_marks_lose_nothing(hub, folder, break_marks, capsys):
    assert publish(folder) == 0
    broken = break_marks(files(hub)['README.md'].data.decode())
    edit(hub, broken)
    write_card(folder, license='mit')
    assert publish(folder) == 1
    assert 'must appear once each' in capsys.readouterr().err
    assert files(hub)['README.md'].data.decode() == broken
    assert publish(folder, '--replace-text') == 0
    assert hand_written(files(hub)['README.md'].data.decode()) == ''


def test_text_that_is_shorter_on_the_hub_is_not_put_back(hub, folder, capsys):
    write_text(folder / 'README.md', (folder / 'README.md').read_text() + '\nGood.\n\nAsk Ada, +44 123.\n')
    assert publish(folder) == 0
    edit(hub, files(hub)['README.md'].data.decode().replace('\n\nAsk Ada, +44 123.', ''))
    assert publish(folder) == 1
    assert 'have text outside the marks, and it differs' in capsys.readouterr().err
    assert 'Ada' not in files(hub)['README.md'].data.decode()


def test_a_licence_that_differs_on_the_hub_is_not_replaced(hub, checkpoint, tmp_path, capsys):
    folder = export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'mit', license='mit').path
    assert publish(folder) == 0
    edit(hub, files(hub)['README.md'].data.decode().replace('license: mit', 'license: gpl-3.0'))
    assert publish(folder) == 1
    assert 'says license: gpl-3.0, and the card of' in capsys.readouterr().err
    assert publish(folder, '--license', 'mit') == 0
    assert 'license: mit' in files(hub)['README.md'].data.decode()


def test_one_licence_in_config_front_matter_and_text(hub, checkpoint, tmp_path, capsys):
    folder = export(checkpoint, f'{SMALL}.birds', output=tmp_path / 'mit', license='mit').path
    card = (folder / 'README.md').read_text()
    for changed in (card.replace('license: mit\n', 'license: gpl-3.0\n'), card.replace('license: mit\n', '')):
        (folder / 'README.md').write_text(changed)
        assert publish(folder, '--dry-run') == 1
        assert 'states no one licence' in capsys.readouterr().err
    (folder / 'README.md').write_text(card.replace('**Licence:** mit', '**Licence:** gpl-3.0'))
    assert publish(folder, '--dry-run') == 1
    (folder / 'README.md').unlink()
    for verb in (['publish', str(folder), '--repo', REPO, '--dry-run'], ['card', str(folder)]):
        assert main([*verb, '--license', 'apache-2.0']) == 1
        assert 'config.json in' in capsys.readouterr().err
    assert main(['card', str(folder)]) == 0 and 'license: mit\n' in (folder / 'README.md').read_text()


def test_the_card_of_a_key_is_of_its_own_weights_alone(tmp_path, monkeypatch):
    torch.save({'state_dict': timm.create_model('resnet18_isqrt', num_classes=5).state_dict()}, tmp_path / 'five.pth')
    args = argparse.Namespace(model='resnet18_isqrt', num_classes=1000, data_dir='birds', eval_metric='top1')
    state = timm.create_model('resnet18_isqrt').state_dict()
    torch.save({'state_dict': state, 'args': args, 'epoch': 0, 'metric': 55.5}, tmp_path / 'trained.pth')
    monkeypatch.chdir(ROOT)
    for file, more in (('five.pth', {'model': 'resnet18_isqrt'}), ('trained.pth', {})):
        folder = export(tmp_path / file, tag='gcpopt_in1k', output=tmp_path / f'of_{file}', **more)
        assert 'authors' not in folder.card and '75.48' not in folder.card


@pytest.mark.parametrize(
    ('given', 'said', 'base'),
    [
        ({'initial_checkpoint': '/x/my weights.pth'}, 'fine-tuned from my weights.pth', None),
        ({'initial_checkpoint': '/x/vögel.pth'}, 'fine-tuned from vögel.pth', None),
        ({'pretrained': True, 'pretrained_path': '/x/a+b.pth'}, 'fine-tuned from a+b.pth', None),
        ({'initial_checkpoint': '/x/birds.pth'}, 'fine-tuned from birds.pth', 'birds.pth'),
        ({'resume': '/runs/other/last.pth.tar'}, 'resumed from last.pth.tar', None),
        ({}, 'trained from random weights', None),
        ({'opt': 'sgd\n- **Licence:** mit', 'data_dir': '/x/bi|rds\n# H'}, 'optimizer sgd - **Licence:** mit', None),
        ({'data_dir': 'C:\\Users\\ada\\birds'}, '| birds | validation |', None),
        ({'data_dir': '../..'}, '| unknown | validation |', None),
        ({'dataset': 'hfds/food101'}, '| food101 | validation |', None),
        ({'seed': None}, '**Seeds:** not stated', None),
    ],
)
def test_what_a_card_says_of_a_run(given, said, base, model, tmp_path):
    args = argparse.Namespace(**{'model': SMALL, 'data_dir': 'data', 'val_split': 'validation', 'eval_metric': 'top1', **given})
    torch.save({'state_dict': model.state_dict(), 'args': args, 'epoch': 0, 'metric': 55.5}, tmp_path / 'last.pth')
    card = export(tmp_path / 'last.pth', output=tmp_path / 'out').card
    assert said in card and '\n# H' not in card and '\n- **Licence:** mit' not in card and 'ada' not in card
    assert split_front_matter(card)[0].get('base_model') == base


@pytest.mark.parametrize('on_cpu', [False, True])
def test_an_accuracy_is_of_the_weights_that_were_evaluated(on_cpu, model, tmp_path):
    args = argparse.Namespace(model=SMALL, model_ema=True, model_ema_force_cpu=on_cpu, eval_metric='top1')
    content = {'state_dict': model.state_dict(), 'state_dict_ema': model.state_dict(), 'args': args, 'epoch': 0}
    torch.save({**content, 'metric': 55.5}, tmp_path / 'last.pth')
    for use_ema in (False, True):
        card = export(tmp_path / 'last.pth', output=tmp_path / f'ema_{use_ema}', use_ema=use_ema).card
        assert ('55.50' in card) is (use_ema is not on_cpu)


def test_what_people_wrote_into_front_matter_stays_as_it_was(folder):
    readme = folder / 'README.md'
    theirs = '# Ours, since 2020.\nversion: 1.10  # not 1.1\ntime: 12:30:45\nzip: 01234\nlanguage:\n- no\n'
    readme.write_text(readme.read_text().replace('---\n', f'---\n{theirs}', 1))
    assert main(['card', str(folder)]) == 0 and theirs in readme.read_text()


@pytest.mark.parametrize('tags', ['[[a]]', '5'])
def test_tags_that_are_no_text(hub, tags, folder, capsys):
    readme = folder / 'README.md'
    readme.write_text(readme.read_text().replace('\ntags:', f'\ntags: {tags}\nmore:', 1))
    for verb in (['publish', str(folder), '--repo', REPO, '--dry-run'], ['card', str(folder)]):
        assert main(verb) == 1
        assert 'must be a list of text' in capsys.readouterr().err


@pytest.mark.parametrize('option', ['tag', 'revision'])
@pytest.mark.parametrize('name', ['a b c', '..', 'a..b', '/a', 'a.lock', ''])
def test_names_that_git_refuses(option, name, folder, capsys):
    assert publish(folder, '--dry-run', f'--{option}', name) == 1
    assert f'--{option} must be letters, digits' in capsys.readouterr().err


def test_a_tag_that_fails_after_the_push_is_not_called_unpublished(hub, folder, capsys):
    hub.fail.append(('POST .*/tag/.*', 400))
    assert publish(folder, '--tag', 'v1') == 1
    said = capsys.readouterr().err
    assert 'has the files, at ' in said and "the tag 'v1' was not set" in said and 'was not published' not in said


def test_the_repository_of_a_card_is_a_name_of_the_hub(folder, capsys):
    for repo in ("me/a'b", 'me/a@v1', 'me/a\n<!-- timm_3g: end -->'):
        assert main(['card', str(folder), '--repo', repo]) == 1
        assert '--repo must be ORG/NAME' in capsys.readouterr().err


@pytest.mark.parametrize('channels', [1, 2])
def test_snippets_of_other_channels(channels, tmp_path):
    net = timm.create_model(SMALL, num_classes=3, in_chans=channels)
    args = argparse.Namespace(model=SMALL, in_chans=channels)
    torch.save({'state_dict': net.state_dict(), 'args': args, 'epoch': 0}, tmp_path / 'last.pth')
    folder = export(tmp_path / 'last.pth', output=tmp_path / 'out')
    snippets = folder.card.split('```python\n')[1:]
    assert len(snippets) == 3
    Image.new('RGB', (40, 40)).save(tmp_path / 'photo.png')
    for snippet in snippets:
        code = snippet.split('```')[0].replace(f'hf-hub:ORG/{SMALL}', f'local-dir:{folder.path}')
        code = code.replace('urlopen(url)', repr(str(tmp_path / 'photo.png')))
        exec(code, {})


def test_a_mark_of_another_release_is_known(exported):
    mark = '<!-- timm_3g: begin. `timm-3g card` writes anew what is between these marks; text below the last one is kept. -->'
    text = (exported / 'README.md').read_text().replace(BEGIN, mark)
    assert mark in text and hand_written(text) == '' and make_card(exported).count('# Model card for') == 1


def test_a_licence_set_on_the_website_is_not_taken_back(hub, folder, capsys):
    assert publish(folder) == 0
    edit(hub, files(hub)['README.md'].data.decode().replace('license: unknown', 'license: mit'))
    assert publish(folder) == 1
    assert publish(folder, '--replace-text') == 1
    assert capsys.readouterr().err.count('State it: --license mit') == 2
    assert publish(folder, '--license', 'mit') == 0


def test_front_matter_of_other_people():
    ours = '---\ntags: [timm]\n---\n' + f'{BEGIN}\nours\n{END}\n'
    theirs = '--- \ntags: birds\nlanguage: no\nweight: 12\n---\nMine.\n'
    fields, _ = split_front_matter(merge(theirs, ours))
    assert fields['tags'] == ['timm', 'birds'] and fields['language'] == 'no' and fields['weight'] == 12
    assert split_front_matter('---\n# nothing\n---\nText.\n') == ({}, 'Text.\n') == split_front_matter('---\n---\nText.\n')


def test_read_text(tmp_path):
    (tmp_path / 'a.md').write_bytes('\ufeff---\r\na: 1\r\n---\r\nText.'.encode())
    assert split_front_matter(read_text(tmp_path / 'a.md')) == ({'a': 1}, 'Text.')
    (tmp_path / 'b.md').write_bytes(b'\xff')
    with pytest.raises(ValueError, match=r'b\.md must be UTF-8'):
        read_text(tmp_path / 'b.md')


def test_a_folder_with_somebody_elses_readme(hub, folder):
    (folder / 'README.md').write_text('# my own\n')
    assert publish(folder) == 0
    assert hand_written(files(hub)['README.md'].data.decode()) == '# my own'


def test_own_weights_under_a_known_name_get_nobodys_licence(hub, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # away from our hub/, whose card would be refused: it is of other weights
    assert publish(checkpoint, '--dry-run', repo=f'acme/{SMALL}.cifar10') == 0
    assert 'states no licence' in capsys.readouterr().out


def test_an_exported_file_says_what_it_is(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['export', str(exported / 'model.safetensors')]) == 0
    again = tmp_path / f'{SMALL}.birds'
    assert (again / 'model.safetensors').read_bytes() == (exported / 'model.safetensors').read_bytes()
    assert (again / 'README.md').read_text() == (exported / 'README.md').read_text()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--class-map', '/nowhere'], '/nowhere does not exist'),
        (['--license', 'not a licence!'], 'must be an identifier of the Hub'),
        (['--model', f'{SMALL}.a/b'], 'A tag consists of letters'),
        (['--model', 'resnet18'], 'export takes networks with a head of timm_3g; resnet18 has that of timm'),
    ],
)
def test_export_options_that_cannot_be(checkpoint, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(['export', str(checkpoint), *options]) == 1
    assert message in capsys.readouterr().err and not os.listdir(tmp_path)


def test_weights_that_are_not_finite(model, tmp_path, capsys):
    state = {**model.state_dict(), 'fc.bias': torch.full((4,), torch.nan)}
    torch.save(state, tmp_path / 'nan.pth')
    assert main(['export', str(tmp_path / 'nan.pth'), '--model', SMALL, '--output', str(tmp_path / 'out')]) == 1
    assert 'logits that are not finite' in capsys.readouterr().err


def test_weights_without_classifier(model, tmp_path):
    state = {name: value for name, value in model.state_dict().items() if not name.startswith('fc.')}
    torch.save(state, tmp_path / 'headless.pth')
    folder = export(tmp_path / 'headless.pth', SMALL, output=tmp_path / 'out').path
    assert 'topk' not in (folder / 'README.md').read_text() and '### Image Embeddings' in (folder / 'README.md').read_text()


def test_a_folder_of_timms_own_making_is_refused(hub, folder, capsys):
    config = json.loads((folder / 'config.json').read_text())
    config.pop('sha256')
    (folder / 'config.json').write_text(json.dumps(config))
    assert publish(folder, '--dry-run') == 1
    assert 'config.json has no sha256. `timm-3g export' in capsys.readouterr().err
    assert main(['card', str(folder)]) == 1
    assert 'config.json has no sha256. `timm-3g export' in capsys.readouterr().err


def edit(hub, text, name='README.md'):
    """As on the Hub's website."""
    from huggingface_hub import HfApi

    HfApi().upload_file(repo_id=REPO, path_or_fileobj=text.encode(), path_in_repo=name)


def test_a_card_without_marks_is_kept_below_ours(hub, folder):
    """As timm's push_to_hf_hub leaves it."""
    publish(folder)
    edit(hub, '---\ntags: [birds]\n---\n# Mine\n\nAll by hand.\n')
    assert publish(folder) == 0
    text = files(hub)['README.md'].data.decode()
    assert hand_written(text) == '# Mine\n\nAll by hand.' and text.index(END) < text.index('# Mine')
    assert split_front_matter(text)[0]['tags'] == ['image-classification', 'timm', 'timm_3g', 'birds']


def test_snippets_name_the_repository(hub, folder):
    assert publish(folder, repo='acme/another-name') == 0
    text = files(hub, repo='acme/another-name')['README.md'].data.decode()
    assert set(re.findall(r"hf-hub:([^']+)'", text)) == {'acme/another-name'}


@pytest.mark.parametrize(
    ('repo', 'message'),
    [
        ('justaname', 'must be ORG/NAME.TAG'),
        ('acme/', 'must be ORG/NAME.TAG'),
        ('acme/a/b', 'must be ORG/NAME.TAG'),
        ('acme/bad name', 'must be ORG/NAME.TAG'),
        ('acme/resnet50_3g.birds', f'are of {SMALL}, and the repository would be named'),
    ],
)
def test_repository_names(hub, checkpoint, repo, message, capsys):
    assert publish(checkpoint, repo=repo) == 1
    assert message in capsys.readouterr().err and not hub.requests


def test_a_checkpoint_that_does_not_say_what_it_is(hub, model, tmp_path, capsys):
    torch.save(model.state_dict(), tmp_path / 'bare.pth')
    assert publish(tmp_path / 'bare.pth', repo='acme/birds') == 1
    assert 'Name it: --model NAME' in capsys.readouterr().err
    assert publish(tmp_path / 'bare.pth', '--model', SMALL, '--num-classes', '5', repo='acme/birds') == 1
    assert 'fc.weight has 4 rows' in capsys.readouterr().err
    assert publish(tmp_path / 'bare.pth', '--model', SMALL, '--num-classes', '4', repo='acme/birds') == 0
    assert timm.create_model('hf-hub:acme/birds', pretrained=True).num_classes == 4


@pytest.mark.parametrize('name', ['model.safetensors', 'config.json', 'golden.safetensors'])
def test_incomplete_folders_are_refused(hub, folder, name, capsys):
    (folder / name).unlink()
    assert publish(folder) == 1
    assert name in capsys.readouterr().err and not hub.requests


def test_a_damaged_folder_is_refused(hub, folder, capsys):
    golden = load_file(folder / 'golden.safetensors')
    from safetensors.torch import save_file

    save_file({**golden, 'logits': golden['logits'] + 1}, folder / 'golden.safetensors')
    assert publish(folder) == 1
    assert 'gives other logits' in capsys.readouterr().err and not hub.requests


# The card by itself.


def test_card_keeps_prose_facts_and_text_without_its_source(folder, tmp_path, monkeypatch):
    source = tmp_path / 'source.md'
    facts = {
        **dict.fromkeys(REQUIRED),
        'license': 'mit',
        'metrics': [{'dataset': 'Birds', 'top1': 50.0, 'measured_by': 'me'}],
        'known_faults': ['Sees owls everywhere.'],
    }
    source.write_text(f'---\n{yaml.safe_dump(facts)}---\n\nProse by hand.\n')
    first = make_card(folder, source)
    assert 'Prose by hand.' in first and '- Sees owls everywhere.' in first and '| Birds |' in first
    (folder / 'README.md').write_text(first + '\nBelow the mark.\n')
    source.unlink()
    assert make_card(folder) == first + '\nBelow the mark.\n'


def test_card_source_in_the_current_folder(folder, tmp_path, monkeypatch):
    (tmp_path / 'hub').mkdir()
    text = '---\n' + yaml.safe_dump({**dict.fromkeys(REQUIRED), 'license': 'mit', 'metrics': []}) + '---\nFrom hub/.\n'
    (tmp_path / 'hub' / f'{SMALL}.birds.md').write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(['card', str(folder)]) == 0
    assert 'From hub/.' in (folder / 'README.md').read_text()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'licence': 'mit'}, 'unknown facts: licence'),
        ({'license': ...}, 'missing facts: license'),
        ({'sha256': '0' * 64}, 'of other weights: it says sha256 000'),
        (
            {'metrics': [{'dataset': 'Birds', 'top1': 50.0}]},
            r'a metric has dataset, top1 \(a number from 0 to 100\), measured_by',
        ),
        ({'metrics': [{'dataset': 'Birds', 'top1': 101, 'measured_by': 'me'}]}, 'a number from 0 to 100'),
        ({'metrics': [{'dataset': 'Birds', 'top1': -1, 'measured_by': 'me'}]}, 'a number from 0 to 100'),
        ({'metrics': [{'dataset': 'Birds', 'top1': 5, 'measured_by': None}]}, 'a metric has dataset'),
        ({'metrics': [{'dataset': ' ', 'top1': 5, 'measured_by': 'me'}]}, 'a metric has dataset'),
        (
            {'metrics': [{'dataset': 'a', 'top1': 5, 'measured_by': 'me', 'source_url': 'javascript:alert(1)'}]},
            'source_url must begin with https',
        ),
        ({'hours': float('nan')}, 'hours must be text, a finite number or null; got nan'),
        ({'seeds': [float('inf')]}, 'seeds must be a list of text or finite numbers'),
        ({'datasets': ['']}, 'datasets must be a list of text or finite numbers, none empty'),
        ({'license': ''}, 'license must be an identifier of the Hub'),
        ({'license': 'MIT License'}, "license must be an identifier of the Hub, e.g. mit, or 'unknown'"),
        ({'base_model': '../../etc'}, 'base_model must be NAME or ORG/NAME of the Hub'),
        ({'license': 'gpl-3.0'}, '--license says mit'),
        ({'datasets': 'birds'}, 'datasets must be a list'),
        ({'metrics': [{'dataset': 'Birds', 'top1': '50', 'measured_by': 'me'}]}, r'top1 \(a number'),
    ],
)
def test_wrong_sources(folder, tmp_path, change, message):
    facts = {**dict.fromkeys(REQUIRED), 'license': 'unknown', 'metrics': [], **change}
    source = tmp_path / 'source.md'
    source.write_text(f'---\n{yaml.safe_dump({k: v for k, v in facts.items() if v is not ...})}---\n')
    before = (folder / 'README.md').read_text()
    with pytest.raises(ValueError, match=message):
        write_card(folder, source, license='mit')
    assert (folder / 'README.md').read_text() == before


@pytest.mark.parametrize(
    ('text', 'message'), [('---\n- a\n---\n', 'must map names'), ('---\na: [\n---\n', 'is not valid YAML')]
)
def test_front_matter_errors(text, message):
    with pytest.raises(ValueError, match=message):
        split_front_matter(text)


def test_windows_line_ends(exported, tmp_path):
    text = (exported / 'README.md').read_text()
    (tmp_path / 'README.md').write_bytes((text + '\nMine.\n').replace('\n', '\r\n').encode())
    assert merge(read_text(tmp_path / 'README.md'), text).endswith(f'{END}\n\nMine.\n')


def test_readdress_leaves_other_peoples_text_alone(exported):
    text = (exported / 'README.md').read_text() + "\nSee also 'hf-hub:them/theirs'.\n"
    assert "'hf-hub:them/theirs'" in readdress(text, 'acme/ours') and "'hf-hub:acme/ours'" in readdress(text, 'acme/ours')


def test_read_source_of_every_card():
    for file in (ROOT / 'hub').glob('*.*_*.md'):
        facts, prose = read_source(file)
        assert facts['license'] and prose


def test_a_failed_export_leaves_nothing(tmp_path, checkpoint, capsys):
    assert main(['export', str(checkpoint), '--model', 'resnet18_3g', '--output', str(tmp_path / 'out')]) == 1
    assert 'are of resnet10_mini_3g' in capsys.readouterr().err and not os.listdir(tmp_path)
