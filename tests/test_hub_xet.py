"""The Xet path: the client's own transfers, on disk, since it reads its settings once. In a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

NO_XET = 77  # exit code: a plain upload by the client itself does not work
SCRIPT = """
import json, os, sys
sys.path.insert(0, {tests!r})
try:
    import fakexet
except ModuleNotFoundError:
    sys.exit({no_xet})
hub = fakexet.XetHub({folder!r} + '/cas').__enter__()
os.environ |= {{'HF_ENDPOINT': hub.url, 'HF_HOME': {folder!r} + '/home', 'HF_TOKEN': 'hf_acme', 'HF_HUB_DISABLE_XET': '0'}}
from huggingface_hub import HfApi
try:
    HfApi().create_repo('acme/probe')
    HfApi().upload_file(repo_id='acme/probe', path_or_fileobj=bytes(100_000), path_in_repo='blob.bin')
    assert any('/xet-write-token' in r[1] for r in hub.requests)
except Exception as error:
    print(error, file=sys.stderr)
    sys.exit({no_xet})
import timm, torch
from timm_3g.__main__ import main
torch.manual_seed(0)
model = timm.create_model('resnet10_mini_3g', num_classes=3).eval()
torch.save(model.state_dict(), {folder!r} + '/best.pth')
for _ in range(2):
    assert main(['publish', {folder!r} + '/best.pth', '--repo', 'acme/resnet10_mini_3g.birds']) == 0
again = timm.create_model('hf-hub:acme/resnet10_mini_3g.birds', pretrained=True).eval()
x = torch.randn(1, 3, 32, 32)
with torch.no_grad():
    equal = torch.equal(again(x), model(x))
json.dump({{'equal': equal, 'commits': len(hub.repos['acme/resnet10_mini_3g.birds'].commits),
            'requests': [[r[0], r[1]] for r in hub.requests]}}, open({folder!r} + '/result.json', 'w'))
"""


def test_publish_and_load_through_xet(skip_without_xet, tmp_path):
    (tmp_path / 'cas').mkdir()
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(tmp_path), no_xet=NO_XET)
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=120)
    if done.returncode == NO_XET:
        skip_without_xet(f'hf_xet is not here, or without its local mode: {done.stderr}')
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result['equal'] and result['commits'] == 2  # the repository's first, and ours: the second push made none
    tokens = [path for _, path in result['requests'] if '/xet-' in path]
    assert any('xet-write-token' in path for path in tokens) and any('xet-read-token' in path for path in tokens)
    assert not [path for method, path in result['requests'] if method == 'PUT']
