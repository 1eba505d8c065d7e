"""Every pooling cites its paper, its docstring links the same address, and BibTeX reads the citation."""

import dataclasses
import inspect
import re

import pytest

from timm_3g.layers import Paper, pool_paper
from timm_3g.layers.create_pool import POOLS, TIMM_POOLS

every_pooling = pytest.mark.parametrize('name', POOLS)


@every_pooling
def test_a_pooling_has_a_paper(name):
    paper = pool_paper(name)
    assert paper.title and paper.venue and paper.where and paper.key and len(paper.authors) > 1
    assert 2000 < paper.year < 2100 and str(paper.year) in paper.key
    assert re.fullmatch(r'https://[a-z.]+/\S+', paper.url)
    assert all(len(author.split()) >= 2 for author in paper.authors)


@every_pooling
def test_the_docstring_of_the_class_links_the_paper(name):
    doc = ' '.join(inspect.getdoc(POOLS[name].cls).split())
    paper = pool_paper(name)
    assert paper.url in doc and paper.title in doc and str(paper.year) in doc


@every_pooling
def test_bibtex(name):
    paper = pool_paper(name)
    entry, *fields, end = paper.bibtex().split('\n')
    assert entry == f'@inproceedings{{{paper.key},' and end == '}'
    read = dict(re.fullmatch(r'  (\w+)=\{(.*)\},?', field).groups() for field in fields)
    assert read['title'].replace('{', '').replace('}', '') == paper.title
    assert [' '.join(reversed(author.split(', '))) for author in read['author'].split(' and ')] == list(paper.authors)
    assert (read['booktitle'], read['year'], read['url']) == (paper.venue, str(paper.year), paper.url)
    assert ('pages' in read) == bool(paper.pages)


def test_two_papers_have_two_keys():
    papers = {pool_paper(name).title: pool_paper(name) for name in POOLS}
    assert len({paper.key for paper in papers.values()}) == len({paper.url for paper in papers.values()}) == len(papers)


def test_inner_capitals_are_kept():
    assert '  title={{G2DeNet:} Global Gaussian' in pool_paper('g2de').bibtex()
    assert '  title={Bilinear {CNN} Models' in pool_paper('bcnn').bibtex()
    assert '  pages={5080--5088},' in pool_paper('3g').bibtex()


@pytest.mark.parametrize('name', [TIMM_POOLS[0], '3gg'])
def test_other_names_have_none(name):
    with pytest.raises(ValueError, match=f'{name!r} is not a second-order pooling with a paper. Those are: 3g, '):
        pool_paper(name)


def test_a_citation_cannot_change():
    with pytest.raises(AttributeError):
        pool_paper('3g').year = 2020
    assert isinstance(pool_paper('3g'), Paper)


def test_authors_are_names_and_not_their_letters():
    with pytest.raises(TypeError, match=r"authors must be a tuple of full names, e.g. \('Ada Lovelace',\); got 'Doe, Jane'"):
        dataclasses.replace(pool_paper('3g'), authors='Doe, Jane')
