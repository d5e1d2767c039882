"""What a stream over a WebSocket says of its end, and what it does about a server that is odd."""

from __future__ import annotations

import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.exec_server import StreamServer, channel_to, failure, stream_server
from tests.support.sshd import wait_for
from vmrunner.errors import CredentialsRefused
from vmrunner.lib import websocket_channel
from vmrunner.lib.websocket_channel import EXEC, KUBEVIRT, WebSocketChannel, WebSocketTarget
from vmrunner.model import Address
from vmrunner.session.ssh.paramiko_patches import PatchedSocket

pytestmark = pytest.mark.timeout(60)
POD = Address("builds/vm-1", 22)
WAIT = 30.0


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    yield
    wait_for(lambda: "websocket" not in str([t.name for t in threading.enumerate()]), WAIT)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Who connects there is a program that was begun in the pod."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(WAIT)
        yield sock


@contextmanager
def exec_server(listener: socket.socket, *speaks: str) -> Iterator[StreamServer]:
    with stream_server(speaks or EXEC[:1]) as server:
        server.pods[POD] = Address(*listener.getsockname())
        yield server


def why(stream: socket.socket) -> str:
    """The words with which it ended."""
    stream.settimeout(WAIT)
    with stream:
        try:
            while stream.recv(1 << 16):
                pass
        except ConnectionError as error:
            return str(error)
    return ""


def ends(server: StreamServer, listener: socket.socket, data: bytes = b"") -> str:
    stream = channel_to(server).open(POD)
    with listener.accept()[0] as program:
        program.sendall(data)
    return why(stream)


@pytest.mark.parametrize("spoken", EXEC)
def test_a_status_and_the_last_of_stderr_are_told(spoken: str, listener: socket.socket) -> None:
    with exec_server(listener, spoken) as server:
        server.stderr = b"x" * 5000 + b"\x1b[2J no host\nkeys"
        server.status = failure(500, "command terminated with exit code 7")
        text = ends(server, listener)
    assert text.startswith("command terminated with exit code 7: xxx")
    assert text.endswith("x?[2J no host keys"), "nothing moves a cursor"
    assert len(text) < 1100


def test_the_words_outlive_the_hand_over_to_paramiko(listener: socket.socket) -> None:
    with exec_server(listener) as server:
        server.status = failure(500, "the container is gone")
        wire = PatchedSocket.over(channel_to(server).open(POD))
        with listener.accept()[0] as program:
            program.sendall(b"all of it")
        wire.settimeout(WAIT)
        assert wire.recv(100) == b"all of it"
        assert why(wire) == "the container is gone"


def test_an_end_without_a_status_is_no_end(listener: socket.socket) -> None:
    with exec_server(listener) as server:
        server.status = None
        assert ends(server, listener) == "the stream ended without a status"


def test_all_output_comes_before_the_status(listener: socket.socket) -> None:
    """However slowly it is taken: a reader that is slower than the program loses nothing."""
    data = os.urandom(3 << 20)
    with exec_server(listener) as server:
        stream = channel_to(server).open(POD)
        with listener.accept()[0] as program:
            threading.Thread(target=program.sendall, args=(data,)).start()
            stream.settimeout(WAIT)
            came = b""
            with stream:
                while len(came) < len(data):
                    came += stream.recv(4096)
    assert came == data


def test_the_program_hears_that_its_input_ended(listener: socket.socket) -> None:
    """By the byte that says so, before the connection goes."""
    with exec_server(listener) as server:
        stream = channel_to(server).open(POD)
        with listener.accept()[0] as program:
            program.settimeout(WAIT)
            stream.settimeout(WAIT)
            stream.sendall(b"last words")
            stream.close()
            assert program.recv(100) == b"last words"
            assert program.recv(100) == b""


def test_an_http_refusal_is_told_in_its_words(listener: socket.socket) -> None:
    with exec_server(listener) as server:
        nobody = channel_to(server).open(Address("builds/vm-2", 22))
        assert why(nobody) == '404 Not Found: pods "vm-2" not found'
        to = WebSocketTarget(url=server.url, subprotocols=EXEC)
        assert why(WebSocketChannel(lambda _: to).open(POD)) == "401 Unauthorized: Unauthorized"


def test_exec_is_not_spoken_to_who_speaks_another_way(listener: socket.socket) -> None:
    with exec_server(listener, *KUBEVIRT) as server:
        assert why(channel_to(server, EXEC).open(POD)) == "403 Forbidden"
        both = channel_to(server, (*EXEC, *KUBEVIRT)).open(POD)
        assert why(both) == "the server speaks no exec protocol that is known here"
        listener.accept()[0].close()


def test_credentials_follow_no_redirect() -> None:
    class Elsewhere(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(307)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/stolen")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    seen: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        to = WebSocketTarget(url=f"ws://127.0.0.1:{server.server_port}/", subprotocols=EXEC)
        words = why(WebSocketChannel(lambda _: to).open(POD))
        server.shutdown()
        thread.join()
    assert words == "307 Temporary Redirect"
    assert seen == ["/"]


def test_what_the_target_raises_is_the_streams_error() -> None:
    def target(_: Address) -> WebSocketTarget:
        raise CredentialsRefused("tokens: no right to make one")

    assert why(WebSocketChannel(target).open(POD)) == "tokens: no right to make one"


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_channel, "PING_EVERY", 0.05)
    monkeypatch.setattr(websocket_channel, "DEAD_AFTER", 0.3)


def test_a_server_that_answers_no_ping_is_dead(
    quick_pings: None, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("websockets.protocol.Protocol.send_frame", mute_pongs())
    with exec_server(listener) as server:
        stream = channel_to(server).open(POD)
        with listener.accept()[0]:
            assert why(stream).startswith("no answer to a ping for ")


def mute_pongs() -> Callable[..., None]:
    from websockets.frames import Opcode
    from websockets.protocol import Protocol

    plain = Protocol.send_frame

    def send_frame(self: Protocol, frame: object) -> None:
        if getattr(frame, "opcode", None) is not Opcode.PONG:
            plain(self, frame)  # type: ignore[arg-type]

    return send_frame


def test_a_reader_that_takes_its_time_is_no_dead_server(
    quick_pings: None, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not taken stands in the way of the answers too."""
    pings = threading.Semaphore(0)
    monkeypatch.setattr("websockets.protocol.Protocol.send_frame", counted_pings(pings))
    data = os.urandom(8 << 20)
    with exec_server(listener) as server:
        stream = channel_to(server).open(POD)
        with listener.accept()[0] as program:
            threading.Thread(target=program.sendall, args=(data,)).start()
            for _ in range(5):  # so many were asked in vain
                assert pings.acquire(timeout=WAIT)
            stream.settimeout(WAIT)
            came = bytearray()
            with stream:
                while len(came) < len(data):
                    came += stream.recv(1 << 20)
    assert came == data


def counted_pings(pings: threading.Semaphore) -> Callable[..., None]:
    from websockets.frames import Opcode
    from websockets.protocol import Protocol

    plain = Protocol.send_frame

    def send_frame(self: Protocol, frame: object) -> None:
        if getattr(frame, "opcode", None) is Opcode.PING:
            pings.release()
        plain(self, frame)  # type: ignore[arg-type]

    return send_frame


def test_who_hangs_up_while_it_opens_waits_for_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        to = WebSocketTarget(url=f"ws://127.0.0.1:{mute.getsockname()[1]}/", subprotocols=EXEC)
        stream = WebSocketChannel(lambda _: to).open(POD)
        with mute.accept()[0] as peer:
            peer.settimeout(WAIT)
            assert peer.recv(1 << 16).startswith(b"GET /")
            stream.close()
            assert peer.recv(1 << 16) == b"", "long before the time to open is over"


def test_many_streams_have_one_thread(listener: socket.socket) -> None:
    listener.listen(100)
    with exec_server(listener) as server:
        channel = channel_to(server)
        streams = [channel.open(POD) for _ in range(40)]
        programs = [listener.accept()[0] for _ in streams]
        for number, program in enumerate(programs):
            program.sendall(b"SSH-%d" % number)
        came = set()
        for stream in streams:
            stream.settimeout(WAIT)
            came.add(stream.recv(100))
        assert came == {b"SSH-%d" % number for number in range(40)}
        names = [thread.name for thread in threading.enumerate()]
        assert sum(name == "vmrunner-websockets" for name in names) == 1
        for sock in (*streams, *programs):
            sock.close()


def test_a_host_without_threads_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    to = WebSocketTarget(url="ws://127.0.0.1:1/", subprotocols=EXEC)
    with pytest.raises(OSError, match="no thread for a WebSocket"):
        WebSocketChannel(lambda _: to).open(POD)


def test_credentials_are_in_no_repr() -> None:
    target = WebSocketTarget(url="wss://x", subprotocols=EXEC, headers={"Authorization": "s3cret"})
    assert "s3cret" not in repr(target)
