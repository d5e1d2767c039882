"""A connection on which SSH has spoken, to a machine that may still boot.

The listener of a machine that boots may take a connection and lose its first packet, which is sent
again after one second, three and seven by Linux, after six and eighteen by QEMU's network. So a
silent connection is not waited for alone: another is begun beside it, and the first that speaks is
taken. The oldest is left alone for long all the same, and the others take turns: an sshd that is
there and takes its time must not be kept from it by our own knocking.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from vmrunner.errors import VmrunnerError
from vmrunner.lib import jitter
from vmrunner.lib.channels import TCP, Channel
from vmrunner.model import Address

CONNECTIONS: Final = 3  # connections at once: sshd starts a process for each that reaches it
KEPT_SECONDS: Final = 30.0  # seconds for which the oldest is

_SILENT: Final = (12, 2.0, 4.0)  # the next beside one that is silent: age divided by, least, most
_REFUSED: Final = (60, 0.1, 1.0)  # the next after one that was refused, the same
_SILENCE: Final = "the port answers, SSH does not"


class Unreachable(VmrunnerError):
    """No handshake in the time that was given; the message says what there was instead."""


class Aborted(VmrunnerError):
    """`abort` was called."""


@dataclass(frozen=True, slots=True)
class _Try:
    """One connection, with when it was begun."""

    sock: socket.socket
    since: float


class BannerProbe:
    """A probe for one use, in one thread; `abort` comes from any. Its sockets are all the
    descriptors that it takes: hundreds may boot at once."""

    def __init__(self, address: Address, channel: Channel = TCP) -> None:
        self._address = address
        self._channel = channel
        self._poll = select.poll()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._open: dict[int, _Try] = {}  # by descriptor, oldest first
        self._why = ""

    def abort(self) -> None:
        with self._lock:
            self._stop.set()
            for attempt in self._open.values():
                with contextlib.suppress(OSError):
                    attempt.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it

    def first_word(self, *, until: float) -> socket.socket:
        """The first connection that speaks; its greeting stays to be read. Blocking, no time-out.

        `until`: of the monotonic clock. Raises Unreachable then, Aborted after `abort`."""
        try:
            return self._first_word(until)
        finally:
            for attempt in list(self._open.values()):
                self._end(attempt)

    def _first_word(self, until: float) -> socket.socket:
        began = due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                self._make_room(now)
                self._begin(now)
                due = now + _pause(_SILENT if self._open else _REFUSED, now - began)
            if now >= until:
                raise Unreachable(f"no SSH to {self._address}: {self._complaint()}")
            for attempt in self._wait(max(min(due, until) - now, 0)):
                if self._spoke(attempt):
                    return self._take(attempt)
                due = min(due, now + _pause(_REFUSED, now - began))

    def _wait(self, seconds: float) -> list[_Try]:
        """The attempts on which something happened."""
        happened: list[tuple[int, int]] = []
        if not self._open:
            self._stop.wait(seconds)
        elif not self._stop.is_set():
            happened = self._poll.poll(seconds * 1000)
        if self._stop.is_set():
            raise Aborted("told to stop")
        return [self._open[number] for number, _ in happened]

    def _make_room(self, now: float) -> None:
        if len(self._open) >= CONNECTIONS:
            oldest, second, *_ = self._open.values()
            self._end(oldest if now - oldest.since >= KEPT_SECONDS else second)

    def _begin(self, now: float) -> None:
        try:
            sock = self._channel.open(self._address)
        except OSError as error:
            self._why = str(error)
            return
        with self._lock:
            self._open[sock.fileno()] = _Try(sock, now)
        self._poll.register(sock, select.POLLIN)

    def _spoke(self, attempt: _Try) -> bool:
        """True if the other side said something. If it did not, it is over: refused, or hung up
        on."""
        try:
            if attempt.sock.recv(1, socket.MSG_PEEK):
                return True
            self._why = _SILENCE
        except OSError as error:
            self._why = str(error)
        self._end(attempt)
        return False

    def _complaint(self) -> str:
        """A message about attempts of which none spoke."""
        for attempt in self._open.values():
            with contextlib.suppress(OSError):
                attempt.sock.getpeername()
                return _SILENCE
        return self._why or "nothing answers: no network yet, or a firewall that drops what we send"

    def _end(self, attempt: _Try) -> None:
        self._let_go(attempt)
        attempt.sock.close()

    def _take(self, attempt: _Try) -> socket.socket:
        self._let_go(attempt)
        attempt.sock.setblocking(True)
        return attempt.sock

    def _let_go(self, attempt: _Try) -> None:
        self._poll.unregister(attempt.sock)
        with self._lock:
            del self._open[attempt.sock.fileno()]


def _pause(rule: tuple[float, float, float], age: float) -> float:
    part, least, most = rule
    return min(max(age / part, least), most) * jitter.between(0.8, 1.2)
