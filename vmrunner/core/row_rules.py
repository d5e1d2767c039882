"""The open rows that must die, whether or not their VM is in sight. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vmrunner.core.reap_plan import MarkDeleting
from vmrunner.model import Death, Instance, InstanceState, Limits, Scope

#: States that end when they last too long. Never `busy`, never `held`: those end at `E`.
_LIMITED: Final = (
    InstanceState.REQUESTED,
    InstanceState.BOOTING,
    InstanceState.READY,
)


def dooms(
    now: float,
    rows: Iterable[Instance],
    since: float,
    seen: Mapping[Scope, float],
    limits: Limits,
    wishes: Mapping[str, Death],
) -> list[MarkDeleting]:
    """Rows that must go to `deleting`, whether or not their VM is in sight."""
    found = []
    for row in rows:
        if row.state in (InstanceState.DELETING, InstanceState.GONE):
            continue
        reason: Death | None = None
        if now > row.deadline:
            reason = Death.EXPIRED
        elif row.id in wishes:
            reason = wishes[row.id]
        elif row.state in _LIMITED:
            limit: float = getattr(limits, row.state.value)
            began = max(row.state_since, since, seen.get(row.scope, since))
            reason = Death.STUCK if now > began + limit else None
        if reason is not None:
            found.append(MarkDeleting(instance=row.id, seen_epoch=row.epoch, reason=reason))
    return found


def overlong(now: float, rows: Iterable[Instance], limits: Limits) -> list[str]:
    """Rows that are dying for too long: deleting is retried for ever, and it alarms."""
    return [
        f"{row.id} has been deleting for {int(now - row.state_since)} s ({row.deletes} attempts)"
        for row in rows
        if row.state is InstanceState.DELETING and now > row.state_since + limits.deleting
    ]
