"""Being there while a build runs: its log as it grows, an engine that serves it, and its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from vmrunner.errors import LedgerError
from vmrunner.model import BuildRecord, BuildState, Chunk
from vmrunner.services.logs import LogReader, ReadsLog

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.services.client import RemoteLedger
    from vmrunner.services.protocols import ServingHost

T = TypeVar("T")

FOLLOW_INTERVAL: Final = 0.1  # seconds between two looks for more
OFTENER: Final = 20  # so many times as often at most, right after news
STALE: Final = 0.1  # of the time since the last news: a look later than that costs its share
LEDGER_RETRY: Final = 1.0  # seconds before a ledger that is out of reach is asked again
LEDGER_TIMEOUT: Final = 120.0  # seconds that it is waited for: a server's failover takes less
#: So long who takes the engine with him waits for the VM to be seen gone; the reaper has the rest.
SETTLE: Final = 60.0
_ENDED: Final = (BuildState.HELD, BuildState.FINISHED)


def ended(build: BuildRecord) -> bool:
    """True if a build's result is known. A held build has ended; only its VM is still there."""
    return build.state in _ENDED


def _nothing(*_: object) -> None:
    pass


class BuildFollower:
    """Follows one build, from line `after` of its log on; `interval`: seconds between two looks. In
    every wait it sees to it that the build is served, and calls `leave`, which may raise; `sleep`
    waits so many seconds. A ledger that is out of reach is waited for, and `ledger_away` hears of
    it."""

    def __init__(
        self,
        ledger: Ledger | RemoteLedger,
        host: ServingHost,
        build: str,
        *,
        log: ReadsLog,
        after: int = 0,
        leave: Callable[[], object] = _nothing,
        sleep: Callable[[float], object] = time.sleep,
        ledger_away: Callable[[LedgerError], object] = _nothing,
        interval: float = FOLLOW_INTERVAL,
    ) -> None:
        self._ledger = ledger
        self._host = host
        self._build = build
        self._leave = leave
        self._sleep = sleep
        self._ledger_away = ledger_away
        self._interval = interval
        self._reader = LogReader(log, after=after)

    def read(self) -> BuildRecord:
        """The build as it is now."""
        return self.patiently(lambda: self._ledger.builds.get(self._build))

    def rounds(self) -> Iterator[tuple[BuildRecord, Iterator[Chunk]]]:
        """Look again and again until it has ended: the build, and what is new in its log. That is
        read as it is taken, and after the build: so the last look has all of it."""
        former, changed = None, time.monotonic()
        while True:
            row = self.read()
            if former is None or (row.state, row.instance) != (former.state, former.instance):
                former, changed = row, time.monotonic()
            yield row, self._new_chunks()
            if ended(row):
                return
            self._leave()
            self.ensure_served(row)
            pause = max(self._interval / OFTENER, STALE * (time.monotonic() - changed))
            self._sleep(min(self._interval, pause))

    def chunks(self) -> Iterator[Chunk]:
        """The whole log, until it has ended."""
        for _, chunks in self.rounds():
            yield from chunks

    def settle(self, seconds: float = SETTLE) -> bool:
        """Wait until it has ended and its VM is gone: for who takes the engine with him, else
        no engine would see to that. A held VM stays. False: so long was not enough."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            row = self.read()
            if row.state is BuildState.HELD or (row.finished and not self._has_vm()):
                return True
            self._leave()
            self.ensure_served(row)
            self._sleep(self._interval)
        return False

    def ensure_served(self, row: BuildRecord) -> None:
        """See to it that an engine drives it, here or elsewhere."""
        self.patiently(lambda: self._host.ensure(row.spec.provider))

    def patiently(self, work: Callable[[], T]) -> T:
        """Do it; while the ledger is out of reach, wait and do it again, for at most
        `LEDGER_TIMEOUT`. `told` hears of it once. `pause` is called between tries and may raise."""
        until: float | None = None
        while True:
            try:
                return work()
            except LedgerError as error:
                now = time.monotonic()
                if until is None:
                    until = now + LEDGER_TIMEOUT
                    self._ledger_away(error)
                if now >= until:
                    raise
                self._leave()
                self._sleep(LEDGER_RETRY)

    def _new_chunks(self) -> Iterator[Chunk]:
        while chunks := self.patiently(self._reader.next_chunks):
            yield from chunks

    def _has_vm(self) -> bool:
        instances = self._ledger.instances
        return bool(self.patiently(lambda: instances.list(build=self._build, active=True)))
