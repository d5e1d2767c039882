"""SSH into a VM's network namespace: bytes between a socket in the VM's directory and QEMU's port.

Only users who may enter the directory reach the socket; a port of the host's could be taken up by
any program. The connections onward are made in the namespace that the process lies in. Standard
library only; one thread.

QEMU takes a connection for a guest that has no address yet, and brings each that was given up to
the guest all the same, many seconds later. So a caller that knows when the guest listens keeps it
shut until then.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

_BUFFER: Final = 256 * 1024  # bytes that wait for a slow reader, each way
_CONNECTIONS: Final = 64  # at once; more are closed at once
_READ: Final = selectors.EVENT_READ
_WRITE: Final = selectors.EVENT_WRITE


@dataclass(eq=False)
class _Side:
    """One end of a connection, with what waits to be sent to it."""

    sock: socket.socket
    waiting: bytearray = field(default_factory=bytearray)
    eof: bool = False  # nothing more comes from it
    shut: bool = False  # nothing more goes to it
    ready: Callable[[int], None] | None = None


class Forwarder:
    """Forwards every connection to `listener` on to `target`, as events of `selector`. `shut`:
    hangs up on each at once, until `open`. `held`: lets connections wait until then, where that is
    soon."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        listener: socket.socket,
        target: tuple[str, int],
        *,
        shut: bool = False,
        held: bool = False,
    ) -> None:
        self._selector = selector
        self._listener = listener
        self._target = target
        self._shut = shut
        self._held = held
        self._pairs = 0
        listener.setblocking(False)
        if not held:
            selector.register(listener, _READ, self._accept)

    def open(self) -> None:
        self._shut = False
        if self._held:
            self._held = False
            self._selector.register(self._listener, _READ, self._accept)

    def _accept(self, _mask: int) -> None:
        try:
            inner, _ = self._listener.accept()
        except OSError:
            return
        if self._shut or self._pairs >= _CONNECTIONS:
            inner.close()
            return
        outer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (inner, outer):
            sock.setblocking(False)
        outer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outer.connect_ex(self._target)  # in progress; its failure shows as an event
        self._pairs += 1
        left, right = _Side(inner), _Side(outer)
        self._listen(left, right)
        self._listen(right, left)

    def _listen(self, side: _Side, peer: _Side) -> None:
        def ready(mask: int) -> None:
            if side.sock.fileno() < 0:
                return  # the other end's event, of the same look, dropped both
            try:
                if mask & _READ:
                    self._take(side, peer)
                self._give(side, peer)
                self._give(peer, side)
            except OSError:
                self._drop(side, peer)
                return
            if side.shut and peer.shut:
                self._drop(side, peer)
                return
            self._want(side, peer)
            self._want(peer, side)

        side.ready = ready
        self._selector.register(side.sock, _READ, ready)

    def _take(self, side: _Side, peer: _Side) -> None:
        with contextlib.suppress(BlockingIOError):
            data = side.sock.recv(65536)
            peer.waiting += data
            side.eof = not data

    def _give(self, side: _Side, peer: _Side) -> None:
        """Send what waits for `side`; after the last byte tell it that no more comes."""
        with contextlib.suppress(BlockingIOError):
            while side.waiting:
                del side.waiting[: side.sock.send(side.waiting)]
        if peer.eof and not side.waiting and not side.shut:
            side.sock.shutdown(socket.SHUT_WR)
            side.shut = True

    def _want(self, side: _Side, peer: _Side) -> None:
        """Listen for what can be used: nothing is read that the other end does not take."""
        mask = 0
        if not side.eof and len(peer.waiting) < _BUFFER:
            mask |= _READ
        if side.waiting:
            mask |= _WRITE
        registered = self._selector.get_map().get(side.sock)
        if registered is None:
            if mask:
                self._selector.register(side.sock, mask, side.ready)
        elif not mask:
            self._selector.unregister(side.sock)
        elif registered.events != mask:
            self._selector.modify(side.sock, mask, side.ready)

    def _drop(self, *sides: _Side) -> None:
        self._pairs -= 1
        for side in sides:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(side.sock)
            side.sock.close()
