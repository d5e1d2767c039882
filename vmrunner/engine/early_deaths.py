"""The early deaths of instances: the rule of `lifecycle` over many rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from vmrunner.core import lifecycle
from vmrunner.engine.context import WorkContext
from vmrunner.engine.membership import Membership
from vmrunner.ledger.row_reading import Readable
from vmrunner.model import DYING, BuildRecord, Death, Instance, Pool, Role


def early_deaths(
    context: WorkContext,
    membership: Membership,
    rows: Iterable[Instance],
    builds: Mapping[str, BuildRecord],
    unread: Collection[str],
) -> dict[str, Death]:
    """Authorised deaths by instance id. `unread`: builds that cannot be read: whether one of those
    ended is unknown, as it is of a pool whose row cannot be read."""
    found = {}
    listed = [row for row in rows if row.state not in DYING]
    readable: Readable[Pool] = Readable()
    if any(row.role is Role.POOL and row.build is None for row in listed):
        readable = context.ledger.pools.all()
    pools = {pool.name: pool for pool in readable}
    forgotten = {pool.name for pool in readable if membership.pool_forgotten(pool)}
    for row in listed:
        if row.role is Role.IMAGE:
            if membership.member_gone(row.owner):
                found[row.id] = Death.ABANDONED
            continue
        if row.build is None and row.pool in readable.unread:
            continue
        if row.build is None:
            pool = pools.get(row.pool or "")
            death = lifecycle.pool_death(
                row, pool, forgotten=row.pool in forgotten, instance_now=context.now(row)
            )
            if death is not None:
                found[row.id] = death
            continue
        if row.build in unread:
            continue
        build = builds.get(row.build)
        now = context.clock()
        if build is not None and build.cancel is not None:
            # It is cancelled for at least as long as we saw that, whatever the writer's clock.
            now = max(now, (build.cancelled_at or 0.0) + membership.cancelled_for(build))
        death = lifecycle.early_death(
            build,
            row,
            now=now,
            submitter=membership.process_lives(build.submitter if build else None),
            instance_now=context.now(row),
        )
        if death is not None:
            found[row.id] = death
    return found
