"""Where authors keep their weights, on this machine: a plain web server and Google Drive, whose large files come after a page.

`with AuthorsServer() as server`: `files` has what there is, by path or by Drive id; `faults` what goes wrong, one request
after the other; `requests` what was asked for.
"""

import re
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

DROP, CUT, NO_RANGE = 'drop', 'cut', 'no range'  # before an answer; half-way through one; all bytes, whatever was asked for

# Google's, in its essentials. gdown reads line by line: the form is on one, as there.
CONFIRM = (
    '<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>\n'
    '<p class="uc-warning-subcaption">TOY.pth.tar (211M) is too large for Google to scan for viruses.</p>\n'
    '<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">'
    '<input type="submit" value="Download anyway"/><input type="hidden" name="id" value="{id}">'
    '<input type="hidden" name="export" value="download"><input type="hidden" name="confirm" value="t">'
    '<input type="hidden" name="uuid" value="1f-2e"></form>\n</body></html>'
)
QUOTA_REASON = 'Too many users have viewed or downloaded this file recently.'
QUOTA = (
    f'<html><head><title>Google Drive - Quota exceeded</title></head><body>\n<p class="uc-error-caption">Sorry.</p>\n'
    f'<p class="uc-error-subcaption">{QUOTA_REASON}</p>\n</body></html>'
)


class Request(NamedTuple):
    """What a client asked for. `path` begins with the host for Google's."""

    path: str
    range: str | None
    headers: dict[str, str]


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def do_GET(self):
        server: AuthorsServer = self.server.owner
        with server.lock:
            server.requests.append(Request(self.path, self.headers['Range'], dict(self.headers)))
            fault = server.faults.pop(0) if server.faults else None
        server.asked.set()
        server.go_on.wait()
        if fault == DROP:
            return self.hang_up()
        if isinstance(fault, int | str) and fault not in (CUT, NO_RANGE):
            status, page = (fault, '<html>Not Found</html>') if isinstance(fault, int) else (200, fault)
            return self.page(page, status)
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if url.path == '/drive.google.com/uc':
            return self.page(
                '', 303, {'Location': f'https://drive.usercontent.google.com/download?{url.query}&export=download'}
            )
        data = server.files.get(query.get('id') or url.path)
        if data is None:
            return self.page('<html>Not Found</html>', 404)
        if url.path == '/drive.usercontent.google.com/download':
            if (query.get('confirm'), query.get('uuid')) != ('t', '1f-2e'):
                return self.page(CONFIRM.format(**query))
            return self.bytes(data, fault, {'Content-Disposition': 'attachment; filename="TOY.pth.tar"'})
        return self.bytes(data, fault)

    def page(self, text, status=200, headers=()):
        body = text.encode()
        self.begin(status, {'Content-Type': 'text/html; charset=utf-8', 'Content-Length': len(body), **dict(headers)})
        self.wfile.write(body)

    def bytes(self, data, fault, headers=()):
        found = re.fullmatch(r'bytes=(\d+)-', self.headers['Range'] or '')
        start = int(found[1]) if found and fault != NO_RANGE else None
        headers = {'Content-Type': 'application/octet-stream', 'Accept-Ranges': 'bytes', **dict(headers)}
        if start is None:
            body, status = data, 200
        elif start >= len(data):
            body, status = b'', 416
            headers['Content-Range'] = f'bytes */{len(data)}'
        else:
            body, status = data[start:], 206
            headers['Content-Range'] = f'bytes {start}-{len(data) - 1}/{len(data)}'
        self.begin(status, {**headers, 'Content-Length': len(body)})
        self.wfile.write(body[: len(body) // 2] if fault == CUT else body)
        if fault == CUT:
            self.hang_up()

    def begin(self, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()

    def hang_up(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError):  # gdown hangs up where it asks again for the rest
            self.owner.errors.append(error)


class AuthorsServer:
    def __init__(self):
        self.files: dict[str, bytes] = {}  # by path, e.g. '/models/toy.pth', or by Drive id
        self.faults: list[str | int | None] = []  # DROP, CUT, NO_RANGE, a status, a page, or None for none
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []  # bugs here
        self.asked, self.go_on = threading.Event(), threading.Event()  # clear the second and answers wait
        self.lock = threading.Lock()
        self.go_on.set()

    def __enter__(self):
        self.http = Http(('127.0.0.1', 0), Handler)
        self.http.owner = self
        self.url = f'http://127.0.0.1:{self.http.server_port}'
        threading.Thread(target=self.http.serve_forever, kwargs={'poll_interval': 0.01}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.go_on.set()
        self.http.shutdown()
        self.http.server_close()
        assert not self.errors, self.errors

    def route(self, monkeypatch):
        """Send what `requests` sends to any host to this server, the host as the first part of the path."""
        import requests.adapters

        def send(adapter, request, *args, **kwargs):
            url = urlsplit(request.url)
            if f'{url.scheme}://{url.netloc}' != self.url:
                request = request.copy()
                request.url = f'{self.url}/{url.netloc}{url.path}?{url.query}'
            return original(adapter, request, *args, **{**kwargs, 'proxies': {}})

        original = requests.adapters.HTTPAdapter.send
        monkeypatch.setattr(requests.adapters.HTTPAdapter, 'send', send)
