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


def hand_over(path: Path) -> None:
    """Connect, and give the connection to who started us: over the socket that our stdout is, as
    `ssh` wants it of a ProxyCommand with ProxyUseFdpass."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made,
        socket.socket(fileno=os.dup(1)) as stdout,
    ):
        connect(made, path)
        socket.send_fds(stdout, [b"\0"], [made.fileno()])


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of it that is short enough."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


if __name__ == "__main__":
    hand_over(Path(sys.argv[1]))
