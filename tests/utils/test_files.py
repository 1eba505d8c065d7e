"""Files that are written whole or not at all, and never over something that is no file."""

import os

import pytest

from timm_3g.utils import download
from timm_3g.utils.files import write_text


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(OSError, match=r'pipe exists and is not a regular file\. Name another file'):
        write_text(tmp_path / 'pipe', 'x')
    assert (tmp_path / 'pipe').is_fifo() and len(list(tmp_path.iterdir())) == 1


def test_a_name_in_another_encoding_costs_no_result(tmp_path):
    write_text(tmp_path / 'a.csv', os.fsdecode(b'caf\xe9.png,1'))
    assert (tmp_path / 'a.csv').read_text() == 'caf\\udce9.png,1'


def test_a_part_of_an_older_version_is_gone_before_the_newer_is_named(tmp_path, monkeypatch):
    """Else the next request, which names the newer version, would be continued behind bytes of the older."""

    class Answer:
        status = 200
        headers = {'ETag': '"B"', 'Content-Length': '4000', 'Last-Modified': ''}

        def open(self, request):
            return self

        build_opener = open

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    part, version = tmp_path / 'a.part', tmp_path / 'a.version'
    part.write_bytes(b'A' * 1500)
    version.write_text('"A"')
    monkeypatch.setattr(download, 'build_opener', lambda *handlers: type('Opener', (), {'open': lambda *a, **k: Answer()})())
    monkeypatch.setattr(download.shutil, 'disk_usage', lambda folder: type('Disk', (), {'free': 10}))
    with pytest.raises(download.ConnectError, match=r'announces 4,000 bytes, and .* has 10 bytes left'):
        download._go_on('http://x', part, version, checked=False, pace=None)
    assert not part.exists() and version.read_text() == '"B"'
