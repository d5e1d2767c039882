"""Who answers for a machine that boots: takes connections and loses them, hangs up, or refuses."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.sshd import free_port, wait_for
from vmrunner.model import Address
from vmrunner.session.ssh import banner_probe
from vmrunner.session.ssh.banner_probe import BannerProbe

WORD = b"SSH-2.0-OpenSSH\r\n"


class Porter:
    """Takes every connection. Speaks on those from the `speaks`th on, and on none before; `after`
    so many seconds."""

    def __init__(self, listener: socket.socket, *, speaks: int, after: float = 0.0) -> None:
        self.address = Address(*listener.getsockname()[:2])
        self.taken: list[socket.socket] = []
        self.most = 0  # open at once
        self._listener, self._speaks, self._after = listener, speaks, after
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.taken.append(connection)
            self.most = max(self.most, sum(not closed(connection) for connection in self.taken))
            if len(self.taken) >= self._speaks:
                threading.Timer(self._after, self._speak, [connection]).start()

    def _speak(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it was hung up on
            connection.sendall(WORD)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(30)
        for connection in self.taken:
            connection.close()


def closed(connection: socket.socket) -> bool:
    """Whether the other end hung up."""
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody speaks the next connection is begun soon, and sooner than any greeting."""
    monkeypatch.setattr(banner_probe, "_SILENT", (12, 0.1, 0.2))


@pytest.fixture
def porters() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def porter(stack: ExitStack, *, speaks: int, after: float = 0.0) -> Porter:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    made = Porter(listener, speaks=speaks, after=after)
    stack.callback(made.close)
    return made


def soon() -> float:
    return time.monotonic() + 60


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("speaks", [1, 3, 9])
def test_a_connection_that_was_lost_holds_nothing_up(porters: ExitStack, speaks: int) -> None:
    door = porter(porters, speaks=speaks)
    with BannerProbe(door.address).first_word(until=soon()) as found:
        assert found.gettimeout() is None
        assert found.recv(100) == WORD, "what it said stays to be read"
        assert found.getpeername() == door.address
        others = [
            connection
            for connection in door.taken
            if connection.getpeername() != found.getsockname()
        ]
        assert len(others) >= speaks - 1
        for connection in others:
            connection.settimeout(10)
            assert not connection.recv(1), "the others are hung up on"
    assert door.most <= banner_probe.CONNECTIONS


@pytest.mark.usefixtures("hasty")
def test_a_slow_sshd_is_not_kept_from_its_greeting(porters: ExitStack) -> None:
    """It would greet none, if each were given up before it can."""
    door = porter(porters, speaks=1, after=3.0)
    begun = time.monotonic()
    with BannerProbe(door.address).first_word(until=soon()) as found:
        assert found.getpeername() == door.address
        assert found.getsockname() == door.taken[0].getpeername(), "the first of all"
    assert time.monotonic() - begun >= 3
    assert len(door.taken) > banner_probe.CONNECTIONS
    assert door.most <= banner_probe.CONNECTIONS


@pytest.mark.usefixtures("hasty")
def test_the_oldest_makes_room_in_the_end(
    porters: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(banner_probe, "KEPT_SECONDS", 0.5)
    door = porter(porters, speaks=1000)
    with pytest.raises(banner_probe.Unreachable):
        BannerProbe(door.address).first_word(until=time.monotonic() + 1.5)
    assert len(door.taken) > banner_probe.CONNECTIONS
    assert door.most <= banner_probe.CONNECTIONS


def test_it_finds_who_speaks_after_refusals_and_hang_ups() -> None:
    address = Address("127.0.0.1", free_port())
    found: list[socket.socket] = []
    thread = threading.Thread(
        target=lambda: found.append(BannerProbe(address).first_word(until=soon()))
    )
    thread.start()
    with socket.create_server(address) as listener:
        for _ in range(3):
            listener.accept()[0].close()
        with listener.accept()[0] as last:
            last.sendall(WORD)
            thread.join(30)
    assert found[0].recv(100) == WORD
    found[0].close()


def test_nobody_says_anything() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        pytest.raises(banner_probe.Unreachable, match="the port answers, SSH does not"),
    ):
        BannerProbe(Address(*mute.getsockname()[:2])).first_word(until=time.monotonic() + 0.3)


def dropping(stack: ExitStack) -> Address:
    """Linux drops the first packet to one whose queue is full."""
    full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    stack.enter_context(socket.create_connection(full.getsockname()))
    return Address(*full.getsockname()[:2])


def test_what_we_send_is_dropped(porters: ExitStack) -> None:
    with pytest.raises(banner_probe.Unreachable, match="nothing answers"):
        BannerProbe(dropping(porters)).first_word(until=time.monotonic() + 0.3)


def test_nobody_is_there() -> None:
    with pytest.raises(banner_probe.Unreachable, match="Connection refused"):
        BannerProbe(Address("127.0.0.1", free_port())).first_word(until=time.monotonic() + 0.3)
    with pytest.raises(banner_probe.Unreachable, match=r"nreachable|refused|assign|support"):
        BannerProbe(Address("::1", 9)).first_word(until=time.monotonic() + 0.3)


def test_first_refused_then_silent_is_told_as_silent() -> None:
    address = Address("127.0.0.1", free_port())
    probe = BannerProbe(address)
    messages: list[str] = []

    def waits() -> None:
        try:
            probe.first_word(until=time.monotonic() + 3)
        except banner_probe.Unreachable as error:
            messages.append(str(error))

    thread = threading.Thread(target=waits)
    thread.start()
    wait_for(lambda: "refused" in probe._why)
    with socket.create_server(address):
        thread.join(30)
    assert messages == [f"no SSH to {address}: the port answers, SSH does not"]


@pytest.mark.parametrize("early", [True, False])
def test_abort_wakes_it(porters: ExitStack, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    monkeypatch.setattr(banner_probe, "_SILENT", (12, 60, 60))
    silent = porter(porters, speaks=1000).address
    for address in (silent, dropping(porters), Address("127.0.0.1", free_port())):
        probe = BannerProbe(address)
        if early:
            probe.abort()
        else:
            threading.Timer(0.3, probe.abort).start()
        begun = time.monotonic()
        with pytest.raises(banner_probe.Aborted):
            probe.first_word(until=begun + 100)
        assert time.monotonic() - begun < 30
        probe.abort()  # too late, and no harm
