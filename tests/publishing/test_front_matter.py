"""Front matter of other people survives, and the reasons why huggingface_hub's RepoCard does not read it."""

import pytest
from huggingface_hub import RepoCard
from huggingface_hub.utils.sha import git_hash

from timm_3g.publishing.front_matter import join_front_matter, split_front_matter

NORWEGIAN = '---\nlanguage: no\n---\nText.\n'
NUMBER = '---\n5: five\n---\nText.\n'
BLANK = '--- \nlicense: mit\n---\nText.\n'


@pytest.mark.parametrize(
    ('text', 'fields'), [(NORWEGIAN, {'language': 'no'}), (NUMBER, {5: 'five'}), (BLANK, {'license': 'mit'})]
)
def test_what_people_write_is_read_and_kept(text, fields):
    assert split_front_matter(text) == (fields, 'Text.\n')
    assert split_front_matter(join_front_matter(*split_front_matter(text))) == (fields, 'Text.\n')


def test_why_there_is_a_loader_of_our_own():
    """If this fails, huggingface_hub reads such front matter now: see whether front_matter.py can go."""
    assert RepoCard(NORWEGIAN).data.to_dict() == {'language': False}
    with pytest.raises(TypeError):
        RepoCard(NUMBER)
    assert RepoCard(BLANK).data.to_dict() == {}


def test_the_hash_of_git():
    """As `git hash-object` gives it."""
    assert git_hash(b'Hello, World!') == 'b45ef6fec89518d314f546fd6c3025367b721684'


@pytest.mark.parametrize(
    ('yaml', 'said'),
    [
        ('license: mit\nlicense: apache-2.0', "the key 'license' stands twice, in line 3, column 1"),
        ('a: &x [*x]', 'more than 100,000 values'),
        ('a: ' + '[' * 3000, 'nested too deeply'),
        ('a: 2001-99-99', 'month must be in 1..12'),
        ('a: [', 'expected the node content'),
    ],
    ids=['twice', 'endless', 'deep', 'date', 'open'],
)
def test_front_matter_that_cannot_be_used(yaml, said):
    with pytest.raises(ValueError, match=f'front matter is not valid YAML: .*{said}'):
        split_front_matter(f'---\n{yaml}\n---\nText.\n')
