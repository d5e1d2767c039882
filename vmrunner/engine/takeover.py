"""Taking over the builds of engines that are gone.

The new owner may say everything again that the former one said: states, events and log bytes that
are stored already are not stored twice, the VM's supervisor starts an attempt once, and the
identical order makes no second VM.
"""

from __future__ import annotations

from vmrunner.core.lifecycle import cancelled
from vmrunner.engine.completion import BuildCompletion
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.engine.snapshot import Snapshot
from vmrunner.model import BuildRecord, BuildState, InstanceState


def take_over(context: EngineContext, completion: BuildCompletion, snapshot: Snapshot) -> None:
    """Become the owner of every build whose owner is gone and whose VM we may act on, or that has
    none any more. One whose VM is out of our reach ends here when that is wished: its VM dies when
    somebody reaches it."""
    for build in snapshot.orphaned:
        if build.state is BuildState.QUEUED:
            continue
        with context.guard("take over", build.id):
            if build.instance in snapshot.rows or _has_no_vm(context, snapshot, build):
                _take(context, snapshot, build)
                continue
            row = snapshot.everybody.get(build.instance or "")
            if build.cancel is not None and row is not None:
                completion.finish(build, cancelled(build.cancel), row=row)
                del snapshot.builds[build.id]


def _has_no_vm(context: EngineContext, snapshot: Snapshot, build: BuildRecord) -> bool:
    """Return True if it has no VM any more. Then whoever sees that its owner is gone may end it, or
    queue it again, whether or not it has the build's provider: that may have another name by
    now."""
    if build.instance in snapshot.unread or build.instance in snapshot.everybody:
        return False
    if build.spec.provider in context.providers:
        return True
    row = context.ledger.instances.get(build.instance or "")
    return row.state is InstanceState.GONE  # else it was born after the rows were read


def _take(context: EngineContext, snapshot: Snapshot, build: BuildRecord) -> None:
    taken = context.ledger.builds.take_over(
        build.id,
        seen_epoch=build.epoch,
        owner=context.id,
        until=context.clock() + MEMBER_LEASE,
        now=context.clock(),
    )
    if taken is None:
        del snapshot.builds[build.id]
        snapshot.mine.pop(build.instance or "", None)
        return
    log.info("took over %s from %s", build.id, build.owner)
    snapshot.builds[build.id] = taken
    snapshot.restless.add(build.id)
    if taken.instance in snapshot.rows:
        snapshot.update(context.ledger.instances.get(taken.instance))
