"""A connection on which SSH has spoken, to a machine that may still boot.

Who listens for a machine that boots may take a connection and lose its first packet, which is sent
again after one second, three and seven by Linux, after six and eighteen by QEMU's network. So a
silent connection is not waited for alone: another is begun beside it, and the first that speaks is
taken. The pauses grow with the time that it took so far: what a boot loses to them stays a small
part of it, and a machine that takes minutes is not asked a thousand times.
"""

from __future__ import annotations

import errno
import os
import random
import selectors
import socket
import time
from typing import Final

from vmrunner.errors import VmrunnerError
from vmrunner.model import Address

MOST: Final = 5  # connections at once: sshd starts a process for each that reaches it

_SILENT: Final = (12, 0.5, 4.0)  # the next beside one that is silent: age divided by, least, most
_REFUSED: Final = (60, 0.1, 1.0)  # the next after one that was refused, the same


class Unreachable(VmrunnerError):
    """No handshake in the time that was given; the message is the last try's."""


class Aborted(VmrunnerError):
    """Somebody called `abort`."""


class Knocker:
    """For one use, in one thread; `abort` comes from any."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._selector = selectors.DefaultSelector()
        self._bell, self._rope = socket.socketpair()
        self._open: list[socket.socket] = []  # oldest first
        self._why = ""

    def abort(self) -> None:
        try:
            self._rope.send(b"!")
        except OSError:
            """It is over already."""

    def first_word(self, *, until: float) -> socket.socket:
        """The first connection that speaks; what it said stays to be read. Blocking, no time-out.

        `until`: of the monotonic clock. Raises Unreachable then, Aborted after `abort`."""
        self._selector.register(self._bell, selectors.EVENT_READ)
        try:
            return self._first_word(until)
        finally:
            self._selector.close()
            for sock in (self._bell, self._rope, *self._open):
                sock.close()

    def _first_word(self, until: float) -> socket.socket:
        began = due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                self._begin()
                due = now + _pause(_SILENT if self._open else _REFUSED, now - began)
            if now >= until:
                raise Unreachable(self._why or "the port answers, SSH does not")
            for key, _ in self._selector.select(max(min(due, until) - now, 0)):
                assert isinstance(key.fileobj, socket.socket)
                if key.fileobj is self._bell:
                    raise Aborted("told to stop")
                if self._spoke(key.fileobj):
                    return self._take(key.fileobj)
                due = min(due, now + _pause(_REFUSED, now - began))

    def _begin(self) -> None:
        if len(self._open) >= MOST:
            self._end(self._open[0])
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._why = str(error)
            return
        sock.setblocking(False)
        code = sock.connect_ex(self._address)
        if code not in (0, errno.EINPROGRESS):
            self._why = os.strerror(code)
            sock.close()
            return
        self._open.append(sock)
        self._selector.register(sock, selectors.EVENT_READ)

    def _spoke(self, sock: socket.socket) -> bool:
        """Whether it said something. If it did not, it is over: refused, or hung up on."""
        try:
            if sock.recv(1, socket.MSG_PEEK):
                return True
            self._why = "the port answers, SSH does not"
        except OSError as error:
            self._why = str(error)
        self._end(sock)
        return False

    def _end(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._open.remove(sock)
        sock.close()

    def _take(self, sock: socket.socket) -> socket.socket:
        self._open.remove(sock)
        sock.setblocking(True)
        return sock


def _pause(rule: tuple[float, float, float], age: float) -> float:
    part, least, most = rule
    return min(max(age / part, least), most) * random.uniform(0.8, 1.2)  # noqa: S311
