"""The end of foreground builds whose client is gone. The time in which no server answered does not
count."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from vmrunner.errors import VmrunnerError
from vmrunner.model import Reason
from vmrunner.services.cancel import cancel
from vmrunner.services.remote_submit import LEASE

if TYPE_CHECKING:
    from vmrunner.server.parts import ServerParts

log = logging.getLogger("vmrunner.server")

INTERVAL: Final = 5.0  # seconds between two looks
#: Seconds between two looks that took so long that clients may have got no answer meanwhile.
GAP: Final = 20.0


class SubmitterWatch:
    """Looks for leases that were not renewed. `look` is one look; a thread does it again and
    again."""

    def __init__(self, parts: ServerParts) -> None:
        self._parts = parts
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="submitters", daemon=True)
        self._looked: float | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.0 if self._looked is None else INTERVAL):
            try:
                self.look()
            except VmrunnerError as error:
                self._looked = None  # clients got no answer either
                log.warning("submitters: %s", error)
                self._stop.wait(INTERVAL)

    def look(self) -> None:
        """Give all a lease anew after a time without answers; else end what was not renewed."""
        leases, now = self._parts.ledger.submitter_leases, self._parts.now()
        if self._looked is None or not 0 <= now - self._looked <= GAP:
            leases.grant(now + LEASE)
        self._looked = now
        for build in leases.lapsed(now):
            log.info("%s: its client is gone", build)
            cancel(
                self._parts.ledger,
                build,
                wake=self._parts.wake,
                reason=Reason.OWNER_GONE,
                by="server",
                why="the client did not renew its lease",
            )
