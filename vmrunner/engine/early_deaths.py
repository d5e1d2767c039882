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
        death = None
        if row.role is Role.IMAGE:
            death = Death.ABANDONED if membership.member_gone(row.owner) else None
        elif row.build is None and row.pool not in readable.unread:
            pool = pools.get(row.pool or "")
            death = lifecycle.pool_death(
                row, pool, forgotten=row.pool in forgotten, instance_now=context.now(row)
            )
        elif row.build is not None and row.build not in unread:
            death = _of_build(context, membership, row, builds.get(row.build))
        if death is not None:
            found[row.id] = death
    return found


def _of_build(
    context: WorkContext, membership: Membership, row: Instance, build: BuildRecord | None
) -> Death | None:
    now = context.clock()
    if build is not None and build.cancel is not None:
        # It is cancelled for at least as long as we saw that, whatever the writer's clock.
        now = max(now, (build.cancelled_at or 0.0) + membership.cancelled_for(build))
    return lifecycle.early_death(
        build,
        row,
        now=now,
        submitter=membership.process_lives(build.submitter if build else None),
        instance_now=context.now(row),
    )
