"""Roots that are made side by side fetch what they share once."""

from __future__ import annotations

import base64
import http.client
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vmrunner.images.local import shared_downloads

BODY = bytes(range(256)) * 8192  # 2 MiB


class Mirror(ThreadingHTTPServer):
    """Counts what it is asked for. /large waits in the middle until it may go on."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        self.may_go_on = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        mirror: Any = self.server
        mirror.requests.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("Last-Modified", "Tue, 01 Dec 2026 12:00:00 GMT")
        self.end_headers()
        self.wfile.write(BODY[:1000])
        self.wfile.flush()
        if self.path == "/large":
            mirror.may_go_on.wait(30)
        if self.path != "/cut" or mirror.requests.count("/cut") > 1:
            self.wfile.write(BODY[1000:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.may_go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("http_proxy", raising=False)
    with shared_downloads.shared(tmp_path) as variables:
        yield variables["http_proxy"]


def opened(proxy: str, url: str) -> Any:
    handler = urllib.request.ProxyHandler({"http": proxy})
    return urllib.request.build_opener(handler).open(url, timeout=30)


def fetched(proxy: str, url: str) -> bytes:
    try:
        with opened(proxy, url) as answer:
            body: bytes = answer.read()
            return body
    except urllib.error.HTTPError as error:
        error.close()  # it keeps its socket open, and frames keep it
        raise


def test_what_two_ask_for_is_fetched_once(proxy: str, mirror: Mirror) -> None:
    with ThreadPoolExecutor(4) as pool:
        bodies = list(pool.map(lambda _: fetched(proxy, mirror.url("/list")), range(4)))
    assert bodies == [BODY] * 4
    assert fetched(proxy, mirror.url("/list")) == BODY
    assert fetched(proxy, mirror.url("/other")) == BODY
    assert sorted(mirror.requests) == ["/list", "/other"]


def test_who_comes_second_gets_what_came_already(proxy: str, mirror: Mirror) -> None:
    """apt gives up on whoever sends nothing for half a minute."""
    with (
        opened(proxy, mirror.url("/large")) as first,
        opened(proxy, mirror.url("/large")) as second,
    ):
        assert second.headers["Last-Modified"] == "Tue, 01 Dec 2026 12:00:00 GMT"
        assert (first.read(1000), second.read(1000)) == (BODY[:1000], BODY[:1000])
        mirror.may_go_on.set()
        assert (first.read(), second.read()) == (BODY[1000:], BODY[1000:])
    assert mirror.requests == ["/large"]


def test_a_mirrors_no_is_passed_on(proxy: str, mirror: Mirror) -> None:
    for _ in range(2):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetched(proxy, mirror.url("/missing"))
    with pytest.raises(urllib.error.HTTPError, match="502"):
        fetched(proxy, "http://127.0.0.1:1/list")


def test_what_was_cut_off_is_fetched_again(proxy: str, mirror: Mirror) -> None:
    with pytest.raises(http.client.IncompleteRead):
        fetched(proxy, mirror.url("/cut"))
    assert fetched(proxy, mirror.url("/cut")) == BODY
    assert fetched(proxy, mirror.url("/cut")) == BODY
    assert mirror.requests == ["/cut", "/cut"]


def test_others_on_this_host_have_no_use_of_it(proxy: str, mirror: Mirror) -> None:
    alien = "http://" + proxy.rpartition("@")[2]
    for wrong in (alien, proxy.replace("vmrunner:", "vmrunner:x")):
        with pytest.raises(urllib.error.HTTPError, match="407"):
            fetched(wrong, mirror.url("/list"))
    assert mirror.requests == []


def test_it_opens_no_file(proxy: str) -> None:
    host, port = proxy.rpartition("@")[2].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    token = proxy.removeprefix("http://").partition("@")[0]
    login = base64.b64encode(token.encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {login}"}
    connection.request("GET", "file:///etc/passwd", headers=headers)
    assert connection.getresponse().status == 400
    connection.close()
