"""Pools: their rows, the VMs that wait in them, and the claim by which a build gets one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, case, delete, exists, func, or_, select, update

from vmrunner.core.pools import shape_of
from vmrunner.ledger import rows as codec
from vmrunner.ledger.actions import add_action
from vmrunner.ledger.build_writes import DYING, moved
from vmrunner.ledger.database import Database, Prepared, arg, inserts
from vmrunner.ledger.events import put_event
from vmrunner.ledger.tables import BUILDS, INSTANCES, LEASES, LEDGER, POOL_STARTS, POOLS
from vmrunner.model import (
    BuildRecord,
    BuildState,
    EmptyReason,
    EventKind,
    Instance,
    InstanceState,
    Pool,
    PoolSpec,
    Start,
)

_b, _i, _p, _l, _s = BUILDS.c, INSTANCES.c, POOLS.c, LEASES.c, POOL_STARTS.c

_ROWS = Prepared(
    select(
        _p.spec, _p.shape, _p.revision, _p.size, _p.draining, _p.named_at, _p.empty_reason,
        _p.want,
    ).order_by(_p.name)
)  # fmt: skip
_SPEC = Prepared(select(_p.spec, _p.revision).where(_p.name == arg("name")))
_NEW = inserts(POOLS)
_REVISE = Prepared(
    update(POOLS)
    .where(_p.name == arg("name"), _p.revision == arg("seen"))
    .values(
        spec=arg("spec"), shape=arg("shape"), revision=_p.revision + 1, size=None, draining=False,
        named_at=arg("now"),
    )
)  # fmt: skip
_NAMED = Prepared(update(POOLS).where(_p.name == arg("name")).values(named_at=arg("now")))
_RESIZE = Prepared(
    update(POOLS).where(_p.name == arg("name")).values(size=arg("size"), draining=False)
)
_DRAIN = Prepared(update(POOLS).where(_p.name == arg("name")).values(draining=True))
_NOTE = Prepared(
    update(POOLS).where(_p.name == arg("name")).values(want=arg("want"), empty_reason=arg("reason"))
)
_FORGET = Prepared(
    delete(POOLS).where(
        _p.name == arg("name"),
        _p.named_at < arg("before"),
        ~exists().where(_i.pool == _p.name, _i.build.is_(None), _i.state.not_in(DYING)),
    )
)
_HOLDS = Prepared(select(_l.name).where(_l.name == arg("lease"), _l.holder == arg("holder")))
_TAKE = Prepared(
    update(INSTANCES)
    .where(
        _i.pool == arg("pool"),
        _i.build.is_(None),
        _i.state.not_in(DYING),
        _i.owner != arg("owner"),
    )
    .values(epoch=_i.epoch + 1, owner=arg("owner"))
)
_READY = Prepared(
    update(INSTANCES)
    .where(
        _i.id == arg("id"),
        _i.epoch == arg("epoch"),
        _i.build.is_(None),
        _i.state == InstanceState.BOOTING.value,
    )
    .values(state=InstanceState.READY.value, state_since=arg("now"))
)
_PARK = {
    to: Prepared(
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.epoch == arg("epoch"),
            _i.build.is_(None),
            _i.state == before.value,
        )
        .values(state=to.value, state_since=arg("now"))
    )
    for before, to in (
        (InstanceState.READY, InstanceState.PARKING),
        (InstanceState.PARKING, InstanceState.PARKED),
    )
}
_HIGHER = case((_b.epoch > arg("instance_epoch"), _b.epoch), else_=arg("instance_epoch"))
_CLAIM = {
    to: Prepared(
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
            epoch=_HIGHER + 1,
            attempt=_b.attempt + 1,
            instance=arg("instance"),
            owner=arg("owner"),
            owner_until=arg("until"),
        )
        .returning(*codec.BUILD, _b.events)
    )
    for to in (BuildState.BOOTING, BuildState.CONNECTING)
}
#: What a claim makes of a VM that waits, and of its build.
_CLAIMS: Final = {
    InstanceState.READY: (InstanceState.READY, BuildState.CONNECTING, Start.HOT),
    InstanceState.PARKED: (InstanceState.WAKING, BuildState.BOOTING, Start.PARKED),
}
_CLAIMED = Prepared(
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
_START = inserts(POOL_STARTS)
_KNOWN = Prepared(select(_s.build).where(_s.build == arg("build")))
_COUNTS = Prepared(
    select(_s.pool, func.count(), func.sum(case((_s.hit, 1), else_=0)))
    .where(_s.at >= arg("since"))
    .group_by(_s.pool)
)
_STARTS = Prepared(
    select(_s.at).where(_s.pool == arg("pool"), _s.at > arg("after")).order_by(_s.at)
)
_SERVED = Prepared(
    select(_b.phases)
    .where(_b.id == _s.build, _s.pool == arg("pool"), _s.hit, _s.at >= arg("since"))
    .order_by(_s.at.desc())
    .limit(1000)
)
_ROWS_SINCE = Prepared(
    select(*codec.INSTANCE).where(
        _i.pool == arg("pool"), or_(_i.gone_at.is_(None), _i.gone_at >= arg("since"))
    )
)
_STORED = Prepared(select(_p.arrivals).where(_p.name == arg("name")))
_STORE = Prepared(update(POOLS).where(_p.name == arg("name")).values(arrivals=arg("arrivals")))
_OLD_STARTS = Prepared(delete(POOL_STARTS).where(_s.at < arg("before")))


class StartCounts(NamedTuple):
    """Builds that a pool is for: how many came, and how many of them got a VM of it."""

    builds: int = 0
    hits: int = 0


class _Lost(Exception):
    """The VM was another's by then: nothing of the transaction stands."""


def lease(pool: str) -> str:
    """Return the name of the lease that fills a pool."""
    return f"pool:{pool}"


def fills(connection: Connection, instance: Instance) -> bool:
    """True if its owner holds the lease of its pool, within a transaction."""
    name = lease(instance.pool or "")
    return _HOLDS(connection, lease=name, holder=instance.owner).first() is not None


class Pools:
    """The pools of this ledger. `claimed` is told an instance and its epoch, once a claim is
    durable and before anybody speaks to the VM."""

    def __init__(self, database: Database, claimed: Callable[[str, int], None]) -> None:
        self._database = database
        self._claimed = claimed

    # --- the rows ---

    def all(self) -> Sequence[Pool]:
        """Return all pools, by name."""
        return self._database.read(lambda c: [_pool(row) for row in _ROWS(c).all()])

    def declare(self, wanted: Mapping[str, PoolSpec], actor: str, now: float) -> None:
        """Take over a configuration, by name. A pool that differs from what is stored gets the next
        revision, which ends a size that was wished."""

        def work(connection: Connection) -> None:
            for name, spec in sorted(wanted.items()):
                text = codec.pool_spec_text(spec)
                row = _SPEC(connection, name=name).first()
                if row is None:
                    _NEW(
                        connection, name=name, spec=text, shape=shape_of(spec), revision=1,
                        size=None, draining=False, named_at=now, want=None, empty_reason=None,
                        arrivals="{}",
                    )  # fmt: skip
                elif row[0] != text:
                    _REVISE(
                        connection, name=name, seen=row[1], spec=text, shape=shape_of(spec), now=now
                    )
                else:
                    continue
                add_action(connection, actor, "configure", lease(name), now)

        if wanted:
            self._database.write(work)

    def name(self, names: Iterable[str], now: float) -> None:
        """Say that a `serve` which lives has these in its configuration."""
        listed = sorted(names)
        if listed:
            self._database.write(lambda c: [_NAMED(c, name=name, now=now) for name in listed])

    def resize(self, name: str, size: int, actor: str, now: float) -> bool:
        """Wish another size, until the configuration changes. False: there is no such pool."""

        def write(connection: Connection) -> Any:
            return _RESIZE(connection, name=name, size=size)

        return self._wish(name, actor, f"resize to {size}", now, write)

    def drain(self, name: str, actor: str, now: float) -> bool:
        """End all its VMs that wait, and make none, until the configuration changes or it is
        resized. False: there is no such pool."""
        return self._wish(name, actor, "drain", now, lambda c: _DRAIN(c, name=name))

    def note(self, name: str, want: int, empty: EmptyReason | None) -> None:
        """Note what it is to have now, and why no VM of it is ready; None: one is."""
        reason = None if empty is None else empty.value
        self._database.write(lambda c: _NOTE(c, name=name, want=want, reason=reason))

    def forget(self, name: str, before: float) -> None:
        """Forget a pool that nobody has named since then and that has no VM left."""
        self._database.write(lambda c: _FORGET(c, name=name, before=before))

    # --- its VMs ---

    def take_over(self, name: str, owner: str) -> int:
        """Become the owner of the VMs that wait in it, as the holder of its lease; their epochs
        rise, which fences the former one. How many there were."""

        def work(connection: Connection) -> int:
            if _HOLDS(connection, lease=lease(name), holder=owner).first() is None:
                return 0
            return _TAKE(connection, pool=name, owner=owner).rowcount

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
        now: float,
    ) -> tuple[BuildRecord, Instance] | None:
        """Give a VM that waits to a queued build, for as long as the build may take: both epochs
        become one, above either. One that is parked has to be woken. `now`: the VM's clock;
        `until`: when the owner's claim lapses.

        None: somebody was faster, the build is to end, the VM has not that much time left, or the
        ledger was set back. Raises LedgerError when it cannot be remembered: do not use the VM."""
        due = now + build.spec.ttl
        if row.state not in _CLAIMS:
            return None
        to, state, start = _CLAIMS[row.state]

        def work(connection: Connection) -> tuple[BuildRecord, Instance]:
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
            put_event(
                connection, build.id, won[-1], EventKind.PHASE, now,
                state=state.value, start=start.value, pool=row.pool,
            )  # fmt: skip
            _note_start(connection, build.id, row.pool or "", build.created_at, hit=True)
            return claimed, codec.instance(taken)

        try:
            claimed = self._database.write(work)
        except _Lost:
            return None
        self._claimed(row.id, claimed[1].epoch)
        return claimed

    # --- what came of it ---

    def missed(self, builds: Sequence[tuple[BuildRecord, str]]) -> None:
        """Note builds that a pool is for and that had to be started without it."""

        def work(connection: Connection) -> None:
            for build, pool in builds:
                _note_start(connection, build.id, pool, build.created_at, hit=False)

        if builds:
            self._database.write(work)

    def counts(self, since: float) -> dict[str, StartCounts]:
        """Return what came to each pool since that time."""
        rows = self._database.read(lambda c: _COUNTS(c, since=since).all())
        return {name: StartCounts(builds, hits or 0) for name, builds, hits in rows}

    def arrivals(self, name: str, after: float) -> Sequence[float]:
        """Return when builds that it is for were submitted, after that time, in order."""
        return self._database.read(
            lambda c: [r[0] for r in _STARTS(c, pool=name, after=after).all()]
        )

    def served(self, name: str, since: float) -> Sequence[float]:
        """Return how long builds that got a VM of it took from queued to their first step, in
        seconds, the latest 1000 since that time."""
        rows = self._database.read(lambda c: _SERVED(c, pool=name, since=since).all())
        spans = []
        for (text,) in rows:
            moves = dict(line.split(" ") for line in text.splitlines())
            if BuildState.QUEUED in moves and BuildState.RUNNING in moves:
                spans.append(float(moves[BuildState.RUNNING]) - float(moves[BuildState.QUEUED]))
        return spans

    def stored_arrivals(self, name: str) -> str:
        """Return what was folded of the arrivals so far, JSON; "{}": nothing yet."""
        return self._database.read(lambda c: _STORED(c, name=name).scalar()) or "{}"

    def store_arrivals(self, name: str, arrivals: str) -> None:
        """Keep what was folded of the arrivals, JSON."""
        self._database.write(lambda c: _STORE(c, name=name, arrivals=arrivals))

    def instances(self, name: str, since: float) -> Sequence[Instance]:
        """Return its VMs, claimed or not, that were not gone by that time."""
        rows = self._database.read(lambda c: _ROWS_SINCE(c, pool=name, since=since).all())
        return codec.readable(codec.instance, rows)

    def forget_starts(self, before: float) -> int:
        """Forget what came to the pools before that time; how many builds."""
        return self._database.write(lambda c: _OLD_STARTS(c, before=before).rowcount)

    # --- within ---

    def _wish(
        self, name: str, actor: str, verb: str, now: float, write: Callable[[Connection], Any]
    ) -> bool:
        def work(connection: Connection) -> bool:
            if not write(connection).rowcount:
                return False
            add_action(connection, actor, verb, lease(name), now)
            return True

        return self._database.write(work)


def _note_start(connection: Connection, build: str, pool: str, at: float, *, hit: bool) -> None:
    """The first start of a build counts: a retry is no arrival."""
    if _KNOWN(connection, build=build).first() is None:
        _START(connection, build=build, pool=pool, at=at, hit=hit)


def _pool(row: Sequence[Any]) -> Pool:
    return Pool(
        spec=codec.pool_spec_from(row[0]),
        shape=row[1],
        revision=row[2],
        size=row[3],
        draining=bool(row[4]),
        named_at=row[5],
        empty_reason=EmptyReason(row[6]) if row[6] else None,
        want=row[7],
    )
