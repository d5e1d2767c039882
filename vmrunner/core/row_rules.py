"""The open rows that must die, whether or not their VM is in sight. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from vmrunner.core.reap_plan import MarkDeleting
from vmrunner.model import DYING, Death, Instance, InstanceState, Limits, Scope

#: The order in which reasons are acted on.
URGENCY: Final = {reason: rank for rank, reason in enumerate(Death)}

#: States that end when they last too long. Not `busy` or `held`, which end at the deadline, nor
#: `ready` while no build has claimed it: its pool ends that.
_LIMITED: Final = (
    InstanceState.REQUESTED,
    InstanceState.BOOTING,
    InstanceState.READY,
    InstanceState.PARKING,
    InstanceState.WAKING,
)


def marks(
    now: float,
    rows: Iterable[Instance],
    since: float,
    seen: Mapping[Scope, float],
    limits: Limits,
    early_deaths: Mapping[str, Death],
) -> tuple[MarkDeleting, ...]:
    """Rows that must go to `deleting`, whether or not their VM is in sight; the most urgent first.
    The arguments are those of `reap_rules.ReapInput`."""
    found = []
    for row in rows:
        if row.state in DYING:
            continue
        reason: Death | None = None
        if now > row.end:
            reason = Death.EXPIRED
        elif row.id in early_deaths:
            reason = early_deaths[row.id]
        elif row.state in _LIMITED and not _waits(row):
            limit: float = getattr(limits, row.state.value)
            began = max(row.state_since, since, seen.get(row.scope, since))
            reason = Death.STUCK if now > began + limit else None
        if reason is not None:
            found.append(MarkDeleting(instance=row.id, seen_epoch=row.epoch, reason=reason))
    return tuple(sorted(found, key=lambda mark: (URGENCY[mark.reason], mark.instance)))


def _waits(row: Instance) -> bool:
    return row.state is InstanceState.READY and row.build is None


def overlong(now: float, rows: Iterable[Instance], limits: Limits) -> list[str]:
    """Rows that are dying for too long: deleting is retried for ever, and it alarms."""
    return [
        f"{row.id} has been deleting for {int(now - row.state_since)} s ({row.deletes} attempts)"
        for row in rows
        if row.state is InstanceState.DELETING and now > row.state_since + limits.deleting
    ]
