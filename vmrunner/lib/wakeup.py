"""Hints that something happened, so that no caller waits for a poll. A lost hint costs a poll.

Inside a process it is an event; between processes of one host a datagram to every socket that
lies in the wake directory, one a listener.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from vmrunner.lib import private_dirs

_SUFFIX = ".wake"


def poke(directory: Path) -> int:
    """Wake every listener on this host; returns how many were reached. Never raises, never waits.
    Sockets of listeners that died without a word are removed."""
    reached = 0
    if not directory.is_dir():
        return 0
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    with _short(directory) as short, socket.socket(socket.AF_UNIX, kind) as sock:
        for path in sorted(directory.glob(f"*{_SUFFIX}")):
            try:
                sock.sendto(b"!", f"{short}/{path.name}")
                reached += 1
            except BlockingIOError:
                reached += 1  # its queue is full of hints: it will wake
            except ConnectionRefusedError:
                with contextlib.suppress(OSError):
                    path.unlink()
            except OSError:
                continue
    return reached


@contextlib.contextmanager
def _short(directory: Path) -> Iterator[str]:
    """The directory by a name of a few bytes: a Unix socket's path may have 107 at most."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


class Listener:
    """One waiter: `wait` returns early when this process or another pokes. Any thread may `set`."""

    def __init__(self, directory: Path | None, name: str) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._lock = threading.RLock()  # a signal's handler may set it in the middle of a set
        self._closed = False
        self._waiting = False
        self._hinted = False  # a byte is in the pipe, or its reader is about to return
        self._socket: socket.socket | None = None
        self._path: Path | None = None
        if directory is not None:
            self._open(directory, name)

    def _open(self, directory: Path, name: str) -> None:
        path = directory / f"{name}{_SUFFIX}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            private_dirs.make(directory)
            path.unlink(missing_ok=True)
            with _short(directory) as short:
                sock.bind(f"{short}/{path.name}")
        except OSError:
            sock.close()
            return
        self._socket, self._path = sock, path

    def set(self) -> None:
        """Wake the waiter from inside this process. Nothing once it is closed: the descriptor's
        number may be another file's by then, and a byte in that would break it. One byte is enough
        for many: each write is a turn of the interpreter that all others wait for."""
        with self._lock:
            if not (self._closed or self._hinted):
                self._hinted = True
                with contextlib.suppress(BlockingIOError):
                    os.write(self._write, b"!")

    def wait(self, timeout: float) -> bool:
        """Wait for a hint for at most `timeout` seconds; True when one came. Drains them all.
        At once when it is closed, or is being closed by another thread."""
        with self._lock:
            if self._closed:
                return False
            self._waiting = True
        try:
            poll = select.poll()
            for fd in [self._read] + ([self._socket.fileno()] if self._socket else []):
                poll.register(fd, select.POLLIN)
            ready = poll.poll(max(0.0, timeout) * 1000)
            for fd, _ in ready:
                with contextlib.suppress(BlockingIOError):
                    while os.read(fd, 4096):
                        pass
            return bool(ready)
        finally:
            with self._lock:
                self._waiting = self._hinted = False
                if self._closed:
                    self._release()

    def close(self) -> None:
        """Stop listening and take the socket away; from any thread. What a thread waits on stays
        open until it has woken."""
        with self._lock:
            if self._closed:
                return
            self.set()
            self._closed = True
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            if not self._waiting:
                self._release()

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
        os.close(self._read)
        os.close(self._write)
