"""Output of a command, to where its answer is read: a process's own stdout and exit code, or one
connection that carries both.

    D <length>\\n<bytes>         of stdout
    X <code> <length>\\n<text>   the end: exit code and complaint
"""

from __future__ import annotations

import os
import subprocess
import sys


class Output:
    """A process's stdout and stderr."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, *parts: bytes) -> None:
        _write(self.fd, *parts)

    def complain(self, text: str) -> None:
        print(text, file=sys.stderr)

    def become(self, argv: list[str]) -> int:
        """Leave the rest to a program."""
        return os.execvp(argv[0], argv)


class SocketOutput(Output):
    """Frames on one connection."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._complaint = b""

    def write(self, *parts: bytes) -> None:
        _write(self.fd, b"D %d\n" % sum(map(len, parts)), *parts)

    def complain(self, text: str) -> None:
        self._complaint += text.encode()[:4096] + b"\n"

    def become(self, argv: list[str]) -> int:
        """Only for a program without output of its own."""
        done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        self._complaint += done.stderr[-4096:]
        return done.returncode

    def end(self, code: int) -> None:
        _write(self.fd, b"X %d %d\n" % (code, len(self._complaint)), self._complaint)


def _write(fd: int, *parts: bytes) -> None:
    sent = os.writev(fd, parts)
    if sent < sum(map(len, parts)):
        data = memoryview(b"".join(parts))[sent:]
        while data:
            data = data[os.write(fd, data) :]
