"""A command of vmrunner's: its request, and its output where it is a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .state import Place


INPUT = 32 << 20  # bytes of a job at most


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


class Request:
    """One command: its epoch, its arguments, and where it answers."""

    def __init__(
        self,
        place: Place,
        epoch: int,
        arguments: list[str],
        work: str,
        out: Output,
        launch: Callable[[], object],
    ) -> None:
        self.place = place
        self.epoch = epoch
        self.work = work
        self.out = out
        self.launch = launch
        self.afterwards: Callable[[], object] = lambda: None  # once its end was told
        self.gzip = ["--gzip"] if "--gzip" in arguments else []
        self.arguments = [word for word in arguments if word != "--gzip"]


def received() -> bytes:
    """All of stdin."""
    with open(0, "rb", closefd=False) as file:
        return file.read(INPUT)
