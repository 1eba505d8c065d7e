"""Download a file over HTTP: bounded retries, timeouts, and never parts of two versions in one file."""

import http
import http.client
import shutil
import sys
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from huggingface_hub import constants
from huggingface_hub.errors import OfflineModeIsEnabled
from tqdm import tqdm

TIMEOUT = 10.0  # seconds without a byte
TRIES = 5
SLOW, PATIENCE = 1000, 60.0  # fewer bytes per second, on average over this many seconds, count as no progress
_BLOCK = 1 << 20


class ConnectError(OSError):
    """The server cannot be reached, or breaks off before the end."""


class Redirects(HTTPRedirectHandler):
    """Refuse redirects from https to anything else, because nothing proves who answers there."""

    def redirect_request(self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        if req.type == 'https' and not newurl.lower().startswith('https:'):
            raise ConnectError(f'{req.full_url} redirects to {newurl}, which is not https. The redirect is not followed')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Pace:
    """Check that bytes arrive fast enough, over all retries together."""

    def __init__(self) -> None:
        self.since, self.bytes = time.monotonic(), 0

    def add(self, number: int) -> None:
        """Raise ConnectError if the last PATIENCE seconds brought almost nothing."""
        self.bytes += number
        seconds = time.monotonic() - self.since
        if seconds > PATIENCE:
            if self.bytes < SLOW * seconds:
                raise ConnectError(f'only {self.bytes:,} bytes arrived in {seconds:.0f} seconds')
            self.since, self.bytes = time.monotonic(), 0


def download(url: str, output: Path, checked: bool = False, tries: int = TRIES) -> None:
    """Download `url` to `output`, whole or not at all. Resume where an earlier call was interrupted.

    Bytes that have arrived are kept in `<output without suffix>.part`. The server's name for this version of the file (its
    ETag or Last-Modified) is kept in `<output without suffix>.version`. A part is resumed only if the server still has that
    version.

    Args:
        url: an http or https address.
        output: the file to write.
        checked: the caller compares the result with a sha256. Then a part is resumed without a version, too.
        tries: give up after this many tries in a row without new bytes.

    Raises:
        OSError: the file does not arrive, or too slowly. ConnectError unless the server itself refused.
    """
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled(f'{url} is not requested.')
    part, version = output.with_suffix('.part'), output.with_suffix('.version')
    furthest = failures = 0
    pace = Pace()
    reason: Exception
    while True:
        try:
            _go_on(url, part, version, checked, pace)
            break
        except HTTPError as error:
            error.close()
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not _size(part):
                raise
            part.unlink()  # it was complete, or the file has changed on the server: start over
            failures, reason = failures + 1, error
        except ConnectError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            # A server that always breaks off at the same place, or starts over each time, makes no progress.
            size = _size(part)
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            reason = error
        if failures >= tries:
            raise ConnectError(f'{type(reason).__name__}: {reason}') from reason
        pace.add(0)
        time.sleep(1)
    part.rename(output)
    version.unlink(missing_ok=True)


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _go_on(url: str, part: Path, version: Path, checked: bool, pace: Pace) -> None:
    """Make one request. Raise what urllib and http.client raise, or OSError if fewer bytes arrived than announced."""
    known = version.read_text(encoding='latin-1') if version.is_file() else ''
    start = _size(part) if known or checked else 0
    headers = {'Range': f'bytes={start}-', **({'If-Range': known} if known else {})} if start else {}
    with build_opener(Redirects).open(Request(url, headers=headers), timeout=TIMEOUT) as answer:
        found = _version_of(answer)
        if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
            continues = (answer.headers['Content-Range'] or '').startswith(f'bytes {start}-')
            if not continues or (known and found not in ('', known)):
                part.unlink(missing_ok=True)
                raise OSError('the file has changed on the server')
        else:
            start = 0
            part.unlink(missing_ok=True)  # before the new version's name stands beside it, whatever ends this request
            version.write_text(found, encoding='latin-1') if found else version.unlink(missing_ok=True)
        total = _announced(answer, start)
        free = shutil.disk_usage(part.parent).free
        if total and total - start > free:
            raise ConnectError(f'the server announces {total:,} bytes, and {part.parent} has {free:,} bytes left')
        with (
            open(part, 'ab' if start else 'wb') as stream,
            tqdm(desc=part.stem[-40:], total=total, initial=start, unit='B', unit_scale=True, file=sys.stderr, delay=1) as bar,
        ):
            while block := answer.read1(_BLOCK):
                stream.write(block)
                pace.add(len(block))
                bar.update(len(block))
    if total is not None and _size(part) != total:
        raise OSError(f'{_size(part):,} of {total:,} bytes arrived')


def _version_of(answer: Any) -> str:
    """A name for exactly these bytes, for If-Range. '' if the server gives none."""
    tag = answer.headers['ETag'] or ''
    return tag if tag.startswith('"') else answer.headers['Last-Modified'] or ''


def _announced(answer: Any, start: int) -> int | None:
    if answer.status == http.HTTPStatus.PARTIAL_CONTENT:
        whole = answer.headers['Content-Range'].rpartition('/')[2]
        if whole.isascii() and whole.isdigit():
            return int(whole)  # a server may send less than was asked for
    length = answer.headers['Content-Length']
    if length is None:
        return None
    if not (length.isascii() and length.isdigit()):
        raise ConnectError(f'the server announces {length[:40]!r} bytes')
    return start + int(length)
