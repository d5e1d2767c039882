"""Output of a command that is a process of its own."""

from __future__ import annotations

import os
import sys


class Output:
    """A process's stdout and stderr."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, *parts: bytes) -> None:
        write(self.fd, *parts)

    def complain(self, text: str) -> None:
        print(text, file=sys.stderr)

    def end(self, code: int) -> None:
        """Tell the exit code, where the end of the process does not."""

    def become(self, argv: list[str]) -> int:
        """Leave the rest to a program."""
        return os.execvp(argv[0], argv)


def write(fd: int, *parts: bytes) -> None:
    sent = os.writev(fd, parts)
    if sent < sum(map(len, parts)):
        data = memoryview(b"".join(parts))[sent:]
        while data:
            data = data[os.write(fd, data) :]
