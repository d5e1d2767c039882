"""Plain HTTP: what goes on to the server is the one request that was checked."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.providers.qemu.allow.client_hello import HelloRefused
from vmrunner.providers.qemu.allow.http_request import LONGEST_HEAD, HttpRequest, refusal

HEAD = b"GET /debian/ HTTP/1.1\r\nHost: Deb.example.org\r\nAccept: */*\r\n"


def sent(*pieces: bytes) -> tuple[str | None, bytes]:
    """Return the host that was asked for, and what went on."""
    request, host, out = HttpRequest(80), None, b""
    for piece in pieces:
        request.feed(piece)
        if host is None:
            host = request.host()
        if host is not None:
            out += b"".join(request.sent())
    return host, out


def test_a_request_goes_on_with_one_connections_words() -> None:
    host, out = sent(HEAD[:20], HEAD[20:] + b"Upgrade: h2c\r\nConnection: keep-alive\r\n\r\n")
    assert host == "deb.example.org"
    assert out.startswith(b"GET /debian/ HTTP/1.1\r\nhost: Deb.example.org\r\n")
    assert b"upgrade" not in out.lower()
    assert out.endswith(b"connection: close\r\n\r\n")


def test_a_body_goes_on_whole_in_whatever_pieces() -> None:
    post = HEAD.replace(b"GET", b"POST")
    _, out = sent(post + b"Content-Length: 6\r\n\r\nab", b"cd", b"ef")
    assert out.endswith(b"\r\n\r\nabcdef")
    chunks = b"3\r\nabc\r\n", b"0\r\n\r\n"
    _, out = sent(post + b"Transfer-Encoding: chunked\r\n\r\n", *chunks)
    assert out.endswith(b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n")


def test_a_second_request_stays_here() -> None:
    second = b"GET /secret HTTP/1.1\r\nHost: evil.example.com\r\n\r\n"
    for rest in (HEAD + b"\r\n", HEAD + b"Content-Length: 0\r\n\r\n"):
        host, out = sent(rest + second)
        assert (host, b"evil" in out) == ("deb.example.org", False)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\3\1\0\4\1\0\0\0\r\n\r\n",
        b"SSH-2.0-OpenSSH_10.0\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"CONNECT deb.example.org:80 HTTP/1.1\r\nHost: deb.example.org\r\n\r\n",
        b"GET http://evil.example.com/ HTTP/1.1\r\nHost: deb.example.org\r\n\r\n",
        b"GET *http://evil.example.com/ HTTP/1.1\r\nHost: deb.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: deb.example.org\r\nHost: evil.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: deb.example.org, evil.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: deb.example.org:8080\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : deb.example.org\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: deb.example.org\r\n Host: evil.example.com\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 10.0.0.1\r\nX: \0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: deb.example.org\r\nContent-Length: 1\r\n"
        b"Content-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: deb.example.org\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: deb.example.org\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n26\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"
        b"\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * (LONGEST_HEAD + 1),
    ],
)
def test_what_another_program_may_read_otherwise_is_refused(data: bytes) -> None:
    with pytest.raises(HelloRefused):
        assert sent(data) == ("", b"")


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_arbitrary_bytes_name_nobody_or_are_refused(data: bytes, more: bytes) -> None:
    try:
        host, out = sent(data, more)
    except HelloRefused:
        return
    assert (host, out) == (None, b"")


def test_a_refusal_is_an_answer_that_programs_read() -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("host", "a.example.org")]))
    client.send(h11.EndOfMessage())
    client.receive_data(refusal(403, "evil.example.com:80 is not on the allow-list"))
    answer = client.next_event()
    assert isinstance(answer, h11.Response)
    assert answer.status_code == 403
