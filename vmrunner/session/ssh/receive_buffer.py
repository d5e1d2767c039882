"""Bytes received on a channel and not taken yet, in place of paramiko's BufferedPipe.

That one keeps a single array: to take a piece from its front moves all that lies behind it, up to a
whole window. This one keeps the pieces as they came.
"""

from __future__ import annotations

import threading
from collections import deque


class ReceiveBuffer:
    """Fed by paramiko's thread, read by ours. One bell may serve several."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._bell = threading.Event()

    def set_event(self, bell: threading.Event) -> None:
        """Ring this bell now, and for what comes. A waiter clears it before it looks."""
        self._bell = bell
        bell.set()

    def feed(self, data: bytes) -> None:
        with self._lock:
            self._pieces.append(data)
            self._size += len(data)
        self._bell.set()

    def close(self) -> None:
        """Note that nothing will come any more; what came stays."""
        self._bell.set()

    def __len__(self) -> int:
        return self._size

    def read_ready(self) -> bool:
        return self._size > 0

    def read(self, most: int, _timeout: float | None = None) -> bytes:
        """Up to `most` bytes, none where none are there: it never waits."""
        taken = []
        with self._lock:
            while most and self._pieces:
                piece = self._pieces.popleft()
                if len(piece) > most:
                    self._pieces.appendleft(piece[most:])
                    piece = piece[:most]
                taken.append(piece)
                most -= len(piece)
                self._size -= len(piece)
        return b"".join(taken)
