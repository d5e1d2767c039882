"""Looks at the ledger once more, before what a pass decided is done: what it read may be old."""

from __future__ import annotations

from vmrunner.core.lifecycle import CANCEL_GRACE, sandbox_over
from vmrunner.core.reap_plan import Deletion
from vmrunner.engine.context import WorkContext
from vmrunner.model import BuildRecord, Death, Instance, InstanceState


def still_condemned(context: WorkContext, kill: Deletion) -> bool:
    """Return True if what condemned it, inside `E`, is still so. All of it can only become so,
    never cease: a row that is closed, a reference that is recorded, an id that has no row."""
    instances = context.ledger.instances
    with context.guard("check"):
        rows = instances.these([kill.instance] if kill.instance else [])
        if kill.reason is Death.ORPHAN:
            return not instances.known([kill.instance or ""])
        if kill.reason is Death.LEFTOVER:
            return bool(rows) and rows[0].state is InstanceState.GONE
        if kill.reason is Death.DUPLICATE:
            return bool(rows) and rows[0].ref not in (None, kill.ref)
    return False


def was_extended(context: WorkContext, build: BuildRecord | None, row: Instance) -> bool:
    """Return True if a sandbox lives longer than was read: its user was told so."""
    if build is None or not build.was_ready or build.finished or build.instance != row.id:
        return False
    now = context.ledger.builds.get(build.id)
    return not now.finished and not sandbox_over(now, context.now(row) - CANCEL_GRACE)
