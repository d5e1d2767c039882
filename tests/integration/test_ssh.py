"""Our SSH layer against a real sshd on the loopback."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.sshd import Proxy, Sshd, free_port, running, wait_for
from vmrunner.model import Access, Address
from vmrunner.session.ssh import channel_io, client, keys, paramiko_patches


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    proxy = Proxy(sshd.address)
    yield proxy
    proxy.close()


@pytest.fixture
def connection(sshd: Sshd) -> Iterator[client.Connection]:
    connection = dial(sshd)
    yield connection
    connection.close()


def dial(sshd: Sshd, address: Address | None = None, access: Access | None = None, timeout=20.0):
    dialer = client.Dialer(access or sshd.access, user=sshd.user)
    return dialer.connect(address or sshd.address, timeout=timeout)


def test_a_command_gives_bytes_and_its_exit_code(connection: client.Connection) -> None:
    done = connection.run("printf '\\377\\0x'; echo complaint >&2; exit 7")
    assert done == client.Completed(7, b"\xff\0x", b"complaint\n")
    assert done.complaint == "complaint"
    assert connection.run("cat", stdin=[b"a", b"b" * 100_000]).stdout[:2] == b"ab"


def test_much_comes_out_whole_and_is_not_kept(connection: client.Connection) -> None:
    size = 60_000_000
    digest, count = hashlib.sha256(), 0

    def take(data: bytes) -> None:
        nonlocal count
        digest.update(data)
        count += len(data)

    begun = time.monotonic()
    done = connection.stream(f"head -c {size} /dev/zero", take)
    assert time.monotonic() - begun < 20
    assert (done.exit_code, count) == (0, size)
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    assert len(connection.run(f"head -c {size} /dev/zero").stdout) == client.CAPTURE


def test_commands_end_around_what_would_be_new_keys(connection: client.Connection) -> None:
    """More than paramiko's limit, in commands of such a length that one ends right at it."""
    for _ in range(17):
        assert connection.stream("head -c 33000000 /dev/zero", len).exit_code == 0


def test_much_goes_in_in_pieces(connection: client.Connection) -> None:
    piece = os.urandom(1 << 20)
    done = connection.run("sha256sum", stdin=(piece for _ in range(40)))
    assert done.stdout.split()[0].decode() == hashlib.sha256(piece * 40).hexdigest()


def test_a_reader_that_leaves_early_still_says_why(connection: client.Connection) -> None:
    done = connection.run("echo full >&2; exit 3", stdin=(bytes(1 << 20) for _ in range(100)))
    assert (done.exit_code, done.complaint) == (3, "full")


def test_a_process_left_behind_does_not_hold_the_command(connection: client.Connection) -> None:
    """What sshd itself waits for is its pipes: the child must not have them."""
    done = connection.run("sleep 30 >/dev/null 2>&1 </dev/null & echo $!", timeout=10)
    os.kill(int(done.stdout), 9)


def test_pulse_is_called_when_due_or_woken_and_runs_commands(
    connection: client.Connection,
) -> None:
    beats: list[float] = []

    class Enough(Exception):
        pass

    def pulse() -> float:
        beats.append(time.monotonic())
        if len(beats) == 2:
            assert connection.run("echo inner").stdout == b"inner\n"
            threading.Timer(0.1, connection.wake).start()
            return 30.0
        if len(beats) == 3:
            raise Enough
        return 0.2

    with pytest.raises(Enough):
        connection.stream("sleep 60", print, pulse=pulse)
    assert 0.2 <= beats[1] - beats[0] < 20
    assert 0.1 <= beats[2] - beats[1] < 20


def test_a_packet_that_would_fill_the_memory_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def announce() -> None:
            with server.accept()[0] as peer:
                peer.sendall(b"SSH-2.0-hostile\r\n" + (0x7FFFFFFC).to_bytes(4, "big") + bytes(64))
                while peer.recv(4096):
                    """Until it hangs up."""

        threading.Thread(target=announce, daemon=True).start()
        made = keys.generate()
        dialer = client.Dialer(Access(user_private=made.private, host_public=made.public))
        with pytest.raises(client.Unreachable, match="announced a packet of 21474"):
            dialer.connect(Address(*server.getsockname()[:2]), timeout=0.05)


@pytest.fixture
def offended(tmp_path: Path) -> Iterator[Sshd]:
    """An sshd of its own: OpenSSH makes everybody wait after a failed login."""
    with running(tmp_path) as server:
        yield server


def test_a_wrong_host_key_is_refused(offended: Sshd) -> None:
    wrong = Access(user_private=offended.access.user_private, host_public=keys.generate().public)
    with pytest.raises(client.Unreachable, match="not the one that was planted"):
        dial(offended, access=wrong, timeout=0.5)


def test_a_wrong_user_key_is_refused(offended: Sshd) -> None:
    wrong = Access(user_private=keys.generate().private, host_public=offended.access.host_public)
    with pytest.raises(client.Unreachable, match="key was refused"):
        dial(offended, access=wrong, timeout=0.5)


def test_it_connects_as_soon_as_sshd_is_there(sshd: Sshd) -> None:
    """Before: nobody listens, then somebody who hangs up, as a forwarded port of a booting VM."""
    address = Address("127.0.0.1", free_port())
    found: list[client.Connection] = []
    dialer = client.Dialer(sshd.access, user=sshd.user)
    thread = threading.Thread(target=lambda: found.append(dialer.connect(address, timeout=60)))
    thread.start()
    with socket.create_server(address) as mute:
        for _ in range(2):
            mute.accept()[0].close()
    proxy = Proxy(sshd.address, port=address.port)
    begun = time.monotonic()
    thread.join(20)
    assert time.monotonic() - begun < 10
    found[0].close()
    proxy.close()


def test_abort_ends_a_handshake_at_once(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        dialer = client.Dialer(sshd.access)
        threading.Timer(0.3, dialer.abort).start()
        begun = time.monotonic()
        with pytest.raises(client.Aborted):
            dialer.connect(Address(*mute.getsockname()[:2]), timeout=600)
        assert time.monotonic() - begun < 10


def test_a_host_without_threads_dials_until_it_has_some(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection needs a thread: without one it is not there yet, and the build not lost."""
    start, refused = threading.Thread.start, list[str]()

    def scarce(thread: threading.Thread) -> None:
        if len(refused) < 2:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    dial(sshd).close()
    assert len(refused) == 2


def test_nobody_there_is_unreachable(sshd: Sshd) -> None:
    with pytest.raises(client.Unreachable, match="Connection refused"):
        dial(sshd, Address("127.0.0.1", free_port()), timeout=0.3)


def test_a_black_hole_is_noticed_in_15_seconds(sshd: Sshd, proxy: Proxy) -> None:
    connection = dial(sshd, proxy.address)
    lines, begun = 0, 0.0

    def take(data: bytes) -> None:
        nonlocal lines, begun
        lines += data.count(b"\n")
        if lines == 3:
            begun = time.monotonic()
            proxy.stalled.set()

    with pytest.raises(client.ConnectionLost, match="no answer"):
        connection.stream("for i in 1 2 3; do echo $i; done; sleep 100", take)
    assert 10 < time.monotonic() - begun < 15
    connection.close()


def test_a_frozen_sshd_is_noticed_when_a_command_begins(sshd: Sshd, proxy: Proxy) -> None:
    """Its TCP answers, as that of a frozen VM behind a proxy on the host."""
    connection = dial(sshd, proxy.address)
    with sshd.frozen():
        assert_lost(connection)
    connection.close()


def test_a_sshd_frozen_before_a_command_starts_is_noticed(
    sshd: Sshd, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = dial(sshd, proxy.address)
    with ExitStack() as ice:

        def opened(self: Any, *args: Any, **kwargs: Any) -> Any:
            channel = open_session(self, *args, **kwargs)
            ice.enter_context(sshd.frozen())
            return channel

        open_session = paramiko_patches.Transport.open_session
        monkeypatch.setattr(paramiko_patches.Transport, "open_session", opened)
        assert_lost(connection)
    connection.close()


def assert_lost(connection: client.Connection) -> None:
    """A command ends as lost, in a while; it would have hung for an hour, or for ever."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            connection.run("true", timeout=5)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    ended = not thread.is_alive()
    connection.close()
    assert ended, "the command hangs"
    assert isinstance(errors[0], client.ConnectionLost), errors


def test_a_quiet_command_on_a_living_connection_is_left_alone(sshd: Sshd, proxy: Proxy) -> None:
    connection = dial(sshd, proxy.address)
    assert connection.run("sleep 15; echo done", timeout=30).stdout == b"done\n"
    connection.close()


def test_a_reset_is_noticed_at_once(sshd: Sshd, proxy: Proxy) -> None:
    connection = dial(sshd, proxy.address)
    begun = 0.0

    def cut(_: bytes) -> None:
        nonlocal begun
        begun = time.monotonic()
        proxy.cut()

    with pytest.raises(client.ConnectionLost):
        connection.stream("echo begun; sleep 600", cut)
    assert time.monotonic() - begun < channel_io.DEAD_AFTER
    with pytest.raises(client.ConnectionLost):
        connection.run("true")
    connection.close()


def test_no_thread_or_socket_remains(sshd: Sshd) -> None:
    def held() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    before = held()  # some may be another test's, and about to end
    for _ in range(3):
        connection = dial(sshd)
        connection.run("true")
        connection.close()
    wait_for(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))


def test_a_complaint_moves_no_cursor() -> None:
    done = client.Completed(1, b"", b"first\n\x1b]0;title\x07\x9b2Jlast\n")
    assert done.complaint == " ]0;title \ufffd2Jlast"
