"""The reasons why queued builds wait: one answer for `ps`, `show`, JSON and the API."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from vmrunner.core.scheduling import OffersAnswer, line, plan
from vmrunner.model import SERVING, BuildRecord, BuildState, Offer, Scope
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger

LOOKED_AT: Final = 1000  # builds, the oldest of the highest priority
#: No cloud is asked here: whoever has room is taken for one that could start.
_ANY: Final = OffersAnswer(offers=(Offer(scope=Scope("", "", ""), machine_type="", place=""),))


def waiting(ledger: Ledger, limits: EngineLimits, rows: Iterable[BuildRecord]) -> dict[str, str]:
    """Return why those of them that are queued wait, by build id."""
    wanted = [row.id for row in rows if row.state is BuildState.QUEUED]
    if not wanted:
        return {}
    known = _reasons(ledger, limits)
    if len(known) >= LOOKED_AT:
        behind = f"{LOOKED_AT} builds or more stand before it in line"
        return {name: known.get(name, behind) for name in wanted}
    return {name: known[name] for name in wanted if name in known}


def _reasons(ledger: Ledger, limits: EngineLimits) -> dict[str, str]:
    """Return the reason for each queued build that is looked at."""
    queued = ledger.builds.queued(LOOKED_AT)
    driven = {build.id: build for build in ledger.builds.driven()}
    vms = [row for row in ledger.instances.open() if row.role in SERVING]
    running = [(driven.get(row.build or ""), row) for row in vms]
    decided = plan(
        time.time(),
        queued,
        running,
        lambda _name, _spec: _ANY,
        limits.rooms,
        draining=ledger.paused,
    )
    awaited = {build.spec.provider for build in queued}
    served = {name: background.served(ledger, [name], here=True) for name in awaited}
    places = {build.id: n for n, build in enumerate(line(queued, running), 1)}
    said = dict(decided.waiting)
    said |= {reject.build.id: reject.message for reject in decided.rejects}
    found = {}
    count = f" of {len(queued)}" if len(queued) < LOOKED_AT else ""
    for build in queued:
        why = said.get(build.id, "")
        if not served[build.spec.provider] and not ledger.paused:
            why = f"no engine serves {build.spec.provider} (start one: vmrunner serve)"
        elif not why:
            why = _refused(ledger, build.id) or "an engine takes it next"
        place = f"; number {places[build.id]}{count} in line" if len(queued) > 1 else ""
        found[build.id] = why + place
    return found


def _refused(ledger: Ledger, build: str) -> str:
    """Return what the provider said when it was last asked for a VM."""
    refused = [e for e in ledger.events.list(build) if e.kind in ("refused", "retry")]
    message = refused[-1].data.get("message") if refused else None
    return f"no VM yet: {message}" if message else ""
