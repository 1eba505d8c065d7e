"""The CSV of a study, and the tables and pictures that are made of it alone."""

import csv
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from common import ROOT
from scipy.stats import t as student_t

from timm_3g.studies import Run, read_study, report_study
from timm_3g.studies.plot import draw_study
from timm_3g.studies.report import with_pairs, with_tables
from timm_3g.studies.results import Figures, Row, read_results, write_results
from timm_3g.studies.tables import cells_of, difference, pairs_table, spread, tables
from timm_3g_cli import main

FIGURES = Figures(
    sha256='ab' * 32,
    val_images=50,
    val_top1=80.0,
    val_top5=99.5,
    test_images=100,
    test_top1=79.0,
    test_top5=99.0,
    train_loss=0.1 + 0.2,
    train_images=500,
    param_count=1234567,
    seconds_per_epoch=12.5,
    memory_mib=800,
    resumed=True,
    device='cpu',
    cpu='a, "quoted" CPU',
    threads=2,
    torch='2.14.1',
    timm='1.0.31',
    timm_3g='0.1.0',
    commit='0123456789ab+',
    date='2026-11-27T01:02:03+00:00',
)
TEST = {'avg': [80.0, 81.0, 83.0], '3g': [82.0, 82.5, 86.0], 'isqrt': [80.5, 81.5, 83.5]}


def a_row(arm: str, seed: int, test_top1: float | None, axes: dict | None = None, lr: float = 0.1, **changes) -> Row:
    """A run that counts, or with test_top1 None one of the grid."""
    axes, is_grid = axes or {}, test_top1 is None
    options = {'gp': arm, 'epochs': 3, 'lr': lr, 'seed': seed}
    run = Run(f'{arm}-s{seed}', 'grid' if is_grid else 'final', arm, axes, {'lr': lr}, seed, options, '' if is_grid else 'test')
    test = {'test_images': None, 'test_top5': None} if is_grid else {}
    return Row('poolings', run, replace(FIGURES, sha256=run.sha256, test_top1=test_top1, **test, **changes))


def at(axes: dict) -> list[Row]:
    """The rows that count, at one combination of the axes."""
    return [a_row(arm, seed, top1, axes) for arm, values in TEST.items() for seed, top1 in enumerate(values)]


ROWS = at({})


def test_rows_survive_the_csv_exactly(tmp_path):
    file = tmp_path / 'new' / 'results.csv'
    rows = [*ROWS, a_row('3g', 9, None, {'epochs': 7}, seconds_per_epoch=None, resumed=False)]
    write_results(file, rows)
    assert read_results(file) == rows
    before = file.read_bytes()
    write_results(file, read_results(file))
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda text: text.replace('train_loss', 'loss'), 'its columns must be study, run, phase, arm'),
        (lambda text: text.replace(',80.0,', ',eighty,', 1), "line 2: val_top1 must be a number; got 'eighty'"),
        (lambda text: text.replace(',80.0,', ',800,', 1), "line 2: val_top1 must be in percent, from 0 to 100; got '800'"),
        (lambda text: text.replace(',81.0,', ',nan,', 1), "line 3: test_top1 must be in percent, from 0 to 100; got 'nan'"),
        (lambda text: text.replace(',{},', ',null,', 1), "line 2: axes must map names to values; got 'null'"),
        (
            lambda text: text.replace('"{""lr"": 0.1}",1,', '"{""lr"": 0.1}",7,', 1),
            "line 3: seed must be that of its options, 1; got '7'",
        ),
        (
            lambda text: text.replace('poolings,', '../../poolings,', 1),
            r"line 2: study and arm must be names.*'\.\./\.\./poolings'",
        ),
        (lambda text: text + ''.join(text.splitlines(keepends=True)[1:2]), 'lines 2 and 11 are both of avg-s0'),
        (lambda text: text[:-50], 'line 10'),
        (lambda text: text.replace('""epochs"": 3', '""epochs"": 4', 1), 'the options of avg-s0 are not those of its sha256'),
        (lambda text: text.replace('{""lr"": 0.1}', '{'), 'is no CSV of a study'),
        (lambda text: text + 'poolings,more\n', 'line 11: it must have 32 values'),
    ],
)
def test_a_damaged_csv_is_refused(damage, message, tmp_path):
    write_results(tmp_path / 'results.csv', ROWS)
    text = (tmp_path / 'results.csv').read_text()
    assert damage(text) != text
    (tmp_path / 'results.csv').write_text(damage(text))
    with pytest.raises(ValueError, match=message):
        read_results(tmp_path / 'results.csv')


def test_the_paired_test_is_students():
    cells = {cell.arm: cell for cell in cells_of(ROWS)}
    found = difference(cells['3g'].test, cells['avg'].test)
    d = np.subtract(TEST['3g'], TEST['avg'])
    error = d.std(ddof=1) / math.sqrt(3)
    assert (found.seeds, found.mean) == (3, pytest.approx(d.mean())) and found.error == pytest.approx(error)
    assert found.p == pytest.approx(2 * student_t.sf(abs(d.mean() / error), df=2), rel=1e-9)
    # seeds that both have, and differences without spread
    found = difference(replace(cells['3g'], rows=cells['3g'].rows[1:]).test, cells['avg'].test)
    assert found.seeds == 2 and found.mean == pytest.approx(2.25)
    assert math.isnan(difference(cells['isqrt'].test, cells['avg'].test).p)
    assert difference(replace(cells['3g'], rows=[]).test, cells['avg'].test) is None
    # equal differences: two images of 430 in every seed, in four decimals
    two = [{seed: round(100 * (n + seed) / 430, 4) for seed in range(3)} for n in (380, 378)]
    assert math.isnan(difference(*two).p) and difference(*two).mean == pytest.approx(100 * 2 / 430, abs=1e-4)


def test_a_csv_that_a_spreadsheet_saved(tmp_path):
    write_results(tmp_path / 'results.csv', ROWS)
    text = (tmp_path / 'results.csv').read_text()
    (tmp_path / 'results.csv').write_text(text, encoding='utf-8-sig')
    assert read_results(tmp_path / 'results.csv') == ROWS


def test_rows_of_two_states_of_a_study_are_not_averaged(tmp_path):
    other = a_row('avg', 7, 50.0, lr=0.2)
    with pytest.raises(ValueError, match='avg-s7 has other axes or options than avg-s0'):
        tables([*ROWS, other])
    with pytest.raises(ValueError, match='avg-s0 has other axes or options than avg-s0'):
        tables([*at({'epochs': 3}), *ROWS])
    write_results(tmp_path / 'results.csv', [*ROWS, other])
    with pytest.raises(ValueError, match=r'results\.csv: avg-s7 has other axes or options'):
        report_study(tmp_path / 'results.csv')


def test_rows_of_two_studies_are_not_compared(tmp_path):
    write_results(tmp_path / 'results.csv', [*ROWS, replace(a_row('cov', 0, 50.0), study='other')])
    with pytest.raises(ValueError, match=r'results\.csv has rows of poolings and of other\. Give each study a --results'):
        report_study(tmp_path / 'results.csv')


def test_all_arms_are_compared_with_the_first_or_with_none():
    rows = [*at({'epochs': 3}), *(row for row in at({'epochs': 9}) if row.run.arm != 'avg')]
    text = tables(rows)
    assert text.count('minus avg') == 2 and 'minus 3g' not in text
    assert '| 3g | 3 | 80.00 ± 0.00 | 83.50 ± 2.18 |  |  | 1,234,567 | 12 | 800 |' in text.partition('**epochs 9**')[2]


def test_a_picture_of_another_origin_is_kept(tmp_path):
    write_results(tmp_path / 'results.csv', ROWS)
    (tmp_path / 'poolings.png').write_bytes(b'mine')
    with pytest.raises(FileExistsError, match='timm_3g did not draw it'):
        report_study(tmp_path / 'results.csv', page=tmp_path / 'page.md')
    assert (tmp_path / 'poolings.png').read_bytes() == b'mine' and not (tmp_path / 'page.md').exists()
    (tmp_path / 'poolings.png').unlink()
    for _ in range(2):  # the second over the first
        assert report_study(str(tmp_path / 'results.csv'), page=str(tmp_path / 'page.md')).pictures


def test_the_table_says_what_was_measured():
    text = tables([a_row('avg', 9, None, val_top1=70.0), a_row('avg', 9, None, lr=0.2, val_top1=71.0), *ROWS])
    lines = text.splitlines()
    assert '| avg | 3 | 80.00 ± 0.00 | 81.33 ± 1.53 |  |  | 1,234,567 | 12 | 800 |' in lines
    assert '| 3g | 3 | 80.00 ± 0.00 | 83.50 ± 2.18 | +2.17 ± 0.44 | 0.039 | 1,234,567 | 12 | 800 |' in lines
    assert '| isqrt | 3 | 80.00 ± 0.00 | 81.83 ± 1.53 | +0.50 ± 0.00 |  | 1,234,567 | 12 | 800 |' in lines
    assert 'two-sided paired t-test, 1 comparisons' in text
    assert '| avg | **lr 0.1** | 70.00 |' in lines and '| avg | lr 0.2 | 71.00 |' in lines
    assert '11 runs of the study `poolings`, 2026-11-27' in text and 'Seeds: 9, 0, 1, 2.' in text
    assert '500 to train on, 50 held out, 100 in the test split' in text and 'torch 2.14.1' in text
    assert 'commit 0123456789ab+' in text


@pytest.mark.parametrize('place', [2, 3])
def test_a_choice_that_serves_several_places(place):
    """The grid at one of the places that count, or apart from them; two fractions choose apart."""
    tried = [
        a_row('avg', 9, None, {'epochs': place, 'fraction': fraction}, lr=lr, val_top1=lr)
        for fraction in (0.5, 1.0)
        for lr in (0.1, 0.2)
    ]
    rates = {0.5: 0.1, 1.0: 0.2}
    final = [
        a_row('avg', 0, 80.0, {'epochs': epochs, 'fraction': fraction}, lr=lr)
        for epochs in (2, 6)
        for fraction, lr in rates.items()
    ]
    text = tables([*tried, *final, a_row('3g', 0, 80.0, {'epochs': 2, 'fraction': 0.5})])
    bold = [line for line in text.splitlines() if '**epochs' in line and line.startswith('| avg')]
    assert bold == [f'| avg | **epochs {place}, fraction {f}, lr {lr}** | {lr:.2f} |' for f, lr in rates.items()]
    others = [f'epochs {epochs}, fraction {f}' for epochs in (2, 6) for f in rates if epochs != place]
    assert f'the best of these points for each arm, also for {"; ".join(others)}:' in text
    assert 'for each arm:' in tables([*tried, *(row for row in final if row.run.axes['epochs'] == place)])


def test_a_process_that_only_evaluated_has_no_part_in_the_cost():
    rows = [a_row('avg', 0, 80.0), a_row('avg', 1, 81.0, seconds_per_epoch=None, memory_mib=100)]
    assert '| avg | 2 | 80.00 ± 0.00 | 80.50 ± 0.71 |  |  | 1,234,567 | 12 | 800 |' in tables(rows)
    assert '| 1,234,567 |  |  |' in tables(rows[1:])


def test_one_table_per_combination_of_the_axes():
    rows = [*at({'epochs': 3}), *at({'epochs': 9})]
    text = tables(rows)
    assert text.count('| arm | runs') == 2 and text.index('**epochs 3**') < text.index('**epochs 9**')
    assert '4 comparisons' not in text and '2 comparisons' in text


def corrupted(row: Row, **top1: float) -> Row:
    """The row of a run that was evaluated on corrupted images, too."""
    found = {name.replace('_', '-'): value for name, value in top1.items()}
    run = replace(row.run, corruptions=tuple(found))
    return replace(row, run=run, figures=replace(row.figures, sha256=run.sha256, corrupted=found))


def test_the_table_of_corrupted_images(tmp_path):
    rows = [corrupted(row, noise_std0=row.figures.test_top1 - 30, jpeg_q20=50.0 + row.run.seed) for row in ROWS]
    lines = tables(rows).splitlines()
    header = '| arm | clean | noise-std0 | jpeg-q20 | mean of the corrupted | minus avg | p |'
    below = lines[lines.index(header) + 2 :]
    # avg: (50 + 50) / 2, (51 + 51) / 2, (53 + 52) / 2; 3g: 51, 51.75, 54: differences of 1, 0.75, 1.5
    assert below[0] == '| avg | 81.33 ± 1.53 | 51.33 ± 1.53 | 51.00 ± 1.00 | 51.17 ± 1.26 |  |  |'
    error = np.std([1, 0.75, 1.5], ddof=1) / math.sqrt(3)
    p = 2 * student_t.sf(np.mean([1, 0.75, 1.5]) / error, df=2)
    assert below[1] == f'| 3g | 83.50 ± 2.18 | 53.50 ± 2.18 | 51.00 ± 1.00 | 52.25 ± 1.56 | +1.08 ± {error:.2f} | {p:.3f} |'
    assert any('two-sided paired t-test, 2 comparisons' in line for line in lines)
    assert 'evaluated once per run and corruption.' in ' '.join(lines)
    write_results(tmp_path / 'a.csv', rows)
    assert read_results(tmp_path / 'a.csv') == rows
    # a column of runs without corruptions is empty; what the sha256 covers cannot be changed unseen
    text = (tmp_path / 'a.csv').read_text()
    (tmp_path / 'a.csv').write_text(text.replace('jpeg-q20', 'jpeg-q21'))
    with pytest.raises(ValueError, match='the options of avg-s0 are not those of its sha256'):
        read_results(tmp_path / 'a.csv')


def test_arms_with_other_corruptions_are_not_compared():
    """The first arm has jpeg-q20 alone, a run of the second lacks noise-std0."""
    rows = [corrupted(row, jpeg_q20=50.0) for row in ROWS[:3]]
    rows += [corrupted(ROWS[3], jpeg_q20=60.0), *(corrupted(row, jpeg_q20=60.0, noise_std0=20.0) for row in ROWS[4:6])]
    lines = tables([*rows, *ROWS[6:]]).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith('| arm | clean | jpeg-q20 | noise-std0 |'))
    assert lines[start + 2] == '| avg | 81.33 ± 1.53 | 50.00 ± 0.00 |  |  |  |  |'
    assert lines[start + 3] == '| 3g | 83.50 ± 2.18 | 60.00 ± 0.00 | 20.00 ± 0.00 | 40.00 ± 0.00 |  |  |'
    assert lines[start + 4] == '| isqrt | 81.83 ± 1.53 |  |  |  |  |  |'


@pytest.mark.parametrize('damage', ['[1]', '3', '{""jpeg-q20"": NaN}', '{""jpeg-q20"": ""good""}', '{'])
def test_damaged_accuracies_of_corrupted_images(damage, tmp_path):
    write_results(tmp_path / 'a.csv', [corrupted(ROWS[0], jpeg_q20=50.0)])
    text = (tmp_path / 'a.csv').read_text()
    assert '{""jpeg-q20"": 50.0}' in text
    (tmp_path / 'a.csv').write_text(text.replace('{""jpeg-q20"": 50.0}', damage))
    with pytest.raises(ValueError, match=r'a\.csv is no CSV of a study: '):
        read_results(tmp_path / 'a.csv')


def test_a_csv_of_a_version_that_corrupted_no_images(tmp_path):
    write_results(tmp_path / 'a.csv', ROWS)
    with (tmp_path / 'a.csv').open(newline='') as file:
        lines = list(csv.DictReader(file))
    with (tmp_path / 'old.csv').open('w', newline='') as file:
        writer = csv.DictWriter(file, [name for name in lines[0] if name != 'corrupted'], extrasaction='ignore')
        writer.writeheader()
        writer.writerows(lines)
    assert read_results(tmp_path / 'old.csv') == ROWS


@pytest.mark.parametrize('axes', [[{}], [{'epochs': 3}, {'epochs': 9}], [{'opt': 'sgd'}, {'opt': 'adamw'}]])
def test_the_page_is_the_csv(axes, tmp_path, capsys):
    results, page = tmp_path / 'poolings.csv', tmp_path / 'page.md'
    rows = [row for where in axes for row in at(where)]
    write_results(results, rows)
    page.write_text('# Title\n\n<!-- study poolings: begin -->\nold\n<!-- study poolings: end -->\n\nWords \\1 of ours.\n')
    assert main(['study', 'report', str(results), '--page', str(page)]) == 0
    text = page.read_text()
    assert text.startswith('# Title\n\n<!-- study poolings: begin -->\n\n') and text.endswith('\n\nWords \\1 of ours.\n')
    assert 'old' not in text and tables(rows) in text and tables(rows) in capsys.readouterr().out
    assert (tmp_path / 'poolings.png').read_bytes().startswith(b'\x89PNG')
    assert main(['study', 'report', str(results), '--page', str(tmp_path / 'new.md')]) == 0
    made = (tmp_path / 'new.md').read_text()
    assert made.startswith('# poolings\n\n<!-- study poolings: begin -->\n') and tables(read_results(results)) in made
    report_study(results, page=page, pictures=tmp_path / 'pictures')
    assert page.read_text() == text and (tmp_path / 'pictures' / 'poolings.png').is_file()


@pytest.mark.parametrize(
    ('axes', 'titles'),
    [
        ([{}], ['']),
        ([{'epochs': 3, 'fraction': 0.2}, {'epochs': 9, 'fraction': 0.2}], ['']),
        ([{'opt': 'sgd'}, {'opt': 'adamw'}], ['opt sgd', 'opt adamw']),
        (
            [{'epochs': 3, 'fraction': 0.2}, {'epochs': 9, 'fraction': 0.1}],
            ['epochs 3, fraction 0.2', 'epochs 9, fraction 0.1'],
        ),
    ],
    ids=['none', 'one-varies', 'words', 'two-vary'],
)
def test_lines_where_one_axis_varies_in_numbers(axes, titles, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr('timm_3g.studies.plot.save_figure', lambda figure, file: drawn.append(figure))
    draw_study(cells_of([row for where in axes for row in at(where)]), 'poolings', tmp_path / 'a.png')
    assert [panel.get_title() for panel in drawn[0].axes] == titles
    assert drawn[0].axes[0].get_xlabel() == ('epochs' if len(axes) > len(titles) else '')


@pytest.mark.parametrize(
    'page',
    [
        '',
        '<!-- study a: end --> <!-- study a: begin -->',
        '<!-- study a: begin --> <!-- study a: begin --> <!-- study a: end -->',
    ],
)
def test_a_page_without_its_marks_is_left_alone(page, tmp_path):
    with pytest.raises(ValueError, match='must have <!-- study a: begin -->'):
        with_tables(page, 'a', 'text')
    write_results(tmp_path / 'a.csv', [replace(row, study='a') for row in ROWS])
    (tmp_path / 'page.md').write_text(page)
    with pytest.raises(ValueError, match='must have <!-- study a: begin -->'):
        report_study(tmp_path / 'a.csv', page=tmp_path / 'page.md')
    assert (tmp_path / 'page.md').read_text() == page and not (tmp_path / 'a.png').exists()


def test_nothing_to_report_and_options_of_the_other(tmp_path, capsys):
    write_results(tmp_path / 'empty.csv', [])
    with pytest.raises(ValueError, match=r'empty\.csv has no rows\. Run the study first\.'):
        report_study(tmp_path / 'empty.csv')
    with pytest.raises(FileNotFoundError, match='is a folder'):
        report_study(tmp_path)
    write_results(tmp_path / 'a.csv', [replace(row, study='a') for row in ROWS])
    (tmp_path / 'latin.md').write_bytes(b'caf\xe9')
    with pytest.raises(ValueError, match=r'latin\.md must be UTF-8'):
        report_study(tmp_path / 'a.csv', page=tmp_path / 'latin.md')
    with pytest.raises(OSError, match=r'latin\.md cannot be written: .*Name another place'):
        report_study(tmp_path / 'a.csv', pictures=tmp_path / 'latin.md')
    assert main(['study', 'report']) == 1 and 'report takes one CSV; got 0.' in capsys.readouterr().err
    assert main(['study', 'a', 'b']) == 1 and 'study takes one YAML file; got 2.' in capsys.readouterr().err
    assert main(['study', 'a.yaml']) == 1 and 'Name the data: --data-dir DIR.' in capsys.readouterr().err
    assert main(['study', 'report', 'a.csv', '--data-dir', 'x']) == 1
    assert '--data-dir belongs to a study. Leave it out.' in capsys.readouterr().err
    assert main(['study', 'a.yaml', '--data-dir', 'x', '--page', 'y']) == 1
    assert '--page belongs to report. Leave it out.' in capsys.readouterr().err


def test_the_paired_differences_that_a_page_asks_for(tmp_path, capsys):
    results, page = tmp_path / 'poolings.csv', tmp_path / 'page.md'
    rows = [corrupted(row, noise=top1) for row, top1 in zip(ROWS, [60, 61, 62, 65, 65, 68, 60, 60, 60], strict=True)]
    write_results(results, [*rows, a_row('cov', 7, 50.0)])  # another seed: nothing to pair
    begin, end = '<!-- study poolings pairs: 3g - isqrt,\n  isqrt - avg, cov - avg -->', '<!-- study poolings pairs: end -->'
    page.write_text(f'<!-- study poolings: begin --><!-- study poolings: end -->\n{begin}\nold\n{end} words\n')
    assert main(['study', 'report', str(results), '--page', str(page)]) == 0
    p = [2 * student_t.sf(mean / error, 2) for mean, error in ((5 / 3, math.sqrt(7) / 6), (6, 1))]  # 1.5, 1, 2.5 and 5, 5, 8
    lines = page.read_text().split(begin)[1].splitlines()
    assert lines[2:7] == [
        '| arms | clean | p | noise | mean of the corrupted | p |',
        '| --- | ---: | ---: | ---: | ---: | ---: |',
        f'| 3g - isqrt | +1.67 ± 0.44 | {p[0]:.3f} | +6.00 ± 1.00 | +6.00 ± 1.00 | {p[1]:.3f} |',
        '| isqrt - avg | +0.50 ± 0.00 |  | -1.00 ± 0.58 | -1.00 ± 0.58 | 0.225 |',
        '| cov - avg |  |  |  |  |  |',
    ]
    assert 'two-sided paired t-test, 3 comparisons' in lines[8] and lines[-1] == f'{end} words' and 'old' not in lines
    text = page.read_text()
    report_study(results, page=page)
    assert page.read_text() == text and main(['study', 'report', str(results), '--page', str(tmp_path / 'new.md')]) == 0


def test_paired_differences_without_corruptions_at_each_place():
    grid = [a_row('cov', 9, None, {'epochs': 3})]  # no run of this arm counts yet
    lines = pairs_table([*grid, *at({'epochs': 3}), *at({'epochs': 9})], [('3g', 'avg'), ('cov', 'avg')]).splitlines()
    assert lines[:3] == ['**epochs 3**', '', '| arms | clean | p |'] and lines[5:8:2] == ['| cov - avg |  |  |', '**epochs 9**']


@pytest.mark.parametrize(
    ('marks', 'message'),
    [
        ('<!-- study a pairs: 3g - avg -->', 'Marks for pairs of arms are <!-- study a pairs: A - B, C - D --> and'),
        ('<!-- study a pairs: end -->', 'once each, in this order'),
        ('<!-- study a pairs: end --><!-- study a pairs: 3g - avg -->', 'once each, in this order'),
        ('<!-- study a pairs: 3g - avg --><!-- study a pairs: 3g - avg --><!-- study a pairs: end -->', 'once each'),
        (
            '<!-- study a pairs: 3g - avg --><!-- study b: begin --> Words. <!-- study a pairs: end -->',
            'without others between them',
        ),
        (2 * '<!-- study a pairs: 3g - avg -->\n<!-- study a pairs: end -->', 'once each, in this order'),
        ('<!-- study a pairs: 3g -->\n<!-- study a pairs: end -->', "each of two arms and once; got '3g'."),
        ('<!-- study a pairs: 3g - avg - isqrt -->\n<!-- study a pairs: end -->', 'each of two arms and once'),
        ('<!-- study a pairs: 3g - 3g -->\n<!-- study a pairs: end -->', 'each of two arms and once'),
        ('<!-- study a pairs: 3g - avg, 3g - avg -->\n<!-- study a pairs: end -->', 'each of two arms and once'),
        (
            '<!-- study a pairs: 3g - max -->\n<!-- study a pairs: end -->',
            'the arm max, which has no run. Arms with runs: avg, 3g, i',
        ),
    ],
)
def test_pairs_that_a_page_cannot_ask_for(marks, message, tmp_path):
    page = f'<!-- study a: begin --><!-- study a: end -->{marks}'
    write_results(tmp_path / 'a.csv', [replace(row, study='a') for row in ROWS])
    (tmp_path / 'page.md').write_text(page)
    with pytest.raises(ValueError, match=re.escape(message)):
        report_study(tmp_path / 'a.csv', page=tmp_path / 'page.md')
    assert (tmp_path / 'page.md').read_text() == page and not (tmp_path / 'a.png').exists()


def test_published_pages_are_their_csv():
    """`timm-3g study report docs/studies/NAME.csv --page docs/studies/NAME.md` writes them."""
    for file in sorted((ROOT / 'docs' / 'studies').glob('*.csv')):
        rows, page = read_results(file), file.with_suffix('.md').read_text()
        made = with_pairs(with_tables(page, rows[0].study, tables(rows)), rows[0].study, rows)
        assert made == page, f'{file.name} and its page differ'
        assert file.with_suffix('.png').is_file() == any(row.run.phase == 'final' for row in rows)


SPREAD = re.compile(r'(-?\d+(?:\.\d+)?) ± (\d+(?:\.\d+)?)')
GENERATED = re.compile(r'<!-- study \w+(?:: begin| pairs: (?!end).*?) -->(.*?)<!-- study \w+(?: pairs)?: end -->', re.DOTALL)
# Runs without a study.
ELSEWHERE = {'77.92 ± 0.32', '79.38 ± 0.35', '79.31 ± 0.31', '62.22 ± 0.42', '59.87 ± 0.08', '58.05 ± 0.73'}


def test_the_figures_of_studies_are_those_of_their_tables():
    """Every `mean ± spread` in prose stands in a table that was made of a CSV, rounded, perhaps with the other sign.

    In one of its own page, if that has any.
    """
    studies = sorted((ROOT / 'docs' / 'studies').glob('*.md'))
    tabled = {page: SPREAD.findall(' '.join(GENERATED.findall(page.read_text()))) for page in studies}
    guides = [ROOT / 'docs' / 'guides' / name for name in ('second-order.md', 'training.md')]
    for page in [*studies, *guides, ROOT / 'README.md', ROOT / 'CHANGELOG.md']:
        known = tabled.get(page) or [pair for pairs in tabled.values() for pair in pairs]
        prose = re.sub(r'\s+', ' ', GENERATED.sub('', page.read_text()))
        shown = [pair for pair in SPREAD.findall(prose) if page in studies or ' ± '.join(pair) not in ELSEWHERE]
        unknown = [' ± '.join(pair) for pair in shown if not any(is_rounded(pair, exact) for exact in known)]
        assert not unknown, f'{page.name}: {", ".join(unknown)} stand in no table'


def is_rounded(shown: tuple[str, str], exact: tuple[str, str]) -> bool:
    """Whether both numbers are those of a table, which has two decimals, with as many or fewer."""
    # By decimals. A number of fewer was rounded from more than the two of the table, so it may differ by another 0.005.
    allowed = {2: 0.0001, 1: 0.0551, 0: 0.5051}
    return all(
        abs(abs(float(a)) - abs(float(b))) < allowed[len(a.partition('.')[2])] for a, b in zip(shown, exact, strict=True)
    )


def test_the_overview_shows_what_the_studies_have():
    """In the first table what each arm has, in those of differences what its arms differ by."""
    folder = ROOT / 'docs' / 'studies'
    page = (folder / 'overview.md').read_text()
    errors = {line[1]: float(line[2].strip('*')) for line in tables_of((folder / 'published.md').read_text())[0][1:]}
    order, clean, images, _ = tables_of(page)
    heading, *lines = order
    studies = [linked(title)[0] for title in heading[1:]]
    for arm, *cells in lines:
        for study, shown in zip(studies, cells, strict=True):
            if study == 'published':
                expected = f'{100 - errors[arm]:.2f}' if arm in errors else ''
            else:
                found = [cell for cell in cells_of(read_results(folder / f'{study}.csv')) if cell.arm == arm.strip('`')]
                expected = spread([*found[0].test.values()]) if found else ''
            assert shown.strip('*') == expected, f'{arm} has {expected} in {study}'
    name = ''
    for ((_, *pairs), *lines), corrupted in ((clean, False), (images, True)):
        for line in lines:
            name = (linked(line[0]) or [name])[0]  # where none is linked, the study of the row above
            assert line[1:] == [overview_difference(folder / f'{name}.csv', line[0], pair, corrupted) for pair in pairs]
    pages = [file.with_suffix('.md').read_text() for file in folder.glob('*.csv')]
    counted = sum(int(number) for text in pages for number in re.findall(r'(\d+) comparisons, not corrected', text))
    assert f'make {counted} comparisons' in page


def overview_difference(file: Path, row: str, pair: str, corrupted: bool) -> str:
    """What the overview must show: of the arms with the BatchNorm that the row names, at the epochs that it names, if any."""
    norm = '_norm' * ('head_norm' in row) + '0.1' * ('head_norm=0.1' in row)
    beside = '_tap_avg' * file.stem.startswith('trashnet')
    words = {'two': 2, 'four': 4, 'six': 6}
    epochs = [words[word] for word in re.findall(r'\w+', row) if word in words]
    cells = [cell for cell in cells_of(read_results(file)) if not epochs or cell.axes['epochs'] == epochs[0]]
    names = [name.strip('`') for name in pair.split(' - ')]
    arms = [f'avg{norm}' if name == 'average' else f'{name}{norm}{beside}' for name in names]
    ours, theirs = ([cell for cell in cells if cell.arm == arm] for arm in arms)
    assert len(ours) == len(theirs) == 1, f'{row}: which of the lengths of training?'
    first, second = (cell.corrupted(cell.corruptions) if corrupted else cell.test for cell in (ours[0], theirs[0]))
    found = difference(first, second)
    return f'{found.mean:+.2f} ± {found.error:.2f}'


def tables_of(page: str) -> list[list[list[str]]]:
    """The cells of each line of each table: the heading, then the rows."""
    blocks = re.findall(r'(?:^\|.*\|\n)+', page, re.MULTILINE)
    cells = [[[cell.strip() for cell in line.strip('|').split('|')] for line in block.splitlines()] for block in blocks]
    return [[heading, *rows] for heading, _, *rows in cells]


def linked(text: str) -> list[str]:
    """The study pages that a text links."""
    return re.findall(r'\((\w+)\.md\)', text)


def test_published_configs_are_studies():
    for file in sorted((ROOT / 'train_configs' / 'studies').glob('*.yaml')):
        assert read_study(file).name == file.stem


def test_published_configs_share_the_runs_that_they_say():
    configs = ROOT / 'train_configs' / 'studies'
    stems = {run.stem for run in read_study(configs / 'cifar10_poolings.yaml').runs({})}
    shared = [run for run in read_study(configs / 'cifar10_reweighting.yaml').runs({}) if run.stem in stems]
    assert {run.arm for run in shared} == {'isqrt', '3g', '3g_orig'} and len(shared) == 9 * 3
