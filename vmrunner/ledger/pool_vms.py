"""VMs that wait in a pool, and the claim by which a build gets one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.budgets import Admission
from vmrunner.ledger.build_writes import DYING, moved
from vmrunner.ledger.database import Database
from vmrunner.ledger.events import put_event
from vmrunner.ledger.sql import Connection, Statement, case, exists, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts
from vmrunner.ledger.tables import BUILDS, INSTANCES, LEASES, LEDGER, POOL_STARTS
from vmrunner.model import BuildRecord, BuildState, EventKind, Instance, InstanceState, Start

_b, _i, _l, _s = BUILDS.c, INSTANCES.c, LEASES.c, POOL_STARTS.c

_HOLDS = Prepared(
    lambda: select(_l.name).where(
        _l.name.in_([arg("lease"), arg("other")]), _l.holder == arg("holder")
    )
)
_TAKE = Prepared(
    lambda: (
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.pool == arg("pool"),
            _i.build.is_(None),
            _i.state.not_in(DYING),
            _i.owner != arg("owner"),
        )
        .values(epoch=_i.epoch + 1, owner=arg("owner"))
    )
)
_READY = Prepared(
    lambda: (
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.epoch == arg("epoch"),
            _i.build.is_(None),
            _i.state == InstanceState.BOOTING.value,
        )
        .values(state=InstanceState.READY.value, state_since=arg("now"))
    )
)


def _park(before: InstanceState, to: InstanceState) -> Statement:
    return (
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.epoch == arg("epoch"),
            _i.build.is_(None),
            _i.state == before.value,
        )
        .values(
            state=to.value,
            state_since=arg("now"),
            **({"parked_at": arg("now")} if to is InstanceState.PARKED else {}),
        )
    )


_PARK = {
    to: Prepared(partial(_park, before, to))
    for before, to in (
        (InstanceState.READY, InstanceState.PARKING),
        (InstanceState.PARKING, InstanceState.PARKED),
    )
}


def _claim(to: BuildState) -> Statement:
    higher = case((_b.epoch > arg("instance_epoch"), _b.epoch), else_=arg("instance_epoch"))
    return (
        update(BUILDS)
        .where(
            _b.id == arg("id"),
            _b.epoch == arg("epoch"),
            _b.state == BuildState.QUEUED.value,
            _b.cancel.is_(None),
            exists().where(LEDGER.c.generation == arg("generation")),
            ~exists().where(_i.build == _b.id, _i.state.not_in(DYING)),
        )
        .values(
            **moved(to),
            epoch=higher + 1,
            attempt=_b.attempt + 1,
            instance=arg("instance"),
            owner=arg("owner"),
            owner_until=arg("until"),
        )
        .returning(*codec.BUILD, _b.events)
    )


_CLAIM = {
    to: Prepared(partial(_claim, to))
    for to in (BuildState.BOOTING, BuildState.CONNECTING, BuildState.PREPARING)
}
#: What a claim makes of a VM that waits, and of its build.
_CLAIMS: Final = {
    InstanceState.READY: (InstanceState.READY, BuildState.CONNECTING, Start.HOT),
    InstanceState.PARKED: (InstanceState.WAKING, BuildState.BOOTING, Start.PARKED),
}
_CLAIMED = Prepared(
    lambda: (
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.epoch == arg("seen"),
            _i.build.is_(None),
            _i.state == arg("state"),
            _i.deadline >= arg("due"),
        )
        .values(
            state=arg("to"),
            build=arg("build"),
            attempt=arg("attempt"),
            epoch=arg("epoch"),
            owner=arg("owner"),
            state_since=arg("now"),
            start=arg("start"),
            due=arg("due"),
            claimed_at=arg("now"),
        )
        .returning(*codec.INSTANCE)
    )
)
_START = inserts(POOL_STARTS)
_KNOWN = Prepared(lambda: select(_s.build).where(_s.build == arg("build")))


class _Lost(Exception):
    """The VM was another's by then: nothing of the transaction stands."""


def lease(pool: str, place: str = "") -> str:
    """Return the name of the lease that fills a pool at a place (see `PoolPlace`)."""
    return f"pool:{pool}@{place}" if place else f"pool:{pool}"


def fills(connection: Connection, instance: Instance) -> bool:
    """True if its owner holds the lease of its pool, at its host or everywhere, within a
    transaction."""
    pool = instance.pool or ""
    return _HOLDS(
        connection, lease=lease(pool), other=lease(pool, str(instance.scope)),
        holder=instance.owner,
    ).first() is not None  # fmt: skip


class PoolVms:
    """The VMs that wait. `claimed` is called with an instance and its epoch, once a claim is
    durable and before the VM is spoken to."""

    def __init__(self, database: Database, claimed: Callable[[str, int], None]) -> None:
        self._database = database
        self._claimed = claimed

    def take_over(self, name: str, place: str, owner: str, ids: Iterable[str]) -> int:
        """Become the owner of VMs that wait in it, as the holder of its lease at a place; their
        epochs rise, which fences the former one. Returns their number."""

        def work(connection: Connection) -> int:
            held = lease(name, place)
            if _HOLDS(connection, lease=held, other=held, holder=owner).first() is None:
                return 0
            taken = (
                _TAKE(connection, id=instance, pool=name, owner=owner) for instance in sorted(ids)
            )
            return sum(done.rowcount for done in taken)

        return self._database.write(work)

    def ready(self, instance_id: str, *, epoch: int, now: float) -> bool:
        """Note that a VM waits for its build. False: it is another's by now, or it dies."""
        return self._database.write(
            lambda c: _READY(c, id=instance_id, epoch=epoch, now=now).rowcount == 1
        )

    def park(self, instance_id: str, *, epoch: int, to: InstanceState, now: float) -> bool:
        """Move a VM that waits to `parking`, and from there to `parked`. False: it is another's by
        now, or it dies."""
        return self._database.write(
            lambda c: _PARK[to](c, id=instance_id, epoch=epoch, now=now).rowcount == 1
        )

    def claim(
        self,
        build: BuildRecord,
        row: Instance,
        *,
        generation: str,
        owner: str,
        until: float,
        started: float,
        now: float,
        connected: bool = False,
        place: str = "",
    ) -> tuple[BuildRecord, Instance] | None:
        """Give a VM that waits to a queued build, for as long as the build may take: both epochs
        become one, above either. One that is parked has to be woken, and one that is ready
        connected to, unless the owner is `connected`. `now`: the VM's clock; `started`: the
        engines'; `until`: when the owner's claim lapses; `place`: where it is (see `PoolPlace`).

        None: another was faster, the build is to end, the VM has not that much time left, or the
        ledger was set back. Raises OverBudget, and LedgerError when it cannot be remembered: do not
        use the VM."""
        due = now + build.spec.ttl
        if row.state not in _CLAIMS:
            return None
        to, state, start = _CLAIMS[row.state]
        if connected and state is BuildState.CONNECTING:
            state = BuildState.PREPARING

        its = replace(row, build=build.id, due=due, claimed_at=now)

        def work(connection: Connection) -> tuple[BuildRecord, Instance]:
            admission = Admission(connection, self._database, [build.actor], now)
            paid = admission.check(its, build.spec.labels, build.actor, build.tenant)
            phase = codec.phase_text(state, now)
            won = _CLAIM[state](
                connection, id=build.id, epoch=build.epoch, instance_epoch=row.epoch,
                generation=generation, instance=row.id, owner=owner, until=until, now=now,
                phase=phase,
            ).first()  # fmt: skip
            if won is None:
                raise _Lost
            claimed = codec.build(won)
            taken = _CLAIMED(
                connection, id=row.id, seen=row.epoch, build=build.id, attempt=claimed.attempt,
                epoch=claimed.epoch, owner=owner, now=now, start=start.value, due=due,
                state=row.state.value, to=to.value,
            ).first()  # fmt: skip
            if taken is None:
                raise _Lost
            admission.charge(its, *paid)
            put_event(
                connection, build.id, won[-1], EventKind.PHASE, now,
                state=state.value, start=start.value, pool=row.pool,
            )  # fmt: skip
            note_start(connection, build.id, row.pool or "", place, started, hit=True)
            return claimed, codec.instance(taken)

        try:
            claimed = self._database.write(work)
        except _Lost:
            return None
        self._claimed(row.id, claimed[1].epoch)
        return claimed


def note_start(
    connection: Connection, build: str, pool: str, place: str, at: float, *, hit: bool
) -> None:
    """The first start of a build counts: a retry is no arrival."""
    if _KNOWN(connection, build=build).first() is None:
        _START(connection, build=build, pool=pool, place=place, at=at, hit=hit)
