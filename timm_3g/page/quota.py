"""A limit on all uploads together. Gradio has one for each file alone."""

from pathlib import Path
from typing import Any


class UploadQuota:
    """ASGI middleware: an upload is answered with 507 where the folder might hold more than so many bytes.

    Uploads that have begun count with all that they state, beside what of them is in the folder already.

    Args:
        app: what serves.
        folder: of the uploads.
        most: bytes at most.
    """

    def __init__(self, app: Any, folder: Path, most: int) -> None:
        self.app, self.folder, self.most = app, folder, most
        self.arriving = 0  # stated bytes of uploads that have begun

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope['type'] == 'http' and scope['method'] == 'POST' and scope['path'].rstrip('/').endswith('/upload'):
            stated = dict(scope['headers']).get(b'content-length', b'')
            if not stated.isdigit() or int(stated) + self.arriving + used(self.folder) > self.most:
                headers = [(b'content-type', b'text/plain; charset=utf-8')]
                await send({'type': 'http.response.start', 'status': 507, 'headers': headers})
                await send({'type': 'http.response.body', 'body': b'There is no room for more files. Come back later.'})
                return
            self.arriving += int(stated)
            try:
                await self.app(scope, receive, send)
            finally:
                self.arriving -= int(stated)
            return
        await self.app(scope, receive, send)


def used(folder: Path) -> int:
    """Bytes of all files below a folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / 'a').write_bytes(b'12345')
    >>> used(folder)
    5
    """
    total = 0
    for file in folder.rglob('*'):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:  # removed meanwhile
            continue
    return total
