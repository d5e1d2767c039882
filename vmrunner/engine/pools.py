"""Pools: filled, warmed, claimed and drained by an engine.

Every engine claims VMs for its builds. Those that have pools in their configuration, `serve`, also
fill them: each pool by the holder of its lease. What a pool's VM must die of beside that is the
reaper's: its deadline, a pool that no configuration names any more (`lifecycle.pool_death`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from vmrunner.core import pools as rules
from vmrunner.core import requirements
from vmrunner.core.lifecycle import ENDED, FORGOTTEN, SCARCE, End, InstanceSign
from vmrunner.core.scheduling import ANYWHERE, Offers, PlannedClaim, SchedulingPlan
from vmrunner.engine import lifecycle_log
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.launcher import Launcher
from vmrunner.engine.leases import LeaseTaker
from vmrunner.engine.membership import MEMBER_LEASE, Membership
from vmrunner.engine.pool_offers import PoolMachines, PoolOffers
from vmrunner.engine.pool_sizes import PoolSizer
from vmrunner.engine.pool_troubles import PoolTrouble, PoolTroubles
from vmrunner.engine.pool_warm_ups import PoolWarmUps, WarmedVm, WarmUps
from vmrunner.engine.sessions import SessionManager, Spawn
from vmrunner.engine.snapshot import Snapshot
from vmrunner.errors import BadOrder, OverBudget, ProviderError
from vmrunner.ledger.pool_vms import lease
from vmrunner.lib.change_watch import ChangeWatch
from vmrunner.model import (
    DYING,
    BuildRecord,
    Death,
    EmptyReason,
    Instance,
    InstanceState,
    Pool,
    PoolKind,
    PoolPlace,
    PoolSpec,
    Reason,
    Role,
    Seen,
)
from vmrunner.providers import ShowsGuardedRoles

POOL_LEASE: Final = 30.0  # seconds that the right to fill a pool lasts
RENEW: Final = 10.0
NAMED: Final = 60.0  # seconds between notes that we have these pools
GUARD_CHECK: Final = 300.0  # seconds between questions which roles the installed guard ends
GUARD_RETRY: Final = 15.0  # … after the cloud did not answer that
UNPARKABLE_WAIT: Final = 600.0  # … until another is made after one that could not be parked

_WAITING: Final = (InstanceState.READY, InstanceState.PARKED)
_REASONS: Final = {
    Reason.NO_CAPACITY: EmptyReason.CAPACITY,
    Reason.QUOTA: EmptyReason.CAPACITY,
    Reason.CREDENTIALS: EmptyReason.CREDENTIALS,
    Reason.BUDGET: EmptyReason.BUDGET,
}


class PoolManager:
    """The pools of one engine. Used by the tick's thread alone, but for warm-ups."""

    def __init__(
        self,
        context: EngineContext,
        membership: Membership,
        launcher: Launcher,
        sessions: SessionManager,
        warm_ups: WarmUps | None,
        spawn: Spawn,
    ) -> None:
        self._context = context
        self._membership = membership
        self._launcher = launcher
        self._sessions = sessions
        self._warm_ups = PoolWarmUps(context, warm_ups, spawn)
        self._pools: dict[str, Pool] = {}
        self._declared: Mapping[str, PoolSpec] | None = None
        self._named_at = float("-inf")  # monotonic
        self._named: ChangeWatch[str] = ChangeWatch(FORGOTTEN)  # by any `serve` that lives
        self._leases: dict[str, tuple[bool, float]] = {}  # name → ours, asked at (monotonic)
        self._noted: dict[str, float] = {}  # pool → when its state was written last (monotonic)
        self._troubles = PoolTroubles()
        self._stuck: set[str] = set()  # VMs that were given up, and noted as a failure
        self._taker = LeaseTaker(
            context.ledger, context.id, POOL_LEASE,
            clock=context.clock, monotonic=context.monotonic,
        )  # fmt: skip
        self._sizes = PoolSizer(context)
        self._offers = PoolOffers()
        self._guarded: dict[str, tuple[bool, float]] = {}  # pool → it may be filled, asked at

    @property
    def fills(self) -> bool:
        """True if this engine fills pools."""
        return bool(self._context.pools)

    def close(self) -> None:
        """Let go of connections and leases; the VMs wait for the next engine."""
        self._warm_ups.close()
        for name, (ours, _) in self._leases.items():
            if ours:
                with self._context.guard("release a pool"):
                    self._taker.release(name)

    # --- what builds get ---

    def read(self) -> None:
        """Read the pools, and say which are in our configuration, and what budgets are: before a VM
        is given away."""
        context = self._context
        context.declare_budgets()
        if context.pools and self._declared is not context.pools:
            context.ledger.pools.declare(context.pools, context.id, context.clock())
            self._named_at = float("-inf")
        self._declared = context.pools
        if context.pools and context.monotonic() - self._named_at >= NAMED:
            context.ledger.pools.name(context.pools, context.clock())
            self._named_at = context.monotonic()
        generation = context.ledger.generation
        self._pools = {
            pool.name: replace(pool, shape=rules.shape_of(pool.spec, generation))
            for pool in context.ledger.pools.all()
        }
        for pool in self._pools.values():
            self._named.look(pool.name, pool.named_at, context.monotonic())
        self._named.keep(self._pools)

    def claimable(
        self, snapshot: Snapshot, offers: Offers
    ) -> Callable[[BuildRecord], Instance | None]:
        """A function that finds a VM for a build; it gives no VM twice."""
        free = sorted(
            (r for r in snapshot.rows.values() if r.build is None and r.pool in self._pools),
            key=lambda row: (row.created_at, row.id),
        )

        def find(build: BuildRecord) -> Instance | None:
            pools = [p for p in self._pools.values() if rules.serves(p.spec, build.spec)]
            if not pools or not free:
                return None
            machine = requirements.machine(build.spec)
            found = self._offers.would_get(offers, build.spec.provider, machine)
            for row in free:
                now = self._context.now(row)
                fits = any(rules.claimable(row, p, build.spec, found, now) for p in pools)
                if fits and self._has_its_bytes(row, build):
                    free.remove(row)
                    return row
            return None

        return find

    def _has_its_bytes(self, row: Instance, build: BuildRecord) -> bool:
        """False if the build ran other bytes under that tag before."""
        pinned = self._context.ledger.instances.container(build.id)
        return pinned in (None, row.container)

    def claim(self, claims: Iterable[PlannedClaim]) -> None:
        """Give VMs to builds, and drive them there."""
        context = self._context
        for planned in claims:
            with context.guard("claim", planned.build.id):
                row = planned.instance
                try:
                    won = context.ledger.pools.claim(
                        planned.build, row, generation=context.ledger.generation, owner=context.id,
                        until=context.clock() + MEMBER_LEASE, started=context.clock(),
                        now=context.now(row), connected=self._warm_ups.is_connected(row.id),
                        place=context.place_of(row.provider),
                    )  # fmt: skip
                except OverBudget as error:
                    self._launcher.over_budget(planned.build, row, error)
                    continue
                if won is not None:
                    lifecycle_log.claimed(*won)
                # One that is parked is woken first.
                if won is not None and won[1].state is InstanceState.READY:
                    self._sessions.start(*won, self._warm_ups.connection(row.id))

    def missed(self, builds: Iterable[BuildRecord]) -> None:
        """Note the builds that a pool is for and that must be started without it."""
        first = [build for build in builds if build.attempt == 0]
        found = [
            (build, name, self._context.place_of(build.spec.provider))
            for build in first
            if (name := next((p.name for p in self._serving(build)), None)) is not None
        ]
        self._context.ledger.pools.missed(found, self._context.clock())

    def _serving(self, build: BuildRecord) -> list[Pool]:
        return [pool for pool in self._pools.values() if rules.serves(pool.spec, build.spec)]

    # --- what pools need ---

    def update(
        self, snapshot: Snapshot, queue: SchedulingPlan, offers: Offers, *, paused: bool
    ) -> None:
        """Fill, shrink and drain the pools whose leases are ours. `queue`: what builds wait for."""
        self._warm_ups.forget(snapshot.rows)  # first: the snapshot knows none that is ready now
        for warmed in self._warm_ups.ended():
            with self._context.guard(f"warm up {warmed.instance.id}"):
                self._warmed(snapshot, warmed)
        for pool in self._pools.values() if self.fills else ():
            if pool.spec.provider not in self._context.providers:
                continue
            with self._context.guard(f"fill pool {pool.name}"):
                place = self._context.place_of(pool.spec.provider)
                if self._holds(lease(pool.name, place)):
                    self._fill(pool, place, snapshot, queue, offers, paused=paused)

    def _holds(self, name: str) -> bool:
        """True if this lease is ours; asked now and then."""
        context = self._context
        ours, asked_at = self._leases.get(name, (False, float("-inf")))
        if context.monotonic() - asked_at >= RENEW:
            ours = self._taker.take(name, self._membership.is_dead)
            self._leases[name] = (ours, context.monotonic())
        return ours

    def _fill(
        self,
        pool: Pool,
        place: str,
        snapshot: Snapshot,
        queue: SchedulingPlan,
        offers: Offers,
        *,
        paused: bool,
    ) -> None:
        """Fill a pool with what we can reach: another host's VMs are that one's."""
        context, spec = self._context, pool.spec
        its = [row for row in snapshot.rows.values() if row.pool == pool.name]
        rows = [row for row in its if row.build is None]
        others = [r.id for r in rows if r.owner != context.id and r.state not in DYING]
        if others:
            context.ledger.pools.take_over(pool.name, place, context.id, others)
            return  # the next tick sees them at their new epochs
        self._note_stuck(rows)
        now = context.providers[spec.provider].now()
        machines = self._offers.for_pool(offers, spec)
        size = self._sizes.size(pool, place, machines.offers, now)
        plan = rules.fill(
            rules.FillInput(
                pool=pool,
                want=size.want,
                rows=rows,
                now=now,
                claimed=sum(
                    r.claimed_at is not None
                    and r.state not in DYING
                    and now < r.claimed_at + rules.REFILL_AFTER
                    for r in its
                ),
                headroom=self._places(snapshot, queue.reserved, spec.provider),
                waiting=sum(queue.crowded.get(limit, 0) for limit in (spec.provider, ANYWHERE)),
                leaving=sum(
                    row.provider == spec.provider
                    and row.state is InstanceState.DELETING
                    and now < row.state_since + rules.LEAVES_IN
                    for row in snapshot.rows.values()
                ),
                paused=paused,
                forgotten=self._named.silent(pool.name),
                images=frozenset(offer.image for offer in machines.offers),
            )
        )
        for row, why in plan.end:
            self._end(snapshot, row, why)
        ending = {row.id for row, _ in plan.end}
        kept = [row for row in rows if row.id not in ending]
        self._ask_again(snapshot, kept)
        self._park(pool, kept)
        trouble = self._troubles.of(pool.name)
        empty = EmptyReason.BUDGET if plan.empty and size.capped else plan.empty
        if plan.make:
            machine = requirements.capacity(spec.machine)
            first = (spec.provider, machine) in queue.refused_specs  # builds wait for the very same
            making = sum(row.state not in _WAITING for row in kept)
            empty = EmptyReason.CAPACITY if first else self._make(pool, machines, plan.make, making)
        elif empty is EmptyReason.MAKING and trouble is not None:
            empty = trouble.reason  # what is on its way may fare as those before it
        self._note(pool, place, size.want, empty, trouble)

    def _note(
        self,
        pool: Pool,
        place: str,
        want: int,
        empty: EmptyReason | None,
        trouble: PoolTrouble | None,
    ) -> None:
        """Write how the pool is here, where that is new, and now and then that it is still so."""
        context = self._context
        state = PoolPlace(
            place=place,
            want=want,
            empty_reason=empty,
            failures=trouble.failures if trouble is not None else 0,
            failing_since=trouble.since if trouble is not None else None,
        )
        old = context.monotonic() - self._noted.get(pool.name, float("-inf")) >= NAMED
        if old or state != replace(pool.at(place), noted_at=0.0):
            context.ledger.pools.note(pool.name, replace(state, noted_at=context.clock()))
            self._noted[pool.name] = context.monotonic()

    def _ask_again(self, snapshot: Snapshot, rows: Iterable[Instance]) -> None:
        """Send the orders that no engine sends: of one that died before it did, or our own, whose
        commit was not answered. What is too old for that is given up."""
        newborn = self._context.limits.limits.newborn
        for row in rows:
            if row.state is not InstanceState.REQUESTED or self._launcher.is_pending(row.id):
                continue
            if self._context.now(row) < row.created_at + newborn / 2:
                self._launcher.adopt(None, row)
            else:
                self._end(snapshot, row, "it is unknown whether it was ever asked for")

    def _note_stuck(self, rows: Iterable[Instance]) -> None:
        """Note those that were given up since they did not become ready in time."""
        stuck = {row.id: row for row in rows if row.death is Death.STUCK}
        for name in stuck.keys() - self._stuck:
            self._trouble(stuck[name], EmptyReason.BOOT)
        self._stuck = set(stuck)

    def _places(self, snapshot: Snapshot, reserved: Mapping[str, int], provider: str) -> int:
        """The number of VMs that may be added, without the places that are kept for builds whose
        machines were refused (`SchedulingPlan.reserved`). Another provider's take one at most."""
        rooms = self._context.limits.rooms
        taken = sum(row.provider == provider for row in snapshot.everybody.values())
        each = rooms.each.get(provider, rooms.overall) - taken - reserved.get(provider, 0)
        kept = reserved.get(provider, 0) + len(reserved.keys() - {provider})
        return min(rooms.overall - len(snapshot.everybody) - kept, each)

    def _make(self, pool: Pool, machines: PoolMachines, count: int, making: int) -> EmptyReason:
        """Ask for so many VMs; so many are on their way. Returns why none is ready."""
        trouble = self._troubles.of(pool.name)
        if trouble is not None and self._context.monotonic() < trouble.until:
            return trouble.reason
        if not self._is_guarded(pool.spec):
            return EmptyReason.GUARD
        if not machines.offers:
            return machines.why
        if trouble is not None and trouble.reason is EmptyReason.BOOT:
            count = min(count, max(0, 1 - making))  # one shows whether that is over
        self._launcher.fill(pool, machines.offers, count)
        return trouble.reason if trouble is not None else EmptyReason.MAKING

    def _is_guarded(self, spec: PoolSpec) -> bool:
        """True unless a guard is installed that does not end a pool's VMs."""
        provider, now = self._context.providers[spec.provider], self._context.monotonic()
        well, asked_at = self._guarded.get(spec.name, (False, float("-inf")))
        if now - asked_at >= GUARD_CHECK and isinstance(provider, ShowsGuardedRoles):
            try:
                roles = self._context.answers(spec.provider).ask(
                    "guarded roles", provider.guarded_roles
                )
            except ProviderError as error:
                log.warning("pool %s: the roles of its guard: %s", spec.name, error)
                self._guarded[spec.name] = (False, now - GUARD_CHECK + GUARD_RETRY)
                return False
            installed = roles is not None and Role.POOL.value in roles
            # What is parked has no deadline of its cloud's own.
            well = installed or (roles is None and spec.kind is not PoolKind.PARKED)
            self._guarded[spec.name] = (well, now)
        return well or not isinstance(provider, ShowsGuardedRoles)

    def refused(self, unfilled: Iterable[tuple[Instance, End]]) -> None:
        """VMs for pools that the provider refused."""
        for row, end in unfilled:
            log.warning("pool %s: %s", row.pool, end.message)
            self._trouble(row, _REASONS.get(end.reason, EmptyReason.REFUSED))

    def unparkable(self, row: Instance, error: Exception) -> None:
        """Note that the provider does not park such a VM: another costs as much, and is no use."""
        log.warning("pool %s: %s is not parked: %s", row.pool, row.id, error)
        if isinstance(error, BadOrder):
            self._trouble(row, EmptyReason.REFUSED, UNPARKABLE_WAIT)
        else:
            self._trouble(row, EmptyReason.CAPACITY)

    def _trouble(self, row: Instance, reason: EmptyReason, least: float = 0.0) -> None:
        context = self._context
        self._troubles.note(
            row.pool or "", reason, clock=context.clock(), now=context.monotonic(), least=least
        )

    def _end(self, snapshot: Snapshot, row: Instance, why: str) -> None:
        context = self._context
        dying = context.ledger.instances.mark_deleting(
            row.id, seen_epoch=row.epoch, death=Death.DONE, now=context.now(row), message=why
        )
        if dying is not None:
            self._launcher.drop(row.id)
            snapshot.update(dying)

    # --- its VMs ---

    def observe(self, snapshot: Snapshot, row: Instance, seen: Seen, what: InstanceSign) -> None:
        """Apply a look at a VM without a build."""
        context = self._context
        if row.owner != context.id:
            return
        if what is InstanceSign.BORN:
            context.ledger.instances.record([(row.id, row.epoch, seen.ref)], context.now(row))
            context.wake()
        elif what is InstanceSign.PARKED:
            context.ledger.pools.park(
                row.id, epoch=row.epoch, to=InstanceState.PARKED, now=context.now(row)
            )
        elif what in ENDED:
            self._trouble(row, EmptyReason.CAPACITY if seen.unfit in SCARCE else EmptyReason.BOOT)
            self._end(snapshot, row, seen.detail or "it ended while it waited")

    def reached(self, row: Instance) -> None:
        """SSH may be spoken to: warm it up, unless that goes on."""
        pool = self._pools.get(row.pool or "")
        ours = row.owner == self._context.id and row.state is InstanceState.BOOTING
        if ours and pool is not None:
            self._warm_ups.begin(row, pool.spec)

    def _warmed(self, snapshot: Snapshot, warmed: WarmedVm) -> None:
        context, row = self._context, warmed.instance
        current = snapshot.mine.get(row.id)
        if warmed.error and (current is None or current.state in DYING):
            return  # it was told to stop
        if warmed.error:
            log.warning("%s of pool %s does not come up: %s", row.id, row.pool, warmed.error)
            self._trouble(row, EmptyReason.BOOT)
            if row.id in snapshot.mine:
                self._end(snapshot, snapshot.mine[row.id], warmed.error)
            return
        if not context.ledger.pools.ready(row.id, epoch=row.epoch, now=context.now(row)):
            warmed.connection.close()
            return
        self._warm_ups.keep(warmed)
        self._sizes.ready(row, context.now(row))
        self._troubles.over(row.pool or "")

    def _park(self, pool: Pool, rows: Iterable[Instance]) -> None:
        """Note that those that are ready are to be parked; `parker` sees to it."""
        context = self._context
        for row in rows:
            if row.state is InstanceState.READY and pool.spec.kind is PoolKind.PARKED:
                context.ledger.pools.park(
                    row.id, epoch=row.epoch, to=InstanceState.PARKING, now=context.now(row)
                )
