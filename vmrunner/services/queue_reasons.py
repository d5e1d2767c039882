"""The reasons why queued builds wait: one answer for `ps`, `show`, JSON and the API."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from vmrunner.core.scheduling import OffersAnswer, line, plan
from vmrunner.model import SERVING, BuildRecord, BuildState, Offer, Scope
from vmrunner.runtime import background

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.model import Principal

LOOKED_AT: Final = 1000  # builds, the oldest of the highest priority
#: No cloud is asked here: a provider with room counts as one that could start.
_ANY: Final = OffersAnswer(offers=(Offer(scope=Scope("", "", ""), machine_type="", place=""),))


def waiting(
    ledger: Ledger,
    limits: EngineLimits,
    rows: Iterable[BuildRecord],
    principal: Principal | None = None,
) -> dict[str, str]:
    """Reasons why those of them that are queued wait, by build id. `principal`: the reader, if not
    for one who sees all; one with a label filter is told nothing of other tenants' builds."""
    wanted = [row.id for row in rows if row.state is BuildState.QUEUED]
    if not wanted:
        return {}
    tenant = principal if principal is not None and principal.labels else None
    reasons = _reasons(ledger, limits, tenant)
    if len(reasons) >= LOOKED_AT:
        many = f"{LOOKED_AT} builds or more stand before it in line"
        behind = many if tenant is None else "it waits for its turn"
        return {name: reasons.get(name, behind) for name in wanted}
    return {name: reasons[name] for name in wanted if name in reasons}


def _reasons(ledger: Ledger, limits: EngineLimits, tenant: Principal | None) -> dict[str, str]:
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
    reasons = dict(decided.waiting)
    reasons |= {reject.build.id: reject.message for reject in decided.rejects}
    if tenant is not None:  # the limit's own words say how many VMs there are
        reasons |= dict.fromkeys(decided.full, "all places for VMs are taken")
    positions = _places(line(queued, running), tenant, whole=len(queued) < LOOKED_AT)
    found = {}
    for build in queued:
        why = reasons.get(build.id, "")
        if not served[build.spec.provider] and not ledger.paused:
            why = f"no engine serves {build.spec.provider} (start one: vmrunner serve)"
        elif not why:
            why = _refused(ledger, build.id) or "an engine takes it next"
        found[build.id] = why + positions.get(build.id, "")
    return found


def _places(
    ordered: Sequence[BuildRecord], tenant: Principal | None, *, whole: bool
) -> dict[str, str]:
    """Say which place in line each has: a tenant's among its own. `whole`: these are all."""
    shown = [b for b in ordered if tenant is None or tenant.sees(b)]
    if len(shown) < 2:
        return {}
    whose = " of yours" if tenant is not None else ""
    count = f" of {len(shown)}" if whole else ""
    return {b.id: f"; number {n}{count}{whose} in line" for n, b in enumerate(shown, 1)}


def _refused(ledger: Ledger, build: str) -> str:
    """The provider's last refusal of a VM, in words, or ""."""
    refused = [e for e in ledger.events.list(build) if e.kind in ("refused", "retry")]
    message = refused[-1].data.get("message") if refused else None
    return f"no VM yet: {message}" if message else ""
