"""Unix sockets at any depth: an address has room for 108 bytes, and the directories of VMs have
often longer names. Read by a VM's keeper: standard library only."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BACKLOG: Final = 64


def listen(path: Path) -> socket.socket:
    """A listening socket. Who may connect is who may enter the directory."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(sock: socket.socket, path: Path) -> None:
    """Connect to a path of any length, as `sock.connect` does to a short one."""
    with _short(path) as address:
        sock.connect(address)


@contextlib.contextmanager
def handed_out(stream: socket.socket) -> Iterator[str]:
    """Yield a command that gives this very connection to the program that starts it, once: over
    the socket that its stdout is, as `ssh` wants it of a ProxyCommand with ProxyUseFdpass."""
    import shlex
    import tempfile
    import threading

    with tempfile.TemporaryDirectory(
        prefix="vmrunner-ssh-", ignore_cleanup_errors=True
    ) as directory:
        path = Path(directory) / "stream"
        with listen(path) as listener:
            giver = threading.Thread(target=_give, args=(listener, stream, path), daemon=True)
            giver.start()
            try:
                yield shlex.join((sys.executable, "-P", "-m", __name__, str(path)))
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # no caller may have come for it
                giver.join()


def _give(listener: socket.socket, stream: socket.socket, path: Path) -> None:
    with contextlib.suppress(OSError), listener.accept()[0] as taker:
        socket.send_fds(taker, [b"\0"], [stream.fileno()])
    with contextlib.suppress(OSError):  # from here on a kill leaves nothing
        path.unlink()
        path.parent.rmdir()


def _pass_on(path: Path) -> None:
    """Take the connection that is handed out there, and give it to who started us."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as giver,
        socket.socket(fileno=os.dup(1)) as stdout,
    ):
        connect(giver, path)
        _, descriptors, _, _ = socket.recv_fds(giver, 1, 1)
        socket.send_fds(stdout, [b"\0"], descriptors)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of it that is short enough."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


if __name__ == "__main__":
    _pass_on(Path(sys.argv[1]))
