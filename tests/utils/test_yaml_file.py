"""YAML of strangers: a few lines can stand for more than fits in memory."""

import pytest
import yaml

from timm_3g.utils.yaml_file import MOST_VALUES, parse_yaml, read_yaml


def bomb(levels: int) -> str:
    """Lists of ten aliases of the list before: 10 to the power of `levels` values in a few hundred bytes."""
    lines = ['a0: &a0 [' + ', '.join('x' * 10) + ']']
    lines += [f'a{i}: &a{i} [' + ', '.join([f'*a{i - 1}'] * 10) + ']' for i in range(1, levels)]
    return '\n'.join(lines)


def test_aliases_count_as_often_as_they_stand():
    assert len(parse_yaml(bomb(3))) == 3
    with pytest.raises(ValueError, match='more than 100,000 values'):
        parse_yaml(bomb(12))
    assert len(parse_yaml('[' + 'x,' * (MOST_VALUES - 1) + ']')) == MOST_VALUES - 1


def test_pairs_count_too():
    with pytest.raises(ValueError, match='more than 100,000 values'):
        parse_yaml(f'd: &d [{",".join("1" * 900)}]\ne: !!pairs [{",".join(["x: *d"] * 900)}]')


@pytest.mark.parametrize(
    'text',
    ['a: &a {p: 1}\nx: {b: &b {<<: *a, p: 2}}\nc: {<<: *b}', "{1: a, '1': b}"],
    ids=['merged', 'types'],
)
def test_what_stands_once(text):
    assert parse_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize('text', ['!!bool x', '!!timestamp x', '!!int ""', ':'.join('1' * 200) + '.0'])
def test_values_that_are_none_of_their_type(text):
    with pytest.raises(ValueError, match='it has a value that is none of its type'):
        parse_yaml(f'a: {text}')


def test_both_halves_of_a_message():
    with pytest.raises(ValueError, match='expected a single document in the stream but found another document, in line 2'):
        parse_yaml('a: 1\n---\nb: 2\n')


def test_a_file_is_named(tmp_path):
    (tmp_path / 'a.yaml').write_text(bomb(12))
    with pytest.raises(ValueError, match=r'a\.yaml is no YAML that can be used: it has more than'):
        read_yaml(tmp_path / 'a.yaml')
