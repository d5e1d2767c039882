"""What every channel must do: one suite for TCP, the Unix socket, and the WebSockets by which a pod
and a VM of KubeVirt are reached."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.exec_server import MICROVM, channel_to, stream_server
from tests.support.session_world import sshd as sshd  # the fixture
from tests.support.sshd import Sshd, free_port, wait_for
from vmrunner.cli.commands import ssh as system_ssh
from vmrunner.lib import unix_sockets
from vmrunner.lib.channels import TCP, UNIX_SOCKET, Channel
from vmrunner.lib.websocket_channel import EXEC, KUBEVIRT
from vmrunner.model import Address
from vmrunner.session.ssh import client
from vmrunner.session.ssh.banner_probe import BannerProbe, Unreachable

pytestmark = pytest.mark.timeout(120)
MiB = 1 << 20
WAIT = 30.0  # seconds, for what must come


@dataclass
class Way:
    """A channel, and what can be had at its addresses."""

    channel: Channel
    address: Address
    listener: socket.socket  # who connects to `address` is its next
    nobody: Address
    why: str  # there is none there
    mute: Address  # somebody takes what comes and says nothing
    die: Callable[[], None]  # what carries it dies
    is_local: bool

    def connected(self) -> tuple[socket.socket, socket.socket]:
        """A stream, and its other side."""
        stream = self.channel.open(self.address)
        peer, _ = self.listener.accept()
        peer.settimeout(WAIT)
        peer.sendall(b"SSH-")
        stream.settimeout(WAIT)
        assert received(stream, 4) == b"SSH-"
        return stream, peer


def received(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or all until the end."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(size - len(data))):
        data += piece
    return bytes(data)


def over_tcp(stack: ExitStack, _: Path) -> Way:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    return Way(
        TCP,
        Address(*listener.getsockname()),
        listener,
        nobody=Address("127.0.0.1", free_port()),
        why="refused",
        mute=Address(*mute.getsockname()),
        die=lambda: None,
        is_local=True,
    )


def over_unix_socket(stack: ExitStack, directory: Path) -> Way:
    deep = directory / ("d" * 120)
    deep.mkdir()
    listener = stack.enter_context(unix_sockets.listen(deep / "ssh"))
    stack.enter_context(unix_sockets.listen(deep / "mute"))
    return Way(
        UNIX_SOCKET,
        Address(str(deep / "ssh")),
        listener,
        nobody=Address(str(deep / "nobody")),
        why="No such file",
        mute=Address(str(deep / "mute")),
        die=lambda: None,
        is_local=True,
    )


def over_websocket(*speaks: str) -> Callable[[ExitStack, Path], Way]:
    return lambda stack, _: websocket_way(stack, speaks)


def websocket_way(stack: ExitStack, speaks: tuple[str, ...]) -> Way:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    mute = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    server = stack.enter_context(stream_server(speaks))
    pod = Address("builds/vm-1", 22)
    server.pods[pod] = Address(*listener.getsockname())
    server.pods[Address("builds/mute")] = Address(*mute.getsockname())
    return Way(
        channel_to(server, EXEC if speaks[0] in EXEC else speaks),
        pod,
        listener,
        nobody=Address("builds/vm-2"),
        why="404 Not Found",
        mute=Address("builds/mute"),
        die=server.die,
        is_local=False,
    )


WAYS = {
    "tcp": over_tcp,
    "unix": over_unix_socket,
    "exec": over_websocket(EXEC[0]),
    "exec-v4": over_websocket(EXEC[1]),
    "kubevirt": over_websocket(*KUBEVIRT),
    "microvm": over_websocket(MICROVM),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Way]:
    with ExitStack() as stack:
        made = WAYS[request.param](stack, tmp_path)
        made.listener.settimeout(WAIT)
        yield made
    wait_for(lambda: not carriers(), WAIT)


def carriers() -> list[threading.Thread]:
    """Threads that carry bytes still."""
    return [
        thread for thread in threading.enumerate() if thread.name.startswith("vmrunner-websocket")
    ]


# --- the stream -----------------------------------------------------------------------------------


def test_much_comes_whole_both_ways_at_once(way: Way) -> None:
    stream, peer = way.connected()
    down, up = os.urandom(MiB), os.urandom(MiB)
    came: list[bytes] = []
    work: list[Callable[[], object]] = [
        lambda: peer.sendall(down),
        lambda: came.append(received(peer, MiB)),
        lambda: stream.sendall(up),
    ]
    threads = [threading.Thread(target=target) for target in work]
    with stream, peer:
        for thread in threads:
            thread.start()
        assert received(stream, MiB) == down
        for thread in threads:
            thread.join(WAIT)
        assert came == [up]


def test_one_way_ends_and_the_other_goes_on(way: Way) -> None:
    stream, peer = way.connected()
    with stream, peer:
        stream.sendall(b"all")
        stream.shutdown(socket.SHUT_WR)
        assert received(peer, 100) == b"all", "and then the end"
        if way.channel.half_closes:
            peer.sendall(b"answer")
            peer.shutdown(socket.SHUT_WR)
            assert received(stream, 100) == b"answer"
        assert ended(stream)


def test_it_begins_without_waiting_and_can_be_polled(way: Way) -> None:
    """Many are polled by one thread, and kept by their descriptor alone."""
    with way.channel.open(way.address) as stream:
        assert not stream.getblocking()
        assert stream.type & socket.SOCK_STREAM
        with pytest.raises(BlockingIOError):
            stream.recv(1)
        peer, _ = way.listener.accept()
        with peer, socket.socket(fileno=os.dup(stream.fileno())) as kept:
            kept.settimeout(WAIT)
            peer.sendall(b"hello")
            assert received(kept, 5) == b"hello"


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_the_peers_death_is_an_end_and_no_hang(way: Way, how: str) -> None:
    stream, peer = way.connected()
    if how == "resets" and peer.family == socket.AF_INET:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with stream:
        assert ended(stream)


def test_the_death_of_what_carries_it_is_an_end(way: Way) -> None:
    stream, peer = way.connected()
    way.die()
    with stream:
        peer.close()
        assert ended(stream)


def ended(stream: socket.socket) -> bool:
    """True once it is; a time-out fails."""
    try:
        return not stream.recv(1)
    except TimeoutError:
        raise
    except OSError:
        return True


def test_a_timeout_is_obeyed_and_breaks_nothing(way: Way) -> None:
    stream, peer = way.connected()
    with stream, peer:
        stream.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stream.recv(1)
        stream.settimeout(WAIT)
        peer.sendall(b"late")
        assert received(stream, 4) == b"late"


def test_closed_twice_it_leaves_no_socket(way: Way) -> None:
    before = sockets()
    stream, peer = way.connected()
    stream.close()
    stream.close()
    assert stream.fileno() == -1
    with peer:
        assert ended(peer), "the other side hears of it"
    wait_for(lambda: sockets() <= before, WAIT)


def test_hung_up_it_wakes_who_reads_it(way: Way) -> None:
    stream, peer = way.connected()
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append(stream.recv(1)))
    with stream, peer:
        reader.start()
        stream.shutdown(socket.SHUT_RDWR)
        reader.join(WAIT)
        assert heard == [b""]
        assert ended(peer)


def sockets() -> int:
    """How many this process has open."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found += str(descriptor.readlink()).startswith("socket:")
    return found


# --- and SSH over it ------------------------------------------------------------------------------


def dialer(way: Way, sshd: Sshd) -> client.Dialer:
    return client.Dialer(sshd.access, channel=way.channel, user=sshd.user)


def test_nobody_there_is_unreachable_and_told_once(way: Way, sshd: Sshd) -> None:
    text = ""
    for seconds in (0.5, 5, 30):  # where threads carry it they may need a while
        with pytest.raises(Unreachable) as error:
            dialer(way, sshd).connect(way.nobody, timeout=seconds)
        text = str(error.value)
        if way.why in text:
            break
    assert text.startswith(f"no SSH to {way.nobody}: ")
    assert way.why in text
    assert text.count("no SSH") == 1


def test_who_says_nothing_is_not_waited_for_longer(way: Way, sshd: Sshd) -> None:
    before = sockets()
    with pytest.raises(Unreachable, match="the port answers, SSH does not"):
        dialer(way, sshd).connect(way.mute, timeout=0.5)
    wait_for(lambda: sockets() <= before, WAIT)


def test_the_wait_for_sshd_can_be_broken_off(way: Way, sshd: Sshd) -> None:
    waits = dialer(way, sshd)
    raised: list[BaseException] = []

    def connect() -> None:
        try:
            waits.connect(way.mute, timeout=WAIT)
        except client.Aborted as error:
            raised.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    wait_for(lambda: waits._probe)
    waits.abort()
    thread.join(WAIT)
    assert len(raised) == 1


def test_ssh_runs_over_it(way: Way, sshd: Sshd, relayed: None) -> None:
    connection = dialer(way, sshd).connect(way.address, timeout=WAIT)
    up = os.urandom(MiB)
    assert connection.run("cat", stdin=[up], timeout=WAIT).stdout == up[: 64 * 1024]
    assert connection.run("wc -c", stdin=[up], timeout=WAIT).stdout.split() == [b"%d" % MiB]
    assert connection.run("echo $0; exit 7", timeout=WAIT).exit_code == 7
    connection.close()


def test_the_systems_ssh_takes_it_too(
    way: Way,
    sshd: Sshd,
    relayed: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(system_ssh, "_USER", sshd.user)
    stream = system_ssh._stream(way.channel, way.address)
    assert system_ssh._ssh(sshd.access, stream, ["sh", "-c", "echo $0; exit 7", "it's"]) == 7
    assert capfd.readouterr().out == "it's\n"
    assert stream.fileno() == -1


@pytest.fixture
def relayed(way: Way, sshd: Sshd) -> Iterator[None]:
    """Behind the address is an sshd."""
    ends: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                near, _ = way.listener.accept()
            except OSError:
                return
            near.settimeout(None)
            far = socket.create_connection(sshd.address)
            ends.extend((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    thread = threading.Thread(target=serve)
    way.listener.settimeout(None)
    thread.start()
    yield
    way.listener.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT)
    for end in ends:
        end.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_it_knows_whether_bytes_leave_this_host(way: Way) -> None:
    assert way.channel.is_local(way.address) == way.is_local


def test_tcp_to_elsewhere_is_not_local() -> None:
    assert [TCP.is_local(Address(host)) for host in ("10.0.0.1", "a.host", "::1")] == [
        False,
        False,
        True,
    ]


def test_the_probe_leaves_what_sshd_said_to_be_read(way: Way) -> None:
    probe = BannerProbe(way.address, way.channel)

    def greet() -> None:
        peer, _ = way.listener.accept()
        peer.sendall(b"SSH-2.0-x\r\n")
        peer.close()

    thread = threading.Thread(target=greet)
    thread.start()
    with probe.first_word(until=time.monotonic() + WAIT) as stream:
        assert stream.getblocking()
        assert received(stream, 100) == b"SSH-2.0-x\r\n"
    thread.join(WAIT)
