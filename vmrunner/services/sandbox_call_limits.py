"""Pulses of calls to a sandbox's VM: what ends one that lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from vmrunner.lib import cancellation
from vmrunner.session.ssh import client

VM_PATIENCE: Final = 60.0  # seconds without an answer of the VM, after which it is given up
LOOK_INTERVAL: Final = 1.0  # seconds between looks whether anybody still waits


class MovingBytes:
    """Bytes that go to a VM or come from it, and the pulse that ends a call amid which none have
    for long: root in there may stall it. `data`: what goes there."""

    def __init__(self, data: Iterable[bytes] = ()) -> None:
        self._data = data
        self.comes_once = isinstance(data, Iterator)
        self.again = True  # while no byte has moved that cannot move again
        self._last = time.monotonic()

    def receiver(self, on_bytes: Callable[[bytes], object]) -> Callable[[bytes], object]:
        """Return a receiver that notes that bytes came."""

        def take(data: bytes) -> None:
            self.again = False
            on_bytes(data)
            self._last = time.monotonic()

        return take

    def taken(self) -> Iterator[bytes]:
        """Yield pieces, noting that each came and was taken."""
        for piece in self._data:
            self.again = not self.comes_once
            self._last = time.monotonic()
            yield piece
            self._last = time.monotonic()

    def pulse(self) -> float:
        """Raise ConnectionLost after so long without a byte."""
        cancellation.check()
        silent = time.monotonic() - self._last
        if silent >= VM_PATIENCE:
            raise client.ConnectionLost(f"no byte for {silent:.0f} s")
        return min(VM_PATIENCE - silent, LOOK_INTERVAL)


def look() -> float:
    """The pulse of a call that takes as long as it takes."""
    cancellation.check()
    return LOOK_INTERVAL
