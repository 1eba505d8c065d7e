"""Each private name of `timm_3g/compat.py` still is what it is used for. A red test here names what upstream has changed."""

import json
import socket

import pytest
import timm
from common import SMALL
from huggingface_hub import hf_hub_download
from timm.models.efficientnet import EfficientNet

from timm_3g import compat

# timm -------------------------------------------------------------------------------------------------------------------


def test_search_split(tmp_path):
    (tmp_path / 'val').mkdir()
    assert compat.search_split(str(tmp_path), 'validation') == str(tmp_path / 'val')
    assert compat.search_split(str(tmp_path), 'train') == str(tmp_path)


def test_decode_arch_def():
    net = EfficientNet(compat.decode_arch_def([['ds_r1_k3_s1_e1_c16']]), num_classes=2)
    assert net.num_classes == 2 and [info['num_chs'] for info in net.feature_info] == [16]


def test_model_args(tmp_path):
    """timm writes what our head adds. Without `num_iters` and `eps` it would be another network."""
    model = timm.create_model(SMALL, num_classes=3, stem_type='deep')
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    written = json.loads((tmp_path / 'config.json').read_text())['model_args']
    assert written | {'stem_type': 'deep', 'num_iters': 5, 'eps': 1e-7, 'reduce_dim': 64} == written


# huggingface_hub --------------------------------------------------------------------------------------------------------


def test_http_error(hub, monkeypatch):
    """What the client raises where nobody listens, or the server breaks the rules of HTTP, is one of the two."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = server.getsockname()[1]
    for endpoint in (f'http://127.0.0.1:{port}', hub.url):
        with pytest.raises((OSError, compat.HTTP_ERROR)):
            hf_hub_download(f'acme/{SMALL}', 'config.json', endpoint=endpoint, etag_timeout=1)
    assert issubclass(compat.HTTP_ERROR, Exception) and compat.HTTP_ERROR not in (Exception, OSError)
