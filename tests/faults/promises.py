"""What must be true at every moment of a fault world."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from tests.faults.broken import Broken
from tests.faults.cloud_side import CloudResource, CloudSide, OrderView, with_order
from tests.faults.node import LOG, Node
from tests.faults.store_side import MemoryStore, log_of
from vmrunner.core.lifecycle import CANCEL_GRACE, FORGOTTEN, POOL_BOOT
from vmrunner.core.pools import shape_of
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.errors import NotFound
from vmrunner.model import (
    TAG,
    BuildRecord,
    BuildState,
    Death,
    Instance,
    InstanceState,
    Kind,
    Power,
    Ref,
    Result,
    Scope,
)

if TYPE_CHECKING:
    from vmrunner.engine.context import EngineLimits
    from vmrunner.ledger import Ledger
    from vmrunner.model import Process
    from vmrunner.providers.fake import Clock


#: Steps of a world in which what one read is told to all.
SLACK = 10.0
_WAITS = (InstanceState.READY, InstanceState.PARKED)
_WORKS = (InstanceState.BUSY, InstanceState.HELD)
_DYING = (InstanceState.DELETING, InstanceState.GONE)

#: The webhook of every world, which takes nothing.
WEBHOOK = "everything"


class LastLife(NamedTuple):
    """What a VM was when it was last seen to live, and whether there was a reason then for one of
    a pool to go that is not in its row."""

    row: Instance
    surplus: bool


class Promises:
    """Checks of the promises, over what a world is."""

    clock: Clock
    cloud: CloudSide
    store: MemoryStore
    truth: Ledger
    limits: EngineLimits
    many_hosts: bool
    nodes: list[Node]
    kills: list[str]
    broken: BaseException | None
    started: Counter[tuple[str, int]]
    unseen: set[Kind]  # what may not be listed now: only a VM's row ends that
    sandboxes: set[str]
    lagging: set[str]  # builds and VMs of which a standby that took over lacked something
    refused: set[str]  # VMs of which a cloud said that it makes none
    trouble: float  # when the cloud last could not be reached by anybody …
    out: dict[Scope, float]  # … or one of its scopes
    untold: float  # … or the ledger
    cut: dict[Scope, float]  # … or that from one of the hosts
    overrun: dict[Ref, float]  # seconds past E, of all VMs that were alive then
    sweep_seconds: float
    _last: dict[str, LastLife]  # of VMs that were not told to die then
    _named: dict[str, float]  # when a process that lives had a pool in its configuration
    _freed: dict[Ref, float]  # when what a late thing hangs on was last there

    def alive(self, process: Process) -> bool:
        raise NotImplementedError

    def standing(self) -> list[CloudResource]:
        raise NotImplementedError

    def check(self, *, survivors: bool = True) -> None:
        """Promises 1, 3 and 5, now."""
        if self.broken is not None:
            raise self.broken
        standing = self.standing()
        alive = [m for m in with_order(standing) if m.alive]
        if survivors:
            self._check_belongings(standing)
            for machine in alive:
                self._check_survivor(machine)
        rows = {r.id: r for r in self.truth.instances.these([m.order.instance for m in alive])}
        self._note_lives(rows.values())
        lives: Counter[str] = Counter()
        for machine in alive:
            row = rows.get(machine.order.instance)
            if row is None:
                continue  # the ledger was lost
            late = row.gone_at is not None and machine.created_at >= row.gone_at
            # Of a VM that shows no name nobody knows that it is the one that was asked for.
            unknown = row.ref is None and not getattr(self.cloud, "shows_names", True)
            if row.state is InstanceState.GONE and not late and not unknown:
                raise Broken(f"5 gone means seen dead: {row.id} is alive, its row is closed")
            if row.state not in (InstanceState.DELETING, InstanceState.GONE):
                lives[row.build or row.id] += 1
        for build, count in lives.items():
            if count > 1 and build not in self.lagging:
                raise Broken(f"3 no double: {count} machines live for {build}")
        for (build, attempt), count in self.started.items():
            if count > 1 and build not in self.lagging:
                raise Broken(f"3 no double: attempt {attempt} of {build} was started {count} times")

    def _note_lives(self, rows: Iterable[Instance]) -> None:
        """Remember what lives, so that no kill is judged by what the killer wrote."""
        for node in self.nodes:
            if isinstance(node, Node) and not (node.dead or node.asleep):
                self._named |= dict.fromkeys(node.engine.context.pools, self.clock())
        living = [row for row in rows if row.state not in _DYING]
        pooled = [row for row in living if row.pool is not None]
        pools = {pool.name: pool for pool in self.truth.pools.all()} if pooled else {}
        full = bool(pooled) and self._is_full()
        for row in living:
            pool = pools.get(row.pool or "")
            surplus = full
            if pool is not None and row.build is None:
                size = pool.size if pool.size is not None else pool.spec.size
                its = [r for r in pooled if (r.pool, r.scope) == (row.pool, row.scope)]
                # What a build has just claimed was one of those that were too many.
                now = self.cloud.time_at(row.scope)
                free = [r for r in its if r.build is None or now - (r.claimed_at or 0.0) < SLACK]
                surplus = full or size is None or len(free) > size
            before = self._last.get(row.id)
            recent = before is not None and before.surplus and row.build is None
            self._last[row.id] = LastLife(row, surplus or recent)

    def _is_full(self) -> bool:
        """True if a build waits and there is no place, but for the one that may be kept for builds
        whose machine is refused."""
        most = self.limits.limits.max_instances - 1
        return bool(self.truth.builds.queued(1)) and len(self.truth.instances.open()) >= most

    def _pool_ends(self, row: Instance) -> bool:
        """True if a pool had a reason to end a VM that waited in it: what the row says of its own
        end is not asked."""
        last = self._last.get(row.id)
        if last is None or last.row.state not in _WAITS:
            return True  # it never was ready: whether it may take that long is not judged here
        pool = next((p for p in self.truth.pools.all() if p.name == row.pool), None)
        if pool is None or pool.draining or row.shape != shape_of(pool.spec, self._generation()):
            return True
        forgotten = self.clock() > self._named.get(pool.name, -math.inf) + FORGOTTEN
        idle = self.cloud.time_at(row.scope) >= row.created_at + pool.spec.idle + POOL_BOOT - SLACK
        dear = pool.spec.usd_per_day is not None
        size = pool.size if pool.size is not None else pool.spec.size
        rows = self.truth.instances.open()
        its = [r for r in rows if (r.pool, r.scope, r.build) == (row.pool, row.scope, None)]
        enough = size is None or sum(r.state not in _DYING for r in its) >= size
        return forgotten or idle or dear or enough or last.surplus or self._is_full()

    def _generation(self) -> str:
        """The ledger's generation as it is now: who sees that it was set back draws another."""
        query = "SELECT generation FROM ledger"
        return self.truth._database.read(lambda c: str(c.exec_driver_sql(query).scalar_one()))

    def _was_slow(self, row: Instance) -> bool:
        """True if a VM was given up as stuck that did not work yet, and had its time for that."""
        last = self._last.get(row.id)
        limits = self.limits.limits
        least = min(limits.requested, limits.booting, limits.ready, limits.parking, limits.waking)
        begun = row.claimed_at or row.created_at
        worked = last is not None and last.row.state in _WORKS
        return (
            row.death is Death.STUCK
            and not worked
            and self.cloud.time_at(row.scope) - begun >= least - SLACK
        )

    def check_told(self) -> None:
        """Every build that ended is to be told, once."""
        ended = sorted(b.id for b in self.truth.builds.list() if b.result is not None)
        announced = sorted(
            e.subject for e in self.truth.outbox.waiting(WEBHOOK, self.clock(), 10**6)
        )
        if ended != announced:
            raise Broken(f"ended: {ended}; to be told: {announced}")

    def _check_survivor(self, machine: CloudResource) -> None:
        """Promise 1, of a VM that was asked for. A sandbox's own time ends it too, at the latest by
        a reaper; inside E a delete that failed has its pause before the next."""
        order = machine.order
        assert order is not None
        if order.build in self.sandboxes:
            build = self.truth.builds.get(order.build)
            # No other place than the ledger tells that time.
            over = (build.hold_until or math.inf) + CANCEL_GRACE
            untold = max(self.untold, self.cut.get(machine.ref.scope, 0.0))
            over = max(over, untold + self._skew(machine))
            if build.instance == order.instance and self.cloud.time_at(machine.ref.scope) > over:
                pause = self.truth.instances.get(order.instance).delete_at
                self._in_time(machine, max(over, pause), order.instance)
        if self.cloud.time_at(machine.ref.scope) > order.deadline:
            self._in_time(machine, order.deadline, order.instance)

    def _check_belongings(self, standing: list[CloudResource]) -> None:
        """Promise 1, of what came with a VM: nothing can end it while that is there, and where it
        outlives that, only a sweep shows it: G counts from the next one."""
        late = [
            (thing, expires)
            for thing in standing
            if thing.born_of_us and thing.order is None and thing.alive
            if thing.ref.kind not in self.unseen
            for expires in [float(thing.tags.get(f"{TAG}expires-at", "inf"))]
            if self.cloud.time_at(thing.ref.scope) > expires
        ]
        if not late:
            return
        instances = {m.tags.get(f"{TAG}instance") for m in standing if m.ref.kind is Kind.INSTANCE}
        for thing, expires in late:
            name = thing.tags.get(f"{TAG}instance")
            if name in instances:
                self._freed[thing.ref] = self.cloud.time_at(thing.ref.scope)
            else:
                out = self.out.get(thing.ref.scope, -math.inf) + self._skew(thing)
                freed = max(expires, self._freed.get(thing.ref, 0.0), out)
                self._in_time(thing, freed + self.sweep_seconds, str(thing.ref))

    def _in_time(self, thing: CloudResource, begun: float, name: str) -> None:
        """G counts from E, from the thing's birth when a request came later still, from when there
        was somebody to reap and a cloud to be reached, or from when an accepted delete came to
        nothing."""
        awake = (n for n in self.nodes if not n.dead and not n.asleep and n.reaps)
        reaping = [n.awake_since for n in awake if n.host.reaches(thing.ref.scope)]
        trouble = max(self.trouble, self.out.get(thing.ref.scope, 0.0))
        since = max(min(reaping, default=self.clock()), trouble) + self._skew(thing)
        begun = max(begun, since, thing.created_at, thing.reverted_at or 0.0)
        late = self.cloud.time_at(thing.ref.scope) - begun
        if thing.ref.kind is Kind.INSTANCE:
            self.overrun[thing.ref] = max(self.overrun.get(thing.ref, 0.0), late)
        if late > self.limits.limits.grace:
            raise Broken(f"1 no survivor: {name} is alive past its deadline")

    def _skew(self, thing: CloudResource) -> float:
        """Return what the clock of a thing's deadline is ahead by."""
        return self.cloud.time_at(thing.ref.scope) - self.clock()

    def _check_intent(self, instance: str) -> None:
        """Promise 4: the row, with its order, is durable before the cloud is asked."""
        try:
            row = self.truth.instances.get(instance)
            if row.state is InstanceState.GONE:
                return  # it was there; the request is late
            order = self.truth.instances.order(instance)
        except NotFound as error:
            if instance in self.lagging:
                return  # it was durable, where the primary was
            raise Broken(f"4 intent before effect: {error}") from error
        if order.deadline != row.deadline or order.instance != row.id:
            raise Broken("4 intent before effect: another order")

    def _check_kill(self, ref: Ref) -> None:
        """Promise 2: nothing is deleted that should live."""
        machine = self.cloud.machines.get(ref)
        if machine is None or machine.power is Power.DEAD:
            return
        self.kills.append(ref.id)
        if machine.tags.get("vmrunner:installation") != self.truth.installation:
            raise Broken(f"2 no murder: {ref.id} is another's")
        order = machine.order
        if order is None or self.cloud.time_at(ref.scope) > order.deadline:
            return
        ended = machine.stopped or machine.preempted
        if not ended and not self._condemned(machine, order):
            raise Broken(f"2 no murder: {ref.id} of {order.build} was to live")

    def _condemned(self, machine: CloudResource, order: OrderView) -> bool:
        """Did somebody with a right to it wish its end, inside its deadline?"""
        try:
            row: Instance = self.truth.instances.get(order.instance)
        except NotFound:
            return False  # of another generation: it lives until E
        if row.id in self.lagging:
            return True  # its end may have been decided before
        now = self.cloud.time_at(machine.ref.scope)
        if now > row.end:
            return True  # the end that its build gave it
        if row.death is not None and row.death.value == "expired":
            return False  # somebody thinks so, and it is not
        if row.build is None:
            return self._pool_ends(row)
        build = self.truth.builds.get(row.build)
        # Submitters of these worlds never beat: on another host one is gone after a lease.
        silent = self.many_hosts and self.clock() >= build.created_at + MEMBER_LEASE
        unheard = silent and row.death is Death.ABANDONED
        orphaned = build.submitter is not None and (unheard or not self.alive(build.submitter))
        held = build.hold_until is not None and now < build.hold_until
        sandbox_over = build.was_ready and not held
        return (
            (build.state is BuildState.HELD and not held)
            or sandbox_over
            or build.finished
            or build.cancel is not None
            or orphaned
            or self._was_slow(row)
            or build.instance != order.instance
            or (row.ref is not None and row.ref != machine.ref)
            # Of a request before the one that was refused: born late, and no build has it.
            or (row.ref is None and row.id in self.refused)
        )

    def check_log(self, build: BuildRecord) -> None:
        """Promise 6, in part: a build that succeeded has its log, whole and once. A sandbox that a
        reaper ended has as much of it as its owner took."""
        if build.spec.sandbox_ttl is not None or build.id in self.lagging:
            return
        log, done = log_of(self.truth, self.store, build), self.truth.builds.get(build.id)
        twice = len(log) > done.attempt * len(LOG)
        if twice or (done.result is Result.SUCCESS and not log.endswith(LOG)):
            raise Broken(f"6 no forgotten line: {build.id} has {log!r}")
