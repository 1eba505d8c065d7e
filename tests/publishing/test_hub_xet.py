"""The Xet path: the client's own transfers, on disk. publish_through_xet.py has run beside the tests so far."""

import json

from publish_through_xet import NO_XET


def test_publish_and_load_through_xet(skip_without_xet, xet_process):
    process, folder = xet_process
    printed, _ = process.communicate(timeout=120)
    if process.returncode == NO_XET:
        skip_without_xet(f'hf_xet is not here, or without its local mode: {printed}')
    assert process.returncode == 0, printed
    result = json.loads((folder / 'result.json').read_text())
    assert result['equal'] and result['commits'] == 2  # the repository's first, and ours: the second push made none
    tokens = [path for _, path in result['requests'] if '/xet-' in path]
    assert any('xet-write-token' in path for path in tokens) and any('xet-read-token' in path for path in tokens)
    assert not [path for method, path in result['requests'] if method == 'PUT']
