"""What a study's YAML stands for: its runs, the choice from the grid, and what is refused."""

from datetime import date

import pytest
import yaml

from timm_3g.studies import Study, read_study

RECIPE = {
    'model': 'resnet10_mini_3g',
    'epochs': 2,
    'train_split': 'train',
    'val_split': 'holdout',
    'model_kwargs': {'eps': 1e-6},
}
GRID = {'grid': {'lr': [0.1, 0.2]}, 'grid_seeds': [9]}
ARMS = {'avg': {'gp': 'avg'}, '3g': {'gp': '3g', 'model_kwargs': {'num_iters': 3}}}


def a_study(**changes) -> Study:
    return Study(**{'name': 'poolings', 'recipe': RECIPE, 'arms': ARMS, 'seeds': [0, 1], **changes})


def test_a_run_has_the_options_of_recipe_arm_axes_and_seed():
    runs = list(a_study(axes={'epochs': [1, 3], 'fraction': [0.5]}).runs({}))
    assert [run.name for run in runs] == [
        f'{arm}-epochs={epochs}-fraction=0.5-s{seed}' for epochs in (1, 3) for arm in ('avg', '3g') for seed in (0, 1)
    ]
    run = runs[-1]
    assert run.options == {**RECIPE, 'gp': '3g', 'epochs': 3, 'seed': 1, 'model_kwargs': {'eps': 1e-6, 'num_iters': 3}}
    assert (run.epochs, run.fraction, run.test_split, run.phase) == (3, 0.5, 'test', 'final')
    assert len({run.sha256 for run in runs}) == len(runs) and run.stem == f'3g-epochs=3-fraction=0.5-s1-{run.sha256[:8]}'


def test_the_hash_depends_on_what_determines_the_result_alone():
    def sha(**changes):
        return next(a_study(**changes).runs({})).sha256

    assert sha() == sha(name='another', seeds=[0, 5], arms={'avg': {'gp': 'avg'}})
    others = [{'recipe': {**RECIPE, 'epochs': 3}}, {'test_split': 'val'}, {'axes': {'fraction': [0.5]}}]
    others += [{'corruptions': ['jpeg-q20']}, {'corruptions': ['jpeg-q20', 'noise-std0.1']}]
    assert len({sha(), *(sha(**changes) for changes in others)}) == 1 + len(others)
    assert sha(corruptions=['jpeg-q20', 'noise-std0.1']) == sha(corruptions=['noise-std0.1', 'jpeg-q20'])
    assert sha() == sha(corruptions=[]), 'rows of a version that knew no corruptions stay valid'


def test_options_are_chosen_on_held_out_images_for_each_arm():
    study = a_study(grid={'lr': [0.1, 0.2], 'opt': ['sgd']}, grid_seeds=[7, 8], corruptions=['jpeg-q20'])
    tried = study.grid_runs('3g', {})
    assert [run.name for run in tried] == [f'grid-3g-lr={lr}-opt=sgd-s{seed}' for lr in (0.1, 0.2) for seed in (7, 8)]
    assert all(not run.test_split and not run.corruptions for run in tried)
    held_out = dict(zip((run.name for run in tried), [50.0, 60.0, 40.0, 71.0], strict=True))
    assert study.chosen('3g', {}, held_out) == {'lr': 0.2, 'opt': 'sgd'}
    assert study.chosen('3g', {}, {**held_out, 'grid-3g-lr=0.2-opt=sgd-s8': 70.0})['lr'] == 0.1, 'the first of equals'
    assert study.chosen('avg', {}, held_out) is None and study.chosen('3g', {}, {}) is None
    runs = {run.name: run for run in study.runs(held_out)}
    assert runs['3g-s0'].corruptions == ('jpeg-q20',)
    assert runs['3g-s0'].options['lr'] == 0.2 and runs['3g-s0'].choice == {'lr': 0.2, 'opt': 'sgd'}
    assert list(runs)[:8] == [run.name for arm in ARMS for run in study.grid_runs(arm, {})]


def test_a_grid_at_one_place_chooses_for_all(tmp_path):
    axes = {'epochs': [6, 2], 'fraction': [0.5, 1.0]}
    study = a_study(axes=axes, grid_at={'epochs': 2}, **GRID)
    names = [run.name for run in study.runs({})]
    cells = [(epochs, fraction) for epochs in (6, 2) for fraction in (0.5, 1.0)]
    assert names == [
        *(f'grid-{arm}-epochs=2-fraction={f}-lr={lr}-s9' for f in (0.5, 1.0) for arm in ARMS for lr in (0.1, 0.2)),
        *(f'{arm}-epochs={epochs}-fraction={f}-s{seed}' for epochs, f in cells for arm in ARMS for seed in (0, 1)),
    ]
    held_out = {name: 50.0 + ('lr=0.2' in name) * ('fraction=1.0' in name) for name in names}
    chosen = {(run.epochs, run.fraction): run.options['lr'] for run in study.runs(held_out) if run.phase == 'final'}
    assert chosen == {(6, 0.5): 0.1, (6, 1.0): 0.2, (2, 0.5): 0.1, (2, 1.0): 0.2}
    tried = [run for run in a_study(axes={'epochs': [6]}, grid_at={'epochs': 3}, **GRID).runs({}) if run.phase == 'grid']
    assert {run.epochs for run in tried} == {3} and len(tried) == 4, 'a place of the grid alone'
    everywhere = a_study(axes=axes, **GRID)
    assert sum(run.phase == 'grid' for run in everywhere.runs({})) == 16
    same = {run.sha256 for run in everywhere.runs({})} & {run.sha256 for run in study.runs({})}
    assert len(same) == len(names), 'its runs are those of a grid at every place'
    (tmp_path / 'a.yaml').write_text(
        'options: {model: a, epochs: 1, train_split: a, val_split: b}\narms: {a: }\nseeds: [0]\n'
        'axes: {epochs: [6]}\ngrid: {lr: [1]}\ngrid_seeds: [9]\ngrid_at: {epochs: 2}\n'
    )
    assert [run.epochs for run in read_study(tmp_path / 'a.yaml').runs({})] == [2, 6]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'arms': {}}, 'arms must name at least one arm'),
        ({'arms': {'a/b': {}}}, r"arms: a name must be letters, .*got 'a/b'"),
        ({'name': '../x'}, r"name: a name must be .*got '\.\./x'"),
        ({'arms': {'avg': ['gp']}}, r"arm avg must map options of train\.py to values; got \['gp'\]"),
        ({'seeds': []}, 'seeds must list different values, at least one'),
        ({'seeds': [0, 0]}, 'seeds must list different values'),
        ({'seeds': 'abc'}, "seeds must be a list; got 'abc'"),
        ({'seeds': [True]}, 'A seed must be an integer of at least 0; got True'),
        ({'seeds': [-1]}, 'A seed must be an integer of at least 0; got -1'),
        ({'axes': {'epochs': []}}, 'epochs must list different values, at least one'),
        ({'axes': {'epochs': 3}}, 'epochs must be a list; got 3'),
        ({'axes': {'fraction': [0.0]}}, r'fraction must be in \(0, 1\]; got 0\.0'),
        ({'axes': {'fraction': ['half']}}, r"fraction must be in \(0, 1\]; got 'half'"),
        ({'grid': {'lr': [0.1]}}, r"A grid needs grid_seeds, none of them in seeds.*got grid over \['lr'\], grid_seeds \[\]"),
        ({'grid': {'lr': [0.1]}, 'grid_seeds': [1]}, 'A grid needs grid_seeds, none of them in seeds'),
        ({'grid_seeds': [9]}, 'A grid needs grid_seeds'),
        ({'grid': {'gp': ['3g']}, 'grid_seeds': [9]}, 'gp is varied by the study, and cannot be an option of the arm avg'),
        ({'arms': {'avg': {'seed': 3}}}, 'seed is varied by the study'),
        ({'axes': {'seed': [1, 2]}}, 'seed cannot stand in axes: every arm has the seeds that seeds and grid_seeds list'),
        ({'grid': {'seed': [1, 2]}, 'grid_seeds': [9]}, 'seed cannot stand in grid'),
        ({'recipe': {**RECIPE, 'cooldown_epochs': 2}}, 'cooldown_epochs makes train.py train longer than epochs.*got 2'),
        ({'arms': {'avg': {'lr_cycle_limit': 3}}}, 'lr_cycle_limit makes train.py train longer than epochs'),
        ({'axes': {'opt': ['x' * 300]}}, 'would have names of more than 255 bytes'),
        ({'arms': {'avg': {'fraction': 0.5}}}, 'fraction can only be an axis'),
        ({'recipe': {**RECIPE, 'fraction': 0.5}}, 'fraction can only be an axis'),
        ({'axes': {'lr': [1]}, 'grid': {'lr': [1]}, 'grid_seeds': [9]}, 'lr is an axis and in the grid'),
        (
            {'grid_at': {'lr': 1}, **GRID},
            r"'lr' must be an axis, and the study needs a grid; got axes \[\], grid over \['lr'\]",
        ),
        (
            {'grid_at': {'epochs': 1}, 'axes': {'epochs': [2]}},
            r"'epochs' must be an axis, .*got axes \['epochs'\], grid over \[\]",
        ),
        ({'grid_at': {'fraction': 2}, 'axes': {'fraction': [1]}, **GRID}, r'fraction must be in \(0, 1\]; got 2'),
        ({'grid_at': {'epochs': 'a'}, 'axes': {'epochs': [1]}, **GRID}, "must say epochs, an integer of at least 1; got 'a'"),
        ({'grid_at': {'epochs': date(2020, 1, 1)}, 'axes': {'epochs': [1]}, **GRID}, r'grid_at: epochs must be text'),
        ({'recipe': {'model': 'resnet18_3g'}}, 'The recipe must say epochs'),
        ({'recipe': {**RECIPE, 'epochs': 'two'}}, "must say epochs, an integer of at least 1; got 'two'"),
        ({'recipe': {**RECIPE, 'epochs': 0}}, 'must say epochs, an integer of at least 1; got 0'),
        ({'recipe': {**RECIPE, 'model': ''}}, "must say model, as text; got ''"),
        ({'recipe': {**RECIPE, 1: 2}}, 'The recipe: names of options must be text; got 1'),
        ({'arms': {'avg': {'note': date(2020, 1, 1)}}}, r'arm avg: note must be text, .*got datetime\.date\(2020'),
        ({'name': 3}, 'name: a name must be letters, .*got 3'),
        ({'grid': {'lr': [date(2020, 1, 1)]}, 'grid_seeds': [9]}, r'grid: lr must be text, .*got \[datetime\.date\(2020'),
        ({'test_split': 5}, "test_split must be the name of a split, or '' for none; got 5"),
        ({'axes': {'aa': ['rand-m9', 'rand_m9']}}, 'Two runs would have the name avg-aa=rand_m9-s0'),
        ({'corruptions': 'jpeg-q20'}, "corruptions must be a list; got 'jpeg-q20'"),
        ({'corruptions': ['jpeg-q20'] * 2}, 'corruptions must list different values'),
        ({'corruptions': ['jpeg-q20', 'jpeg-q20.0']}, 'corruptions must list different values'),
        ({'corruptions': ['jpeg-q20'], 'test_split': ''}, 'corruptions are of the test images: name a test_split'),
        ({'corruptions': ['fog-std1']}, "A corruption must be one of noise-stdS.*got 'fog-std1'"),
    ],
)
def test_what_a_study_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        a_study(**changes)


def test_a_file(tmp_path):
    (tmp_path / 'recipes').mkdir()
    (tmp_path / 'recipes' / 'short.yaml').write_text(yaml.safe_dump(RECIPE))
    (tmp_path / 'many.yaml').write_text(
        'recipe: recipes/short.yaml\noptions: {epochs: 5, model_kwargs: {num_iters: 7}}\n'
        'arms: {avg: , 3g: {gp: 3g}}\nseeds: [3]\n'
    )
    (tmp_path / '2024.yaml').write_text('name: 2024\n' + (tmp_path / 'many.yaml').read_text())
    assert read_study(tmp_path / '2024.yaml').name == '2024'
    (tmp_path / 'unnamed.yaml').write_text('name:\n' + (tmp_path / 'many.yaml').read_text())
    assert read_study(tmp_path / 'unnamed.yaml').name == 'unnamed'
    study = read_study(tmp_path / 'many.yaml')
    assert study.name == 'many' and study.arms == {'avg': {}, '3g': {'gp': '3g'}}
    assert study.recipe == {**RECIPE, 'epochs': 5, 'model_kwargs': {'eps': 1e-6, 'num_iters': 7}}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('arms: {a: }\nseeds: [0]\nepoch: 3', "unknown key 'epoch'. Keys: "),
        ('arms: {a: }\nseed: [0]', "unknown key 'seed'. Nearest: seeds"),
        ('seeds: [0]', 'must have arms'),
        ('arms: {a: }', 'must have seeds'),
        ('arms: [a]\nseeds: [0]', r"arms must map names to values; got \['a'\]"),
        ('arms: {a: }\nseeds: [0]\noptions: 3', 'options must map names to values; got 3'),
        ('arms: {a: }\nseeds: [0]\nrecipe: 3', 'recipe must name a YAML file; got 3'),
        ('arms: {a: }\nseeds: [0]\ngrid_at: 3', 'grid_at must map names to values; got 3'),
        ('arms: {1: , "1": }\nseeds: [0]', "two arms have one name; got 1, '1'"),
        ('- a', 'must map names to values; it holds list'),
        ('a: [', 'is no YAML'),
        ('arms: {a: }\nseeds: [0]', r'bad\.yaml: The recipe must say model'),
    ],
)
def test_files_that_are_no_study(text, message, tmp_path):
    (tmp_path / 'bad.yaml').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_study(tmp_path / 'bad.yaml')
