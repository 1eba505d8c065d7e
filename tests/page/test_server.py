"""The page through the interface of programs: what a visitor cannot do, and what the page leaves behind."""

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
from common import SMALL
from conftest import serve
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from timm_3g.page import build_page
from timm_3g.page.options import SHIPPED
from timm_3g.page.quota import used


@pytest.fixture(scope='module')
def client(address) -> Iterator[Client]:
    opened = Client(address, verbose=False)
    yield opened
    opened.close()


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(np.full((64, 64, 3), (135, 206, 235), np.uint8)).save(tmp_path / 'sky.png')
    return tmp_path / 'sky.png'


def test_the_interface_answers(client, photo):
    assert client.predict(handle_file(photo), SHIPPED, 0.5, api_name='/show')[0]['label'] == 'airplane'


@pytest.mark.parametrize('path', ['/etc/passwd', str(Path(timm.__file__))])
def test_no_visitor_reads_a_path(client, path):
    inside = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
    with pytest.raises(AppError) as error:
        client.predict(inside, SHIPPED, 0.5, api_name='/show')
    assert 'root:' not in str(error.value)


@pytest.mark.parametrize('name', ['local-dir:/etc', 'hf-hub:timm/resnet18.a1_in1k', 'resnet50', f'{SMALL}=/etc/passwd'])
def test_no_visitor_loads_another_model(client, photo, name):
    with pytest.raises(AppError, match='is not in the list of choices'):
        client.predict(handle_file(photo), name, 0.5, api_name='/show')


def test_what_is_no_image_is_answered_in_words(client):
    with pytest.raises(AppError, match='This file is not an image that can be read here'):
        client.predict(handle_file(timm.get_pretrained_cfg(SHIPPED).file), SHIPPED, 0.5, api_name='/show')


def test_nobody_gets_past_the_queue(address):
    """A request that would be answered at once, whatever the limits."""
    body = json.dumps({'data': [None, SHIPPED, 0.5]}).encode()
    for route in ('run/show', 'api/show'):
        request = urllib.request.Request(
            f'{address}gradio_api/{route}', data=body, headers={'Content-Type': 'application/json'}
        )
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request)
        assert error.value.code == 404
        error.value.close()


def test_all_events_are_one_group_of_limited_size():
    blocks = build_page(device='cpu', queue=3)
    events = [event for event in blocks.fns.values() if event.api_name != 'load_example']
    assert len(events) == 6 and {(event.concurrency_id, event.concurrency_limit) for event in events} == {('page', 2)}
    assert all(event.queue is not False for event in events) and blocks._queue.max_size == 3


def test_a_model_that_cannot_be_loaded_and_sigterm(tmp_path, photo):
    """No path of this machine reaches a visitor, and the end by `kill` leaves nothing behind."""
    (tmp_path / 'secret.pth').write_bytes(b'Hello.')
    with serve(tmp_path, SHIPPED, f'{SMALL}={tmp_path / "secret.pth"}', end=signal.SIGTERM) as (address, log):
        client = Client(address, verbose=False)
        client.predict(handle_file(photo), SHIPPED, 0.5, api_name='/show')
        with pytest.raises(AppError) as error:
            client.predict(handle_file(photo), f'{SMALL} (secret.pth)', 0.5, api_name='/show')
        assert str(error.value) == f'The model {SMALL} (secret.pth) could not be loaded.'
        client.close()
        assert str(tmp_path / 'secret.pth') in log.read_text()
        (folder,) = tmp_path.glob('.timm_3g.page.*')
        assert used(folder) > 0


def test_uploads_have_a_limit_together(tmp_path):
    """Against the middleware itself: 64 uploads of 30 MB would take long."""
    import anyio

    from timm_3g.page.quota import UploadQuota

    (tmp_path / 'a').write_bytes(bytes(900))
    sent = []

    async def app(scope, receive, send):
        await send('passed')

    async def send(message):
        sent.append(message)

    def post(path, length):
        headers = [(b'content-length', str(length).encode())] if length is not None else []
        sent.clear()
        scope = {'type': 'http', 'method': 'POST', 'path': path, 'headers': headers}
        anyio.run(UploadQuota(app, tmp_path, 1000), scope, None, send)
        return sent[0] if sent[0] == 'passed' else sent[0]['status']

    assert post('/gradio_api/upload', 100) == 'passed' == post('/gradio_api/queue/join', 5000)
    assert post('/gradio_api/upload', 101) == post('/gradio_api/upload', None) == 507
