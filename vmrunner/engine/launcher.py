"""Birth: the intent row first, then the create, then the reference (design §6).

The row is re-checked right before each create, in the thread that makes it, since that may run an
hour late. What stays uncertain is sent again, identically, by the holder of the epoch, for half
the newborn window; after that only looking can tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Final

from vmrunner.core.lifecycle import End, out_of_time
from vmrunner.core.pools import lifetime
from vmrunner.core.scheduling import PlannedStart
from vmrunner.engine import lifecycle_log
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    Fenced,
    LedgerError,
    NoCapacity,
    NotFound,
    OverBudget,
    QuotaExceeded,
    Throttled,
    VmrunnerError,
)
from vmrunner.ledger.transfer_types import LaunchRequest
from vmrunner.lib import ids
from vmrunner.lib.backoff import backoff
from vmrunner.model import (
    DYING,
    BuildRecord,
    Death,
    Instance,
    InstanceState,
    Offer,
    Order,
    Pool,
    Reason,
    Ref,
    Result,
    Role,
)
from vmrunner.providers import capabilities, registry
from vmrunner.providers.deletion import delete_each

FIRST_WAIT: Final = 1.0  # seconds before a create is sent again; doubled each time
LONGEST_WAIT: Final = 30.0
#: So long nothing is launched at a provider that refused our credentials.
DISTRUST: Final = 60.0


@dataclass(slots=True)
class PendingCreate:
    """A create that is in the air, or waits to be sent again."""

    build: BuildRecord | None  # None: the VM is a pool's
    instance: Instance
    order: Order
    rest: tuple[Offer, ...]  # to be tried when this offer is refused
    doubtful: bool = False  # an earlier send of this order may have had an effect
    tries: int = 0
    send_at: float = 0.0  # monotonic
    call: Future[Ref] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateResults:
    """The results of the creates that ended in one tick."""

    booting: tuple[str, ...] = ()  # instances whose reference is recorded
    ended: tuple[tuple[BuildRecord, Instance, End], ...] = ()  # nothing more is tried for these
    waiting: tuple[tuple[BuildRecord, Instance, End], ...] = ()  # refused for now; a wait may help
    unfilled: tuple[tuple[Instance, End], ...] = ()  # of pools: refused
    created: tuple[BuildRecord, ...] = ()  # builds whose VMs were made


@dataclass(slots=True)
class _Sorted:
    refs: list[tuple[PendingCreate, Ref]] = field(default_factory=list)
    ended: list[tuple[BuildRecord, Instance, End]] = field(default_factory=list)
    waiting: list[tuple[BuildRecord, Instance, End]] = field(default_factory=list)
    unfilled: list[tuple[Instance, End]] = field(default_factory=list)

    def refused(self, pending: PendingCreate, end: End, *, for_good: bool) -> None:
        """No VM was made, and no other offer is tried."""
        if pending.build is None:
            self.unfilled.append((pending.instance, end))
        else:
            ends = self.ended if for_good else self.waiting
            ends.append((pending.build, pending.instance, end))


class Launcher:
    """All creates of one engine. Used by the tick's thread alone, but for `_create`."""

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._pending: dict[str, PendingCreate] = {}
        self._distrusted: dict[str, float] = {}  # provider → monotonic
        self._adopts_at = float("-inf")  # monotonic
        self._over_budget = _Sorted()  # ends that the next `collect` tells
        self._sent: list[Instance] = []  # since the rows were read last

    def is_pending(self, instance: str) -> bool:
        """True if a create of this instance is under way, or waits to be sent again."""
        return instance in self._pending

    @property
    def busy(self) -> bool:
        return bool(self._pending)

    @property
    def sent(self) -> tuple[Instance, ...]:
        """The rows of what was asked for since `read`: no snapshot has them yet."""
        return tuple(self._sent)

    def read(self) -> None:
        """Note that all rows were read just now."""
        self._sent.clear()

    def trusts(self, provider: str) -> bool:
        """True if this provider may be asked for machines."""
        return self._context.monotonic() >= self._distrusted.get(provider, 0.0)

    def start(self, starts: Sequence[PlannedStart]) -> None:
        """Write the intent rows of all of them in one transaction, then ask for the machines."""
        launches = []
        rest = {}
        for start in starts:
            with self._context.guard("start", start.build.id):
                launch = self._launch(start.build, start.offers[0], start.build.epoch)
                launches.append(launch)
                rest[launch.instance.id] = (launch, start.offers[1:])
        self._start(launches, rest, starts)

    def fill(self, pool: Pool, offers: Sequence[Offer], count: int) -> None:
        """Make `count` VMs for a pool. Refusals come by `CreateResults.unfilled`."""
        launches = [self._pool_launch(pool, offers[0]) for _ in range(count)]
        self._start(launches, {launch.instance.id: (launch, ()) for launch in launches})

    def _start(
        self,
        launches: Sequence[LaunchRequest],
        rest: Mapping[str, tuple[LaunchRequest, tuple[Offer, ...]]],
        starts: Sequence[PlannedStart] = (),
    ) -> None:
        if not launches:
            return
        context = self._context
        until, rooms = context.clock() + MEMBER_LEASE, context.limits.rooms
        context.declare_budgets()
        started = context.ledger.instances.start(launches, until=until, rooms=rooms)
        for build, instance in started:
            launch, offers = rest[instance.id]
            self._send(PendingCreate(build, instance, launch.order, offers))
        builds = {start.build.id: start.build for start in starts}
        for name, why in started.over_budget.items():
            instance = rest[name][0].instance
            self._refuse(builds.get(instance.build or ""), instance, why)

    def over_budget(self, build: BuildRecord, instance: Instance, error: OverBudget) -> None:
        """End a build for which no budget has money, when the next answers are collected."""
        self._refuse(build, instance, str(error))

    def adopt(self, build: BuildRecord | None, instance: Instance) -> None:
        """Send again what its former owner may or may not have sent. Nothing is sent that could
        not be remembered; then the rest of the tick goes on all the same."""
        now = self._context.monotonic()
        if now < self._adopts_at:
            return
        try:
            order = self._context.ledger.instances.adopt(instance.id)
        except LedgerError as error:
            log.warning("%s is not asked for: %s", instance.id, error)
            self._adopts_at = now + FIRST_WAIT
            return
        self._send(PendingCreate(build, instance, order, (), doubtful=True))

    def drop(self, instance: str) -> None:
        """Forget an instance whose row is being deleted or has another owner. A create already in
        flight re-checks the row itself (see `_create`)."""
        pending = self._pending.get(instance)
        if pending is not None and pending.call is None:
            del self._pending[instance]

    def resend(self) -> None:
        """Send again what waited long enough."""
        now = self._context.monotonic()
        for pending in list(self._pending.values()):
            if pending.call is None and now >= pending.send_at:
                self._send(pending)

    def collect(self) -> CreateResults:
        """Take in all answers: record the references in one transaction, and sort the errors."""
        answers, self._over_budget = self._over_budget, _Sorted()
        for name, pending in list(self._pending.items()):
            call = pending.call
            if call is None or not call.done():
                continue
            pending.call = None
            error = call.exception()
            if error is None:
                answers.refs.append((pending, call.result()))
                del self._pending[name]
            else:
                with self._context.guard("launch", pending.instance.build):
                    self._failed(pending, error, answers)
        booting = self._record(answers.refs)
        return CreateResults(
            booting=tuple(booting), ended=tuple(answers.ended), waiting=tuple(answers.waiting),
            unfilled=tuple(answers.unfilled),
            created=tuple(create.build for create, _ in answers.refs if create.build is not None),
        )  # fmt: skip

    # --- within ---

    def _refuse(self, build: BuildRecord | None, instance: Instance, why: str) -> None:
        end = _error(Reason.BUDGET, why)
        if build is None:
            self._over_budget.unfilled.append((instance, end))
        else:
            self._over_budget.ended.append((build, instance, end))

    def _launch(self, build: BuildRecord, offer: Offer, epoch: int) -> LaunchRequest:
        context, provider = self._context, build.spec.provider
        now = context.providers[provider].now()
        longest = self._longest(offer)
        ends = now + min(build.spec.ttl, longest)
        if build.attempt:  # all attempts together, however long this one had to wait
            first = context.ledger.instances.first_birth(build.id)
            ends = min(ends, (now if first is None else first) + longest)
        row = self._intent(provider, offer, Role.BUILD, now, ends)
        row = replace(row, build=build.id, attempt=build.attempt, epoch=epoch)
        order, access = context.orders(build, row.id, offer, row.deadline)
        return LaunchRequest(
            build_id=build.id, seen_epoch=epoch, instance=row,
            order=replace(order, max_ttl=longest), access=access,
            labels=build.spec.labels, actor=build.actor, tenant=build.tenant,
        )  # fmt: skip

    def _pool_launch(self, pool: Pool, offer: Offer) -> LaunchRequest:
        context, spec = self._context, pool.spec
        now = context.providers[spec.provider].now()
        longest = self._longest(offer)
        row = self._intent(spec.provider, offer, Role.POOL, now, now + min(lifetime(spec), longest))
        row = replace(row, pool=spec.name, shape=pool.shape)
        order, access = context.orders.for_pool(spec, row.id, offer, row.deadline)
        order = replace(order, max_ttl=longest)
        return LaunchRequest(build_id=None, seen_epoch=0, instance=row, order=order, access=access)

    def _longest(self, offer: Offer) -> float:
        """Seconds that a VM of this offer may live: its kind may give less than the limits do."""
        driver = registry.find(offer.scope.kind)
        most = self._context.limits.limits.max_ttl
        return most if driver is None else min(most, driver.max_ttl)

    def _intent(self, provider: str, offer: Offer, role: Role, now: float, ends: float) -> Instance:
        """The row of a VM that is to be asked for. `ends`: its deadline, which is cut to whole
        seconds, as in the tag: it is one number, wherever it is written."""
        return Instance(
            id=ids.instance_id(),
            build=None,
            attempt=0,
            provider=provider,
            offer=offer,
            rate=self._context.rate(provider, offer, role),
            role=role,
            state=InstanceState.REQUESTED,
            created_at=now,
            state_since=now,
            deadline=float(int(ends)),
            epoch=1,
            owner=self._context.id,
        )

    def _send(self, pending: PendingCreate) -> None:
        self._pending[pending.instance.id] = pending
        self._sent.append(pending.instance)
        pool = self._context.create_threads(pending.instance.provider)
        if not (pending.tries or pending.doubtful):
            lifecycle_log.requested(pending.instance)
        pending.tries += 1
        pending.call = pool.submit(lambda: self._create(pending.instance, pending.order))
        pending.call.add_done_callback(lambda _: self._context.wake())

    def _create(self, instance: Instance, order: Order) -> Ref:
        """Re-check, then ask. Raises Fenced when the row is another's or dying, or too old: then it
        is never asked for again."""
        context = self._context
        row = context.ledger.instances.get(instance.id)
        provider = context.provider_of(instance)
        if provider is None:
            raise Fenced(f"{instance.scope} is no scope of {instance.provider} any more")
        if row.epoch != instance.epoch or row.state is not InstanceState.REQUESTED:
            raise Fenced(f"{instance.id} is {row.state} at epoch {row.epoch}")
        if provider.now() >= row.created_at + context.limits.limits.newborn / 2:
            raise Fenced(f"{instance.id} is too old to be asked for again")
        capabilities.check(provider, order.network)
        return provider.create(order)

    def _record(self, answers: list[tuple[PendingCreate, Ref]]) -> set[str]:
        context = self._context
        recorded: set[str] = set()
        refs = {pending.instance.id: ref for pending, ref in answers}
        for now, own in context.timed(pending.instance for pending, _ in answers):
            rows = [(instance.id, instance.epoch, refs[instance.id]) for instance in own]
            recorded |= context.ledger.instances.record(rows, now)
        for pending, ref in answers:
            if pending.instance.id not in recorded:
                with context.guard("late answer", pending.instance.build):
                    self._too_late(pending.instance, ref)
        return recorded

    def _too_late(self, instance: Instance, ref: Ref) -> None:
        """The row is dying or gone by the time the cloud answers: kill what was made. A row that
        another engine took over is left to it: the identical order finds this very machine."""
        context = self._context
        row = context.ledger.instances.get(instance.id)
        provider = context.provider_of(instance)
        if row.state not in DYING or provider is None:
            return

        def delete() -> None:
            outcome = delete_each(provider, [ref])[ref]
            log.warning("%s answered when it was to die: delete %s", instance.id, outcome.fate)

        context.delete_threads(instance.provider).submit(delete)

    def _failed(self, pending: PendingCreate, error: BaseException, answers: _Sorted) -> None:
        context, instance = self._context, pending.instance
        text = str(error)
        lifecycle_log.refused(instance, error)
        del self._pending[instance.id]
        if isinstance(error, (Fenced, NotFound)):
            log.info("%s is not ours to launch any more: %s", instance.id, text)
        elif isinstance(error, Throttled):
            self._again(pending, longest=error.wait or LONGEST_WAIT)
        elif isinstance(error, (NoCapacity, QuotaExceeded)):
            scarce = isinstance(error, NoCapacity)
            # A quota counts one market, and one family of types: another pool may have room.
            if pending.rest and pending.build is not None and not pending.doubtful:
                self._next(pending, pending.build, text, answers)
            else:
                reason = Reason.NO_CAPACITY if scarce else Reason.QUOTA
                if self._close(pending, text):
                    answers.refused(pending, _error(reason, text), for_good=False)
        elif isinstance(error, CredentialsRefused):
            self._distrusted[instance.provider] = context.monotonic() + DISTRUST
            if self._close(pending, text):
                answers.refused(pending, _error(Reason.CREDENTIALS, text), for_good=True)
        elif isinstance(error, BadOrder):
            if self._close(pending, text):
                answers.refused(pending, _error(Reason.IMAGE, text), for_good=True)
        else:
            # Uncertain, or nothing that a driver should raise: either way it may have happened.
            if not isinstance(error, VmrunnerError):
                log.error("create of %s: %s", instance.id, text, exc_info=error)
            pending.doubtful = True
            self._again(pending)

    def _again(self, pending: PendingCreate, longest: float = LONGEST_WAIT) -> None:
        """`longest`: seconds of the pause at most, as the provider wants it."""
        wait = backoff(FIRST_WAIT, pending.tries - 1, min(longest, LONGEST_WAIT))
        pending.send_at = self._context.monotonic() + wait
        self._pending[pending.instance.id] = pending

    def _next(
        self, pending: PendingCreate, build: BuildRecord, message: str, answers: _Sorted
    ) -> None:
        """The next offer is another row with another id; the refused one is closed with it. The
        build ends where the refusal took all the time that was left."""
        old = pending.instance
        launch = self._launch(build, pending.rest[0], old.epoch)
        if launch.instance.deadline <= launch.instance.created_at:
            if self._close(pending, message):
                answers.ended.append((build, old, out_of_time(build)))
            return
        launch = replace(launch, instance=replace(launch.instance, attempt=old.attempt))
        try:
            swapped, instance = self._context.ledger.instances.next_offer(
                old.id, launch, now=self._context.now(old), message=message
            )
        except OverBudget as error:
            if self._close(pending, message):
                answers.ended.append((build, old, _error(Reason.BUDGET, str(error))))
            return
        self._send(PendingCreate(swapped, instance, launch.order, pending.rest[1:]))

    def _close(self, pending: PendingCreate, message: str) -> bool:
        """The provider made nothing: the row is closed. But an earlier send may have had an effect;
        then the row dies the long way. False: its build ends with it."""
        context, row = self._context, pending.instance
        now = context.now(row)
        if pending.doubtful:
            context.ledger.instances.mark_deleting(
                row.id, seen_epoch=row.epoch, death=Death.REFUSED, now=now, message=message
            )
            return pending.build is None
        return context.ledger.instances.close(
            row.id, epoch=row.epoch, death=Death.REFUSED, now=now, message=message
        )


def _error(reason: Reason, message: str) -> End:
    return End(result=Result.ERROR, reason=reason, message=message)
