"""A process that was forked ahead and waits to be told what it is for."""

from __future__ import annotations

import socket
from collections.abc import Sequence


class Spare:
    """Both ends of the way to one such process: it reads at one, the resident writes at the
    other."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.pid = 0

    def mine(self) -> None:
        """Keep one end only, in the process that gives it work."""
        self._theirs.close()

    def give(self, word: bytes, descriptors: Sequence[int]) -> bool:
        """Tell it what to do, with such files; False: it is dead."""
        try:
            socket.send_fds(self._ours, [word], descriptors)
        except OSError:
            return False
        return True

    def wait(self) -> tuple[bytes, Sequence[int]]:
        """The work for that process, and its descriptors; b"" once its parent has ended."""
        self._ours.close()
        word, descriptors, _, _ = socket.recv_fds(self._theirs, 1, 1)
        self._theirs.close()
        return word, descriptors

    def close(self) -> None:
        self._ours.close()

    def __enter__(self) -> Spare:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
