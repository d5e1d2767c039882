"""Instances: from the intent to the reference that the provider gave, and where SSH answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vmrunner.errors import Fenced, OverBudget
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.budgets import Admission
from vmrunner.ledger.build_writes import DYING, moved
from vmrunner.ledger.database import Database
from vmrunner.ledger.encryption import Encryption
from vmrunner.ledger.events import INSERT_EVENT, add_event
from vmrunner.ledger.instance_writes import InstanceWrites
from vmrunner.ledger.live_vms import LiveVms
from vmrunner.ledger.pool_vms import fills
from vmrunner.ledger.sql import Connection, exists, select, update
from vmrunner.ledger.statements import Prepared, arg, inserts, run
from vmrunner.ledger.tables import BUILDS, INSTANCES, LEDGER
from vmrunner.ledger.transfer_types import LaunchRequest, Started
from vmrunner.model import (
    Address,
    BuildRecord,
    BuildState,
    Death,
    EventKind,
    Instance,
    InstanceState,
    Order,
    Ref,
    Role,
    Start,
)

if TYPE_CHECKING:
    from vmrunner.core.scheduling import Capacity

_b, _i = BUILDS.c, INSTANCES.c

_CLAIM = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("id"),
            _b.epoch == arg("epoch"),
            _b.state == BuildState.QUEUED.value,
            _b.cancel.is_(None),
            # The unique index would stop it too, but with an error for the whole batch.
            ~exists().where(_i.build == _b.id, _i.state.not_in(DYING)),
        )
        .values(
            **moved(BuildState.PROVISIONING),
            epoch=_b.epoch + 1,
            attempt=_b.attempt + 1,
            instance=arg("instance"),
            owner=arg("owner"),
            owner_until=arg("until"),
        )
        .returning(*codec.BUILD, _b.events)
    )
)
_INSERT = inserts(INSTANCES)
_BOOTED_BUILD = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == select(_i.build).where(_i.id == arg("instance")).scalar_subquery(),
            _b.instance == arg("instance"),
            _b.epoch == arg("epoch"),
            _b.state == BuildState.PROVISIONING.value,
        )
        .values(**moved(BuildState.BOOTING))
        .returning(_b.id, _b.events)
    )
)
_BOOTED = Prepared(
    lambda: (
        update(INSTANCES)
        .where(
            _i.id == arg("id"),
            _i.epoch == arg("epoch"),
            _i.state == InstanceState.REQUESTED.value,
        )
        .values(state=InstanceState.BOOTING.value, state_since=arg("now"), ref=arg("ref"))
    )
)
_SWAP_BUILD = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("id"),
            _b.epoch == arg("epoch"),
            _b.instance == arg("refused"),
            _b.state == BuildState.PROVISIONING.value,
        )
        .values(instance=arg("instance"))
        .returning(*codec.BUILD)
    )
)
_ADDRESS = Prepared(
    lambda: (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.epoch == arg("epoch"), _i.state.not_in(DYING))
        .values(address=arg("address"))
    )
)
_STARTED = Prepared(
    lambda: (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.epoch == arg("epoch"), _i.start.is_(None))
        .values(start=arg("start"))
    )
)
_CONTAINER = Prepared(
    lambda: (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.epoch == arg("epoch"), _i.container.is_(None))
        .values(container=arg("container"))
        .returning(_i.build)
    )
)


class Instances(InstanceWrites):
    """All instances of this ledger: how they are born and how they end. `started` is called with an
    instance whose intent is durable, before it is asked for."""

    def __init__(
        self, database: Database, seal: Encryption, started: Callable[[str], None]
    ) -> None:
        super().__init__(database, seal)
        self._started = started
        self._live = LiveVms(database)

    def start(
        self, launches: Sequence[LaunchRequest], *, until: float, rooms: Capacity | None = None
    ) -> Started:
        """Claim builds and write the intents, in one transaction: durable when it returns, so the
        provider may be asked. Only those that were won: still queued, at the seen epoch, not
        cancelled, and the first ones as far as `rooms` and budgets go, across all engines. A VM for
        a pool is won by the holder of the pool's lease, one for a template by its maker. `until`:
        when the owners' claims lapse."""
        prepared = {launch.instance.id: (launch, self._row(launch)) for launch in launches}
        builds = [launch.build_id for launch in launches if launch.build_id is not None]
        if len(set(builds)) != len(builds):
            raise ValueError("two launches for one build")

        def work(connection: Connection) -> Started:
            won = Started()
            rows: list[dict[str, Any]] = []
            events: list[dict[str, Any]] = []
            fitting = launches if rooms is None else self._fitting(connection, launches, rooms)
            admission = self._admission(connection, fitting)
            # The order of all engines.
            for launch in sorted(
                fitting, key=lambda request: (request.build_id or "", request.instance.id)
            ):
                row = prepared[launch.instance.id][1]
                now = launch.instance.created_at
                build_id = launch.build_id
                try:
                    paid = admission.check_launch(launch)
                except OverBudget as error:
                    won.over_budget[launch.instance.id] = str(error)
                    continue
                if build_id is None:
                    if launch.instance.role is Role.IMAGE or fills(connection, launch.instance):
                        admission.charge(launch.instance, *paid)
                        won.append((None, launch.instance))
                        rows.append(row | {"epoch": launch.instance.epoch, "attempt": 0})
                    continue
                claimed = _CLAIM(
                    connection, id=build_id, epoch=launch.seen_epoch, now=now, until=until,
                    instance=launch.instance.id, owner=launch.instance.owner,
                    phase=codec.phase_text(BuildState.PROVISIONING, now),
                ).first()  # fmt: skip
                if claimed is None:
                    continue
                build = codec.build(claimed)
                admission.charge(launch.instance, *paid)
                won.append((build, _as_claimed(launch, build)))
                rows.append(row | {"epoch": build.epoch, "attempt": build.attempt})
                events.append(_phase(build_id, claimed[-1], now, BuildState.PROVISIONING))
            _INSERT.many(connection, rows)
            INSERT_EVENT.many(connection, events)
            return won

        won = self._database.write(work) if prepared else Started()
        if won:
            self._started(won[-1][1].id)
        return won

    def adopt(self, instance_id: str) -> Order:
        """The order of an intent that another wrote, to be sent again: its writer may have died
        before it sent it. Raises NotFound, and LedgerError when nothing may be started."""
        order = self.order(instance_id)
        self._started(instance_id)
        return order

    def note_starts(self, found: Sequence[tuple[str, int, Start]]) -> None:
        """Note how they came up, for (instance id, epoch, start)."""

        def work(connection: Connection) -> None:
            for name, epoch, start in sorted(found):
                _STARTED(connection, id=name, epoch=epoch, start=start.value)

        if found:
            self._database.write(work)

    def note_containers(self, found: Sequence[tuple[str, int, str]], now: float) -> None:
        """Note which digests the tags of units' containers stood for, for (instance id, epoch,
        container): durable when it returns, so the unit may be spoken to."""

        def work(connection: Connection) -> None:
            self._lock(connection, [name for name, _, _ in found])
            for name, epoch, container in sorted(found):
                row = _CONTAINER(connection, id=name, epoch=epoch, container=container).first()
                if row is not None and row[0] is not None:
                    add_event(
                        connection, row[0], EventKind.PINNED, now, instance=name,
                        container=container,
                    )  # fmt: skip

        if found:
            self._database.write(work)

    def record(self, refs: Sequence[tuple[str, int, Ref]], now: float) -> set[str]:
        """Note what the provider calls them, for (instance id, epoch, ref): they boot now.
        Returns the ids that were noted; another is dying or has another owner: kill it."""
        texts = [(name, epoch, codec.ref_text(ref)) for name, epoch, ref in sorted(refs)]

        def work(connection: Connection) -> set[str]:
            self._lock(connection, [name for name, _, _ in texts])
            noted: set[str] = set()
            events: list[dict[str, Any]] = []
            phase = codec.phase_text(BuildState.BOOTING, now)
            for name, epoch, ref in texts:
                if not _BOOTED(connection, id=name, epoch=epoch, ref=ref, now=now).rowcount:
                    continue
                noted.add(name)
                row = _BOOTED_BUILD(
                    connection, instance=name, epoch=epoch, now=now, phase=phase
                ).first()
                if row is not None:
                    events.append(_phase(row[0], row[1], now, BuildState.BOOTING))
            INSERT_EVENT.many(connection, events)
            return noted

        return self._database.write(work) if texts else set()

    def next_offer(
        self, refused: str, launch: LaunchRequest, *, now: float, message: str = ""
    ) -> tuple[BuildRecord, Instance]:
        """The provider refused: close that row, and write the intent for the next offer of the
        same attempt, at the same epoch (`launch.seen_epoch`). Raises Fenced, and OverBudget."""
        row = self._row(launch)
        epoch = launch.seen_epoch

        def work(connection: Connection) -> tuple[BuildRecord, Instance]:
            admission = self._admission(connection, [launch])
            swapped = _SWAP_BUILD(
                connection, id=launch.build_id, epoch=epoch, refused=refused,
                instance=launch.instance.id,
            ).first()  # fmt: skip
            if swapped is None or not self._close(
                connection, refused, epoch, Death.REFUSED, now, message
            ):
                raise Fenced(f"{refused} is no longer ours to replace: epoch {epoch} is over")
            build = codec.build(swapped)
            admission.release(refused)
            paid = admission.check_launch(launch)
            admission.charge(launch.instance, *paid)
            _INSERT(connection, **(row | {"epoch": build.epoch, "attempt": build.attempt}))
            add_event(
                connection, build.id, EventKind.REFUSED, now, instance=refused, message=message
            )
            return build, _as_claimed(launch, build)

        placed = self._database.write(work)
        self._started(placed[1].id)
        return placed

    def addresses(self, found: Sequence[tuple[str, int, Address]]) -> set[str]:
        """Note where SSH answers, for (instance id, epoch, address). Returns the ids that were
        noted; another has another owner or dies."""
        texts = [(name, epoch, codec.address_text(address)) for name, epoch, address in found]

        def work(connection: Connection) -> set[str]:
            return {
                name
                for name, epoch, text in sorted(texts)
                if _ADDRESS(connection, id=name, epoch=epoch, address=text).rowcount
            }

        return self._database.write(work) if texts else set()

    # --- within ---

    def _admission(self, connection: Connection, launches: Sequence[LaunchRequest]) -> Admission:
        now = min((launch.instance.created_at for launch in launches), default=0.0)
        return Admission(connection, self._database, {each.actor for each in launches}, now)

    def _fitting(
        self, connection: Connection, launches: Sequence[LaunchRequest], rooms: Capacity
    ) -> list[LaunchRequest]:
        """The launches that have room, in their order. No other engine claims until the transaction
        ends."""
        if not self._database.sqlite:  # which has one writer anyway
            run(connection, select(LEDGER.c.id).with_for_update())
        taken = self._live.count(connection)
        fitting = []
        for launch in launches:
            name = launch.instance.provider
            if taken.total() < rooms.overall and taken[name] < rooms.each.get(name, rooms.overall):
                taken[name] += 1
                fitting.append(launch)
        return fitting

    def _row(self, launch: LaunchRequest) -> dict[str, Any]:
        new, order = launch.instance, launch.order
        if (new.id, new.deadline) != (order.instance, order.deadline) or new.owner is None:
            raise ValueError(f"{new.id}: the order is not this instance's, or it has no owner")
        return {
            "id": new.id,
            "build": launch.build_id,
            "provider": new.provider,
            "role": new.role.value,
            "state": InstanceState.REQUESTED.value,
            "state_since": new.created_at,
            "created_at": new.created_at,
            "deadline": new.deadline,
            "owner": new.owner,
            "ref": None,
            "address": None,
            "death": None,
            "message": "",
            "deletes": 0,
            "delete_at": 0.0,
            "gone_at": None,
            "pool": new.pool,
            "shape": new.shape,
            "start": None,
            "due": None,
            "claimed_at": None,
            "usd_hour": new.rate.usd_hour,
            "parked_usd_hour": new.rate.parked_usd_hour,
            "price_source": new.rate.source.value,
            "price_at": new.rate.at,
            "parked_at": None,
            "offer": codec.offer_text(new.offer),
            "access": self._seal.seal(codec.access_bytes(launch.access)),
            "ordered": self._seal.seal(codec.order_bytes(order)),
            "revision": None,
            "summed": None,
            "container": None,
        }


def _as_claimed(launch: LaunchRequest, build: BuildRecord) -> Instance:
    return replace(
        launch.instance,
        build=build.id,
        attempt=build.attempt,
        epoch=build.epoch,
        state=InstanceState.REQUESTED,
        state_since=launch.instance.created_at,
    )


def _phase(build: str, seq: int, now: float, state: BuildState) -> dict[str, Any]:
    data = codec.event_data({"state": state.value})
    return {"build": build, "seq": seq, "time": now, "kind": EventKind.PHASE.value, "data": data}
