"""An answer that comes a byte at a time: each is in time, all of them are not."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import httpx2
import pytest

from vmrunner.lib.whole_answers import bound, within

#: Its end between two reads, or within one.
LATE = (TimeoutError, httpx2.ReadTimeout)
DROPS = 150
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@contextlib.contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that sends this at once, and then a drop each moment, for far too long."""
    end = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(first)
            for _ in range(DROPS):
                if end.wait(0.02):
                    break
                connection.sendall(drop)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            end.set()
            thread.join()


@pytest.mark.parametrize(
    ("first", "drop"),
    [(b"HTTP/1.1 200 OK\r\nX: ", b"x"), (HEAD, b"x"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["head", "body", "continues"],
)
@pytest.mark.timeout(30)
def test_an_answer_has_an_end_as_a_whole(first: bytes, drop: bytes) -> None:
    client = bound(httpx2.Client(timeout=20.0, trust_env=False))
    with (
        dripping(first, drop) as url,
        client,
        within(0.3),
        pytest.raises(LATE),
    ):
        client.get(url)


@pytest.mark.timeout(30)
def test_a_proxys_answer_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping(HEAD, b"x") as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.delenv("no_proxy", raising=False)
        client = bound(httpx2.Client(timeout=20.0))
        with client, within(0.3), pytest.raises(LATE):
            client.get("http://kube.example/")


def test_what_is_read_beside_has_no_such_end() -> None:
    with within(0.0):
        pass
    client = bound(httpx2.Client(trust_env=False))
    with dripping(HEAD.replace(b"100000", b"3"), b"x") as url, client:
        assert client.get(url).content == b"xxx"
