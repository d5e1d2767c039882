"""The reasons why queued builds wait: one answer for `ps`, `show`, JSON and the API."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from vmrunner.core.scheduling import OffersAnswer, line, plan
from vmrunner.model import Offer, Scope
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger

#: No cloud is asked here: whoever has room is taken for one that could start.
_ANY: Final = OffersAnswer(offers=(Offer(scope=Scope("", "", ""), machine_type="", place=""),))


def reasons(ledger: Ledger, limits: EngineLimits) -> dict[str, str]:
    """Return the reason for every build that is queued, by build id."""
    queued = ledger.builds.queued()
    if not queued:
        return {}
    driven = {build.id: build for build in ledger.builds.driven()}
    running = [(driven.get(row.build or ""), row) for row in ledger.instances.open()]
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
    for build in queued:
        why = said.get(build.id, "")
        if not served[build.spec.provider] and not ledger.paused:
            why = f"no engine serves {build.spec.provider} (start one: vmrunner serve)"
        elif not why:
            why = _refused(ledger, build.id) or "an engine takes it next"
        place = f"; number {places[build.id]} of {len(queued)} in line" if len(queued) > 1 else ""
        found[build.id] = why + place
    return found


def _refused(ledger: Ledger, build: str) -> str:
    """Return what the provider said when it was last asked for a VM."""
    refused = [e for e in ledger.events.list(build) if e.kind in ("refused", "retry")]
    message = refused[-1].data.get("message") if refused else None
    return f"no VM yet: {message}" if message else ""
