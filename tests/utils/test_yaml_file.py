"""YAML of strangers: a few lines can stand for more than fits in memory."""

import pytest

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


def test_a_file_is_named(tmp_path):
    (tmp_path / 'a.yaml').write_text(bomb(12))
    with pytest.raises(ValueError, match=r'a\.yaml is no YAML that can be used: it has more than'):
        read_yaml(tmp_path / 'a.yaml')
