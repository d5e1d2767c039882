"""Answers on the resident's socket: the commands of one connection, one after another.

to the socket     a line of JSON, the command's words; then its stdin. Or their object
                  {"words": …, "stdin": N}, N bytes, and after its end the next such
D <length>\\n<bytes>         of its stdout
X <code> <length>\\n<text>   its end: exit code and complaint
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress

from .command_io import Output, write
from .state import Place

WORDS = 4096  # bytes of a command's words
STAY = 60.0  # seconds that a child waits for the next command of its connection

_FILES = "/proc/self/fd"

#: `supervisor.obey`
Obey = Callable[[list[str], Place, str, Output, Callable[[], object]], int]


class SocketOutput(Output):
    """Output and exit code of a command as frames on one connection."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._complaint = b""

    def framed(self, data: bytes) -> bytes:
        return b"D %d\n" % len(data) + data

    def write(self, *parts: bytes) -> None:
        write(self.fd, b"D %d\n" % sum(map(len, parts)), *parts)

    def complain(self, text: str) -> None:
        self._complaint += text.encode()[:4096] + b"\n"

    def become(self, argv: list[str]) -> int:
        """Only for a program without output of its own."""
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        self._complaint += done.stderr[-4096:]
        return done.returncode

    def end(self, code: int) -> None:
        write(self.fd, b"X %d %d\n" % (code, len(self._complaint)), self._complaint)


def answer(
    connection: socket.socket, place: Place, work: str, launch: Callable[[], object], obey: Obey
) -> int:
    """Obey all commands that come over it. `launch`: starts the supervisor of the build."""
    connection.settimeout(None)
    files, parent = open_files(), os.getppid()
    patience: float | None = STAY
    while head := _head(connection, patience):
        if os.getppid() != parent:  # the caller finds the next one at the socket
            break
        words, stdin = json.loads(head), connection.fileno()
        if stays := isinstance(words, dict):
            stdin = _held(connection, words["stdin"])
            words = words["words"]
        os.dup2(stdin, 0)
        obey(words, place, work, SocketOutput(os.dup(connection.fileno())), launch)
        if not stays:
            break
        tidy(files)
        # Who had a container made gives it its build, whenever that comes.
        patience = None if words[:1] == ["prestart"] else STAY
    return 0


def _head(connection: socket.socket, patience: float | None) -> bytes:
    """Read a line of words; nothing when none comes any more."""
    if not select.select([connection], [], [], patience)[0]:
        return b""
    head = b""
    while b"\n" not in head and len(head) < WORDS:
        seen = connection.recv(WORDS, socket.MSG_PEEK)
        if not seen:
            return b""
        head += connection.recv(seen.find(b"\n") + 1 or len(seen))
    return head


def _held(connection: socket.socket, size: int) -> int:
    """Read so many bytes into a file without a name; return its descriptor."""
    file = os.memfd_create("stdin")
    while size:
        data = connection.recv(min(size, 1 << 20))
        if not data:
            raise ConnectionError("stdin was cut off")
        write(file, data)
        size -= len(data)
    os.lseek(file, 0, os.SEEK_SET)
    return file


def open_files() -> set[str]:
    return {name for name in os.listdir(_FILES) if os.path.lexists(f"{_FILES}/{name}")}


def tidy(files: set[str]) -> None:
    """Close all files but these, and reap children: another command follows in this process."""
    for name in set(os.listdir(_FILES)) - files:
        with suppress(OSError):
            os.close(int(name))
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
