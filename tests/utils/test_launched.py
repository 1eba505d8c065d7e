"""What torchrun tells a process, and what a shell may tell it."""

import pytest

from timm_3g.utils.launched import is_first_process, number_of_processes


@pytest.mark.parametrize(
    ('given', 'first', 'processes'),
    [
        ({}, True, 1),
        ({'RANK': '1', 'WORLD_SIZE': '2'}, False, 2),
        ({'RANK': '0', 'WORLD_SIZE': '2'}, True, 2),
        ({'RANK': '1'}, True, 1),  # a leftover of another job: one process is all that there is
        ({'RANK': '', 'WORLD_SIZE': ''}, True, 1),
    ],
)
def test_who_prints(given, first, processes, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE'):
        monkeypatch.delenv(name, raising=False)
        if name in given:
            monkeypatch.setenv(name, given[name])
    assert (is_first_process(), number_of_processes()) == (first, processes)
