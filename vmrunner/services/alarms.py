"""Alarms: what the operator's webhooks are told of beside the ends of builds.

An alarm is a state that the ledger shows for as long as it lasts, not a moment: each engine
looks, and each alarm is written down once, by its subject, by the first that sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from vmrunner.core.audit_rules import AuditFault, Survivor
from vmrunner.model import Instance, NotifyEvent
from vmrunner.services import audit, pools
from vmrunner.services.documents import (
    budget_document,
    envelope,
    iso,
    pool_document,
    removal_document,
    survivor_document,
)

if TYPE_CHECKING:
    from vmrunner.ledger import Ledger
    from vmrunner.reaper.retention import Removal
    from vmrunner.runtime.provider_set import ProviderSet
    from vmrunner.services import document_types as types


NEARLY: Final = 0.9  # of a budget


def lateness(rows: Iterable[Instance], providers: ProviderSet) -> dict[str, float]:
    """Return by how many seconds each VM is past its end, on the clock that it is timed by."""
    return {row.id: providers.time_at(row.provider, row.scope) - row.end for row in rows}


def write_alarms(ledger: Ledger, providers: ProviderSet, *, grace: float, now: float) -> None:
    """Write down what is to be told now. `grace`: G, in seconds."""
    rows = {row.id: row for row in ledger.instances.open()}
    for name, late in lateness(rows.values(), providers).items():
        if late > grace:
            found = _late(rows[name], late)
            _write(ledger, NotifyEvent.SURVIVOR, name, now, "survivor", [survivor_document(found)])
    for latch in ledger.sightings.latched():
        latched: types.LatchDocument = {
            "provider": latch.provider,
            "place": latch.place,
            "since": iso(latch.begun),
        }
        subject = f"{latch.provider} {latch.place} {latch.sweep}"
        _write(ledger, NotifyEvent.ORPHANS_LATCHED, subject, now, "latch", [latched])
    for state in ledger.budgets.states(now):
        if state.held > NEARLY * state.budget.usd:
            subject = f"{state.budget.name} {state.start:.0f}"
            _write(ledger, NotifyEvent.BUDGET, subject, now, "budget", [budget_document(state)])
    for entry in pools.status(ledger, providers):
        for place in pools.failing(entry):
            since = place.failing_since or 0.0
            subject = f"{entry.pool.name} {place.place} {since:.0f}"
            _write(ledger, NotifyEvent.POOL_FAILING, subject, now, "pool", [pool_document(entry)])
    silent = [survivor_document(line) for line in audit.silence(ledger)]
    if silent:
        subject = str(audit.watch(ledger).passed)
        _write(ledger, NotifyEvent.REAPER_SILENT, subject, now, "survivor", silent)

    apart = [survivor_document(line) for line in audit.clocks(ledger)]
    if apart:
        day = int(now // 86_400)
        _write(ledger, NotifyEvent.CLOCKS_APART, f"clocks {day}", now, "survivor", apart)


def write_left(ledger: Ledger, removed: Iterable[Removal], now: float) -> None:
    """Write down, once a day, that a night's run left what should have gone."""
    failed = [removal_document(removal) for removal in removed if removal.failed]
    if failed:
        day = int(now // 86_400)
        _write(ledger, NotifyEvent.RETENTION_FAILING, f"left {day}", now, "removal", failed)


def _late(row: Instance, late: float) -> Survivor:
    return Survivor(
        fault=AuditFault.ROW_PAST_DEADLINE,
        instance=row.id,
        ref=row.ref,
        late=late,
        message=f"{row.id} is past its deadline and not seen gone",
    )


def _write(
    ledger: Ledger,
    event: NotifyEvent,
    subject: str,
    now: float,
    kind: str,
    documents: Iterable[Mapping[str, Any]],
) -> None:
    ledger.outbox.add(event, subject, now, data=json.dumps(envelope(kind, documents)))
