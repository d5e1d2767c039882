"""The end of foreground builds whose client is gone. A lease is over when it did not change for so
long by this process's own clock, without a gap between looks: what another node's clock says means
nothing, and time in which no server answered does not count."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from vmrunner.errors import LedgerError, VmrunnerError
from vmrunner.lib.change_watch import ChangeWatch
from vmrunner.model import Reason
from vmrunner.services.admission import SUBMITTER_LEASE
from vmrunner.services.cancel import cancel

if TYPE_CHECKING:
    from vmrunner.server.dependencies import ServerParts

log = logging.getLogger("vmrunner.server")

INTERVAL: Final = 5.0  # seconds between two looks
#: Seconds between two looks that took so long that clients may have got no answer meanwhile.
GAP: Final = 20.0


class SubmitterWatch:
    """Looks for leases that were not renewed. `look` is one look; a thread does it again and again.
    `monotonic`: the clock of this process."""

    def __init__(self, parts: ServerParts, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._parts = parts
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="submitters", daemon=True)
        self._looked = False
        self._leases: ChangeWatch[str] = ChangeWatch(SUBMITTER_LEASE, gap=GAP)  # by build

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL if self._looked else 0.0):
            try:
                self.look()
            except VmrunnerError as error:
                self._looked = False
                self._leases.clear()  # clients got no answer either
                log.warning("submitters: %s", error)
                self._stop.wait(INTERVAL)

    def look(self) -> None:
        """End what was not renewed. After a gap nothing that was seen before counts. A build that
        cannot be ended keeps no other, and is tried again a lease later."""
        now = self._monotonic()
        self._looked = True
        leases = self._parts.ledger.submitter_leases.open()
        self._leases.keep(leases)
        for build, until in leases.items():
            if self._leases.look(build, until, now) <= SUBMITTER_LEASE:
                continue
            try:
                self._end(build)
            except LedgerError:
                raise
            except VmrunnerError as error:
                log.warning("submitters: %s", error)
                self._leases.forget(build)

    def _end(self, build: str) -> None:
        log.info("%s: its client is gone", build)
        cancel(
            self._parts.ledger,
            build,
            wake=self._parts.wake,
            reason=Reason.OWNER_GONE,
            by="server",
            why="the client did not renew its lease",
        )
