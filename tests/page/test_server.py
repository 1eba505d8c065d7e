"""The page through the interface of programs: what a visitor cannot do, and what the page leaves behind."""

import json
import secrets
import signal
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
from common import SMALL
from conftest import serve
from PIL import Image

from timm_3g import predict
from timm_3g.page import build_page
from timm_3g.page.build import EXAMPLES, _example_files
from timm_3g.page.options import SHIPPED
from timm_3g.page.quota import used


def get(address: str, data: dict | None = None) -> bytes:
    """What the server answers to a GET, or to a POST of JSON."""
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(address, body, {'Content-Type': 'application/json'})) as answer:
        return answer.read()


def upload(address: str, file: Path) -> str:
    """The path under which the server keeps a file."""
    boundary = 'x' * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{file.name}"\r\n\r\n'
    body = head.encode() + file.read_bytes() + f'\r\n--{boundary}--\r\n'.encode()
    kind = {'Content-Type': f'multipart/form-data; boundary={boundary}'}
    with urllib.request.urlopen(urllib.request.Request(f'{address}gradio_api/upload', body, kind)) as answer:
        return json.load(answer)[0]


def ask(address: str, path: str, name: str) -> str:
    """The class of a file that the server has, by a model; or the error. As the browser asks, with any path and name."""
    config = json.loads(get(f'{address}config'))
    (event,) = [event['id'] for event in config['dependencies'] if event['api_name'] == 'show']
    session = secrets.token_hex(8)
    photo = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
    get(f'{address}gradio_api/queue/join', {'data': [photo, name, 0.5], 'fn_index': event, 'session_hash': session})
    lines = get(f'{address}gradio_api/queue/data?session_hash={session}').decode().splitlines()
    messages = [json.loads(line.removeprefix('data: ')) for line in lines if line.startswith('data: ')]
    (done,) = [message for message in messages if message['msg'] == 'process_completed']
    return done['output']['data'][0]['label'] if done['success'] else f'error: {done["output"]["error"]}'


@pytest.fixture
def photo(tmp_path) -> Path:
    Image.fromarray(np.full((64, 64, 3), (135, 206, 235), np.uint8)).save(tmp_path / 'sky.png')
    return tmp_path / 'sky.png'


def test_the_photographs_have_lost_nothing(tmp_path):
    for file, source in zip(_example_files(tmp_path), EXAMPLES.values(), strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), getattr(skimage.data, source)())


def test_an_image_and_what_is_none(address, photo):
    (found,) = predict(SHIPPED, photo, workers=0, device='cpu')
    assert ask(address, upload(address, photo), SHIPPED) == found.classes[0].name
    weights = upload(address, Path(timm.get_pretrained_cfg(SHIPPED).file))
    assert ask(address, weights, SHIPPED).startswith('error: This file is not an image that can be read here')


def test_no_visitor_reads_a_path_of_the_machine(address, photo):
    """Gradio refuses it without a word. One that was opened would be an answer, or no image."""
    for path in ('/etc/passwd', timm.__file__, str(photo), 'pyproject.toml'):
        assert ask(address, path, SHIPPED) == 'error: None'


def test_no_visitor_loads_another_model(address, photo):
    here = upload(address, photo)
    for name in ('local-dir:/etc', 'hf-hub:timm/resnet18.a1_in1k', 'resnet50', f'{SMALL}=/etc/passwd'):
        assert f'{name} is not in the list of choices' in ask(address, here, name)


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
        name = f'{SMALL} (secret.pth)'
        assert ask(address, upload(address, photo), name) == f'error: The model {name} could not be loaded.'
        assert str(tmp_path / 'secret.pth') in log.read_text()
        (folder,) = tmp_path.glob('.timm_3g.page.*')
        assert used(folder) > 0


def test_an_upload_past_the_limit_of_all_is_refused(tmp_path, photo):
    """A sparse file stands for what others have uploaded."""
    with serve(tmp_path, SHIPPED) as (address, _):
        assert upload(address, photo)
        (folder,) = tmp_path.glob('.timm_3g.page.*')
        with (folder / 'others').open('wb') as others:
            others.truncate(64 * 30 * 2**20)
        with pytest.raises(urllib.error.HTTPError) as error:
            upload(address, photo)
        assert error.value.code == 507
        error.value.close()


def test_what_counts_as_an_upload_and_its_size(tmp_path):
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


def test_uploads_that_arrive_together_share_the_limit(tmp_path):
    import anyio

    from timm_3g.page.quota import UploadQuota

    passed, answers = [], []

    async def app(scope, receive, send):
        await anyio.sleep(0.05)
        passed.append(scope)

    async def send(message):
        answers.append(message.get('status'))

    async def together(quota):
        scope = {'type': 'http', 'method': 'POST', 'path': '/upload', 'headers': [(b'content-length', b'100')]}
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(quota, scope, None, send)

    quota = UploadQuota(app, tmp_path, 250)
    anyio.run(together, quota)
    assert len(passed) == 2 and answers.count(507) == 3 and quota.arriving == 0
