"""Birth: the intent row first, then the create, then the reference (design §6).

The row is re-checked right before each create, in the thread that makes it, since that may run an
hour late. What stays uncertain is sent again, identically, by the holder of the epoch, for half
the newborn window; after that only looking can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Final

from vmrunner.core.lifecycle import End
from vmrunner.core.scheduling import PlannedStart
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.membership import MEMBER_LEASE
from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    Fenced,
    LedgerError,
    NoCapacity,
    NotFound,
    QuotaExceeded,
    Throttled,
    VmrunnerError,
)
from vmrunner.ledger.values import LaunchRequest
from vmrunner.lib import ids
from vmrunner.model import (
    BuildRecord,
    Death,
    Instance,
    InstanceState,
    Offer,
    Order,
    Reason,
    Ref,
    Result,
    Role,
)

FIRST_WAIT: Final = 1.0  # seconds before a create is sent again; doubled each time
LONGEST_WAIT: Final = 30.0
#: So long nothing is launched at a provider that refused our credentials.
DISTRUST: Final = 60.0


@dataclass(slots=True)
class PendingCreate:
    """A create that is in the air, or waits to be sent again."""

    build: BuildRecord
    instance: Instance
    order: Order
    rest: tuple[Offer, ...]  # to be tried when this offer is refused
    doubtful: bool = False  # an earlier send of this order may have been heard
    tries: int = 0
    send_at: float = 0.0  # monotonic
    call: Future[Ref] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CreateResults:
    """What came of the flights that ended in one tick."""

    booting: tuple[str, ...] = ()  # instances whose reference is recorded
    ended: tuple[tuple[BuildRecord, Instance, End], ...] = ()  # nothing more is tried for these
    waiting: tuple[tuple[BuildRecord, Instance, End], ...] = ()  # refused for now; a wait may help


@dataclass(slots=True)
class _Sorted:
    refs: list[tuple[PendingCreate, Ref]] = field(default_factory=list)
    ended: list[tuple[BuildRecord, Instance, End]] = field(default_factory=list)
    waiting: list[tuple[BuildRecord, Instance, End]] = field(default_factory=list)


class Launcher:
    """All creates of one engine. Used by the tick's thread alone, but for `_create`."""

    def __init__(self, desk: EngineContext) -> None:
        self._desk = desk
        self._flights: dict[str, PendingCreate] = {}
        self._distrusted: dict[str, float] = {}  # provider → monotonic
        self._adopts_at = float("-inf")  # monotonic

    def flying(self, instance: str) -> bool:
        """Is a create of this instance in the air, or waiting to be sent again?"""
        return instance in self._flights

    @property
    def busy(self) -> bool:
        return bool(self._flights)

    def trusts(self, provider: str) -> bool:
        """May this provider be asked for machines?"""
        return self._desk.monotonic() >= self._distrusted.get(provider, 0.0)

    def start(self, starts: Sequence[PlannedStart]) -> None:
        """Write the intent rows of all of them in one transaction, then ask for the machines."""
        launches = []
        rest = {}
        for start in starts:
            with self._desk.guard("start", start.build.id):
                launch = self._launch(start.build, start.offers[0], start.build.epoch)
                launches.append(launch)
                rest[launch.instance.id] = (launch, start.offers[1:])
        if not launches:
            return
        desk = self._desk
        until, rooms = desk.clock() + MEMBER_LEASE, desk.limits.rooms
        for build, instance in desk.ledger.instances.start(launches, until=until, rooms=rooms):
            launch, offers = rest[instance.id]
            self._fly(PendingCreate(build, instance, launch.order, offers))

    def adopt(self, build: BuildRecord, instance: Instance) -> None:
        """Send again what its former owner may or may not have sent. Nothing is sent that could
        not be remembered; then the rest of the tick goes on all the same."""
        now = self._desk.monotonic()
        if now < self._adopts_at:
            return
        try:
            order = self._desk.ledger.instances.adopt(instance.id)
        except LedgerError as error:
            log.warning("%s is not asked for: %s", instance.id, error)
            self._adopts_at = now + FIRST_WAIT
            return
        self._fly(PendingCreate(build, instance, order, (), doubtful=True))

    def drop(self, instance: str) -> None:
        """Its row is dying or another's: what is in the air answers for itself (see `_create`)."""
        flight = self._flights.get(instance)
        if flight is not None and flight.call is None:
            del self._flights[instance]

    def pump(self) -> None:
        """Send again what waited long enough."""
        now = self._desk.monotonic()
        for flight in list(self._flights.values()):
            if flight.call is None and now >= flight.send_at:
                self._fly(flight)

    def land(self) -> CreateResults:
        """Take in all answers: record the references in one transaction, and sort the errors."""
        answers = _Sorted()
        for name, flight in list(self._flights.items()):
            call = flight.call
            if call is None or not call.done():
                continue
            flight.call = None
            error = call.exception()
            if error is None:
                answers.refs.append((flight, call.result()))
                del self._flights[name]
            else:
                with self._desk.guard("launch", flight.build.id):
                    self._failed(flight, error, answers)
        booting = self._record(answers.refs)
        return CreateResults(
            booting=tuple(booting), ended=tuple(answers.ended), waiting=tuple(answers.waiting)
        )

    # --- within ---

    def _launch(self, build: BuildRecord, offer: Offer, epoch: int) -> LaunchRequest:
        desk = self._desk
        provider = desk.providers[build.spec.provider]
        now = provider.now()
        longest = desk.limits.limits.max_ttl
        ends = now + min(build.spec.ttl, longest)
        if build.attempt:  # all attempts together, however long this one had to wait
            former = [vm.created_at for vm in desk.ledger.instances.list(build=build.id)]
            ends = min(ends, min(former, default=now) + longest)
        # Whole seconds, as in the tag: the deadline is one number, wherever it is written.
        deadline = float(int(ends))
        instance = Instance(
            id=ids.instance_id(),
            build=build.id,
            attempt=build.attempt,
            provider=build.spec.provider,
            offer=offer,
            role=Role.BUILD,
            state=InstanceState.REQUESTED,
            created_at=now,
            state_since=now,
            deadline=deadline,
            epoch=epoch,
            owner=desk.id,
        )
        order, access = desk.orders(build, instance.id, offer, deadline)
        order = replace(order, max_ttl=longest)
        return LaunchRequest(
            build_id=build.id, seen_epoch=epoch, instance=instance, order=order, access=access
        )

    def _fly(self, flight: PendingCreate) -> None:
        self._flights[flight.instance.id] = flight
        pool = self._desk.births(flight.instance.provider)
        flight.tries += 1
        flight.call = pool.submit(lambda: self._create(flight.instance, flight.order))
        flight.call.add_done_callback(lambda _: self._desk.wake())

    def _create(self, instance: Instance, order: Order) -> Ref:
        """Re-check, then ask. Raises Fenced when the row is another's or dying, or too old: then
        nobody asks any more."""
        desk = self._desk
        row = desk.ledger.instances.get(instance.id)
        provider = desk.provider_of(instance)
        if provider is None:
            raise Fenced(f"{instance.scope} is no scope of {instance.provider} any more")
        if row.epoch != instance.epoch or row.state is not InstanceState.REQUESTED:
            raise Fenced(f"{instance.id} is {row.state} at epoch {row.epoch}")
        if provider.now() >= row.created_at + desk.limits.limits.newborn / 2:
            raise Fenced(f"{instance.id} is too old to be asked for again")
        return provider.create(order)

    def _record(self, answers: list[tuple[PendingCreate, Ref]]) -> set[str]:
        desk = self._desk
        recorded: set[str] = set()
        for name in {flight.instance.provider for flight, _ in answers}:
            own = [(f.instance, ref) for f, ref in answers if f.instance.provider == name]
            rows = [(instance.id, instance.epoch, ref) for instance, ref in own]
            recorded |= desk.ledger.instances.record(rows, desk.now(own[0][0]))
        for flight, ref in answers:
            if flight.instance.id not in recorded:
                with desk.guard("late answer", flight.build.id):
                    self._too_late(flight.instance, ref)
        return recorded

    def _too_late(self, instance: Instance, ref: Ref) -> None:
        """The row is dying or gone by the time the cloud answers: kill what was made. A row that
        another engine took over is left to it: the identical order finds this very machine."""
        row = self._desk.ledger.instances.get(instance.id)
        provider = self._desk.provider_of(instance)
        if row.state in (InstanceState.DELETING, InstanceState.GONE) and provider is not None:
            outcome = provider.delete([ref])[ref]
            log.warning("%s answered when it was to die: delete %s", instance.id, outcome.fate)

    def _failed(self, flight: PendingCreate, error: BaseException, answers: _Sorted) -> None:
        desk, build, instance = self._desk, flight.build, flight.instance
        text = str(error)
        del self._flights[instance.id]
        if isinstance(error, (Fenced, NotFound)):
            log.info("%s is not ours to launch any more: %s", instance.id, text)
        elif isinstance(error, Throttled):
            self._again(flight)
        elif isinstance(error, (NoCapacity, QuotaExceeded)):
            scarce = isinstance(error, NoCapacity)
            # A quota counts one market, and one family of types: another pool may have room.
            if flight.rest and not flight.doubtful:
                self._next(flight, text)
            else:
                reason = Reason.NO_CAPACITY if scarce else Reason.QUOTA
                if self._close(flight, text):
                    answers.waiting.append((build, instance, _error(reason, text)))
        elif isinstance(error, CredentialsRefused):
            self._distrusted[instance.provider] = desk.monotonic() + DISTRUST
            if self._close(flight, text):
                answers.ended.append((build, instance, _error(Reason.CREDENTIALS, text)))
        elif isinstance(error, BadOrder):
            if self._close(flight, text):
                answers.ended.append((build, instance, _error(Reason.IMAGE, text)))
        else:
            # Uncertain, or nothing that a driver should raise: either way it may have happened.
            if not isinstance(error, VmrunnerError):
                log.error("create of %s: %s", instance.id, text, exc_info=error)
            flight.doubtful = True
            self._again(flight)

    def _again(self, flight: PendingCreate) -> None:
        wait = min(FIRST_WAIT * 2 ** (flight.tries - 1), LONGEST_WAIT)
        flight.send_at = self._desk.monotonic() + wait
        self._flights[flight.instance.id] = flight

    def _next(self, flight: PendingCreate, message: str) -> None:
        """The next offer is another row with another id; the refused one is closed with it."""
        old = flight.instance
        launch = self._launch(flight.build, flight.rest[0], old.epoch)
        launch = replace(launch, instance=replace(launch.instance, attempt=old.attempt))
        build, instance = self._desk.ledger.instances.next_offer(
            old.id, launch, now=self._desk.now(old), message=message
        )
        self._fly(PendingCreate(build, instance, launch.order, flight.rest[1:]))

    def _close(self, flight: PendingCreate, message: str) -> bool:
        """Nothing was born, says the provider: the row is closed. But an earlier send may have
        been heard; then False, and the row dies the long way, and its build ends with it."""
        desk, row = self._desk, flight.instance
        now = desk.now(row)
        if flight.doubtful:
            desk.ledger.instances.doom(
                row.id, seen_epoch=row.epoch, death=Death.REFUSED, now=now, message=message
            )
            return False
        return desk.ledger.instances.close(
            row.id, epoch=row.epoch, death=Death.REFUSED, now=now, message=message
        )


def _error(reason: Reason, message: str) -> End:
    return End(result=Result.ERROR, reason=reason, message=message)
