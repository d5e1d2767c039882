"""The log on its way to the ledger: masked, in batches, with the offset that goes with them."""

from __future__ import annotations

import time
from typing import Final

from vmrunner.lib.masking import MASK, Masker
from vmrunner.lib.secret_patterns import SecretPatterns
from vmrunner.session.job import Reporter

RELAY_BATCH: Final = 256 * 1024  # bytes
LATEST: Final = 0.2  # seconds that output waits for more of it, if there was some a moment ago


class LogRelay:
    """A relay of the log. What is held back for masking is not counted as stored: after a
    resumption it comes again."""

    def __init__(self, reporter: Reporter, secrets: tuple[bytes, ...], offset: int) -> None:
        self._reporter = reporter
        self._needles = SecretPatterns(secrets)
        self._stored = float("-inf")  # when something was, by the monotonic clock
        self.resume(offset)

    def resume(self, offset: int) -> None:
        """Forget what was not stored; it comes again from there."""
        self._masker = Masker(self._needles)
        self._raw = offset  # end of what was fed
        self._ready: list[bytes] = []
        self._size = 0
        self._due: float | None = None

    @property
    def ignored(self) -> int:
        """Secrets that are too short to be masked."""
        return self._masker.ignored

    @property
    def offset(self) -> int:
        """The offset up to which the log is decided; with `flush`, stored."""
        return self._raw - self._masker.held

    def masked(self, text: str) -> str:
        """Mask secrets in another text of the VM."""
        masker = Masker(self._needles)
        return (masker.feed(text.encode()) + masker.finish()).decode(errors="replace")

    def feed(self, data: bytes) -> None:
        self._raw += len(data)
        self._take(self._masker.feed(data))
        if self._due is None and self._masker.waits:
            self._due = time.monotonic() + LATEST
        if self._size >= RELAY_BATCH:
            self.flush()
        elif self._ready and time.monotonic() - self._stored >= LATEST:
            self._store()  # what is held back may still become a secret

    def wait(self) -> float:
        """Store what is due; seconds until something else will be."""
        if self._due is None:
            return 3600.0
        remaining = self._due - time.monotonic()
        if remaining > 0:
            return remaining
        self.flush()
        return 3600.0

    def flush(self) -> None:
        self._take(self._masker.decide())
        self._store()

    def _store(self) -> None:
        if self._ready:
            self._reporter.log(self.offset, b"".join(self._ready))
            self._stored = time.monotonic()
        self._ready.clear()
        self._size = 0
        self._due = time.monotonic() + LATEST if self._masker.waits else None

    def finish(self) -> None:
        """The log is whole."""
        self._take(self._masker.finish())
        self.flush()

    def abandon(self) -> None:
        """Give up the rest: no more of the log will come, and it may have been cut inside a
        secret."""
        self._take(self._masker.decide())
        if self._masker.held:
            self._masker = Masker(())
            self._take(MASK)
        self.flush()

    def _take(self, masked: bytes) -> None:
        if not masked:
            return
        self._ready.append(masked)
        self._size += len(masked)
        if self._due is None:
            self._due = time.monotonic() + LATEST
