"""Downloads that several roots share: a proxy for apt that fetches each URL once.

Roots are made side by side, and package lists and most packages of one are another's too. The proxy
passes on what comes while it comes, and keeps it until the roots are made. It trusts nobody: apt
checks the signatures. A proxy in apt's own configuration is stronger than the variable that names
this one, and then nothing is shared; ours asks the proxy of `http_proxy`, if any.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, cast

_PIECE: Final = 1 << 20
_PATIENCE: Final = 60.0  # seconds without a byte from whom we fetch
_HEADERS: Final = ("Content-Type", "Last-Modified")


class _Download:
    """One URL, as far as it was fetched."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed = threading.Condition()
        self._size, self._over = 0, False
        self.status = 0  # of the answer; 0: there is none yet
        self.length: int | None = None
        self.headers: dict[str, str] = {}

    def fetch(self, url: str) -> None:
        """Fetch it to its end, or to what goes wrong: then it is shorter than it said."""
        try:
            answer = _opened(url)
            with answer, self._path.open("wb") as file:
                self._note(answer)
                while piece := answer.read1(_PIECE):
                    file.write(piece)
                    file.flush()
                    with self._changed:
                        self._size += len(piece)
                        self._changed.notify_all()
        except (OSError, HTTPException, ValueError):
            pass  # who asked sees it: an answer that is cut off, or a bad gateway
        finally:
            with self._changed:
                self.status, self._over = self.status or 502, True
                self._changed.notify_all()

    def _note(self, answer: Any) -> None:
        length = answer.headers.get("Content-Length", "")
        with self._changed:
            self.length = int(length) if length.isdecimal() else None
            self.headers = {name: value for name in _HEADERS if (value := answer.headers.get(name))}
            self.status = answer.status
            self._changed.notify_all()

    @property
    def failed(self) -> bool:
        """True if another try may bring more."""
        with self._changed:
            short = self.length is not None and self._size < self.length
            return self._over and (self.status >= 500 or short)

    def answer(self) -> int:
        """Wait for the answer and return its status."""
        with self._changed:
            self._changed.wait_for(lambda: self.status)
        return self.status

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes as they come."""
        with self._changed:
            self._changed.wait_for(lambda: self._size or self._over)
        if not self._size:
            return
        at = 0
        with self._path.open("rb") as file:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._size > at or self._over)  # noqa: B023
                piece = file.read(_PIECE)
                if not piece:
                    return
                at += len(piece)
                yield piece


def _opened(url: str) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "vmrunner"})  # noqa: S310 - http
    try:
        return urllib.request.urlopen(request, timeout=_PATIENCE)  # noqa: S310
    except urllib.error.HTTPError as error:
        return error


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = secrets.token_urlsafe(24)
        self._place = place
        self._lock = threading.Lock()
        self._downloads: dict[str, _Download] = {}
        self._begun = 0

    def download(self, url: str) -> _Download:
        """The download of this URL, which the first who asks for it begins, and whoever comes after
        one that failed."""
        with self._lock:
            found = self._downloads.get(url)
            if found is None or found.failed:
                self._begun += 1
                found = self._downloads[url] = _Download(self._place / str(self._begun))
                threading.Thread(target=found.fetch, args=(url,), daemon=True).start()
            return found

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: who asked has gone."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = cast("_Server", self.server)
        expected = "Basic " + base64.b64encode(f"vmrunner:{server.token}".encode()).decode()
        if not hmac.compare_digest(self.headers.get("Proxy-Authorization", ""), expected):
            self.send_error(407)
            return
        if not self.path.startswith("http://"):
            self.send_error(400)
            return
        download = server.download(self.path)
        self.send_response(download.answer())
        for name, value in download.headers.items():
            self.send_header(name, value)
        if download.length is not None:
            self.send_header("Content-Length", str(download.length))
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in download.pieces():
            self.wfile.write(piece)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called
        """Nothing: what goes wrong is told by who asked."""


@contextmanager
def shared(place: Path) -> Iterator[dict[str, str]]:
    """Share downloads while inside, kept in `place`, an empty directory of its own. Gives variables
    for the programs that fetch."""
    server = _Server(place)
    thread = threading.Thread(target=server.serve_forever, name="downloads", daemon=True)
    thread.start()
    try:
        yield {"http_proxy": f"http://vmrunner:{server.token}@127.0.0.1:{server.server_port}"}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
