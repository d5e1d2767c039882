"""Writes of a build's owner: every statement names the epoch that the owner holds.

Within a transaction a build's row is written before its instance's, everywhere, so that two
transactions wait for each other instead of dying of a deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Unpack

from vmrunner.core.lifecycle import BUILD_NEXT, INSTANCE_NEXT
from vmrunner.errors import Conflict, Fenced
from vmrunner.ledger import removed_vms
from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.build_costs import settle
from vmrunner.ledger.database import Database
from vmrunner.ledger.events import put_event
from vmrunner.ledger.shared_writes import SharedWrites
from vmrunner.ledger.sql import (
    Connection,
    Statement,
    Update,
    and_,
    case,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    true,
    update,
)
from vmrunner.ledger.statements import Prepared, arg
from vmrunner.ledger.tables import BUILDS, EVENTS, INSTANCES
from vmrunner.ledger.transfer_types import BuildEnd, DeathMark
from vmrunner.model import (
    NO_USAGE,
    BuildRecord,
    BuildState,
    Death,
    EventKind,
    Instance,
    InstanceState,
    Reason,
)

_b, _i, _e = BUILDS.c, INSTANCES.c, EVENTS.c

#: Of a build that waits for a VM, the first and the last so many events stay.
FIRST_EVENTS: Final = 20
LAST_EVENTS: Final = 100
#: What a try that was refused tells.
_TRIED: Final = [
    codec.event_data({"state": state.value})
    for state in (BuildState.PROVISIONING, BuildState.QUEUED)
]
_SCARCE: Final = [
    codec.event_data({"reason": reason.value}).rstrip("}") + "%"
    for reason in (Reason.NO_CAPACITY, Reason.QUOTA)
]
_TRY: Final = [BuildState.QUEUED, BuildState.PROVISIONING, BuildState.QUEUED]
DYING: Final = (InstanceState.DELETING.value, InstanceState.GONE.value)


def before(to: BuildState) -> list[str]:
    """The states that a build may come from."""
    return [state.value for state, next_states in BUILD_NEXT.items() if to in next_states]


def instance_before(to: InstanceState) -> list[str]:
    """The states that an instance may come from."""
    return [state.value for state, next_states in INSTANCE_NEXT.items() if to in next_states]


def moved(to: BuildState) -> dict[str, Any]:
    """The columns that every move of a build sets."""
    return {
        "state": to.value,
        "state_since": arg("now"),
        "phases": _b.phases + arg("phase"),
        "events": _b.events + 1,
    }


def _owners_move(to: BuildState, **values: Any) -> Statement:
    """A move of a build by the holder of its epoch, with what else it sets."""
    return (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.epoch == arg("epoch"), _b.state.in_(before(to)))
        .values(**moved(to), **values)
        .returning(*codec.BUILD, _b.events)
    )


def instance_move(to: InstanceState, **values: Any) -> Update:
    """The same of an instance."""
    return (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.epoch == arg("epoch"), _i.state.in_(instance_before(to)))
        .values(state=to.value, state_since=arg("now"), **values)
    )


READ = Prepared(lambda: select(*codec.BUILD).where(_b.id == arg("id")))
_ADVANCE = {to: Prepared(partial(_owners_move, to)) for to in BuildState}
_ADVANCE_SANDBOX = Prepared(
    lambda: _owners_move(
        BuildState.RUNNING, hold_until=func.coalesce(_b.hold_until, _within(arg("hold_until")))
    )
)
_INSTANCE = {to: Prepared(partial(instance_move, to)) for to in InstanceState}
_INSTANCE_STATE = Prepared(lambda: select(_i.epoch, _i.state).where(_i.id == arg("id")))
MARK_DELETING = Prepared(
    lambda: instance_move(
        InstanceState.DELETING,
        epoch=_i.epoch + 1,
        death=arg("death"),
        message=arg("message"),
        delete_at=arg("now"),
    ).returning(*codec.INSTANCE)
)
_STEPS = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.epoch == arg("epoch"), _b.steps_started == false())
        .values(steps_started=true())
    )
)


def _first(column: Any, value: Any) -> Any:
    """A held build has its verdict already: the first one stands."""
    return case((_b.state == BuildState.HELD.value, column), else_=value)


_FINISH = Prepared(
    lambda: _owners_move(
        BuildState.FINISHED,
        result=_first(_b.result, arg("result")),
        reason=_first(_b.reason, arg("reason")),
        exit_code=_first(_b.exit_code, arg("exit_code")),
        message=_first(_b.message, arg("message")),
        finished_at=arg("now"),
        owner=None,
        owner_until=0.0,
        secrets=None,
        collected=func.coalesce(arg("collected"), _b.collected),
        usage=func.coalesce(arg("usage"), _b.usage),
        log_due=case((_b.chunks > 0, 0.0), else_=None),
    )
)
_DEADLINE = select(func.coalesce(_i.due, _i.deadline)).where(_i.id == _b.instance).scalar_subquery()


def _within(value: Any) -> Any:
    """A hold never outlasts the instance's deadline."""
    return case((value > _DEADLINE, _DEADLINE), else_=value)


_HOLD = Prepared(
    lambda: _owners_move(
        BuildState.HELD,
        result=arg("result"),
        reason=arg("reason"),
        exit_code=arg("exit_code"),
        message=arg("message"),
        hold_until=_within(arg("hold_until")),
        collected=arg("collected"),
        usage=arg("usage"),
        submitter=None,  # from here on it belongs to the ledger
        secrets=None,
    )
)
EXTEND = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("id"),
            _b.state.in_((BuildState.HELD.value, BuildState.RUNNING.value)),
            _b.hold_until.is_not(None),
            _within(_b.hold_until + arg("seconds")) > arg("now"),
            or_(
                _b.state == BuildState.HELD.value,
                _within(_b.hold_until + arg("seconds")) > _b.hold_until,
            ),
            exists().where(_i.id == _b.instance, _i.state.not_in(DYING)),
        )
        .values(hold_until=_within(_b.hold_until + arg("seconds")))
        .returning(*codec.BUILD)
    )
)
_REQUEUE = Prepared(
    lambda: _owners_move(
        BuildState.QUEUED,
        epoch=_b.epoch + 1,
        instance=None,
        owner=None,
        owner_until=0.0,
        steps_started=False,
        collected=None,
        attempt=_b.attempt - arg("uncounted"),
    )
)
_PHASES = Prepared(lambda: update(BUILDS).where(_b.id == arg("id")).values(phases=arg("phases")))
#: A try for a VM that was refused leaves nothing but its row; the old ones go.
_DROP_REFUSED = Prepared(
    lambda: (
        delete(INSTANCES)
        .where(
            _i.build == arg("id"),
            _i.state == InstanceState.GONE.value,
            _i.death == Death.REFUSED.value,
            _i.ref.is_(None),
            _i.created_at < arg("before"),
        )
        .returning(_i.id)
    )
)
#: … and of what it told, the first and the last.
_DROP_EVENTS = Prepared(
    lambda: delete(EVENTS).where(
        _e.build == arg("id"),
        _e.seq > FIRST_EVENTS,
        _e.seq <= select(_b.events).where(_b.id == arg("id")).scalar_subquery() - LAST_EVENTS,
        or_(
            _e.kind == EventKind.REFUSED.value,
            and_(_e.kind == EventKind.PHASE.value, _e.data.in_(_TRIED)),
            and_(_e.kind == EventKind.RETRY.value, or_(*map(_e.data.like, _SCARCE))),
        ),
    )
)
_TAKE = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("id"),
            _b.epoch == arg("epoch"),
            _b.state.not_in((BuildState.QUEUED.value, BuildState.FINISHED.value)),
        )
        .values(
            epoch=_b.epoch + 1, owner=arg("owner"), owner_until=arg("until"), events=_b.events + 1
        )
        .returning(*codec.BUILD, _b.events)
    )
)
_TAKE_INSTANCE = Prepared(
    lambda: (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.state.not_in(DYING))
        .values(epoch=arg("epoch"), owner=arg("owner"))
    )
)


def fetch(connection: Connection, build_id: str) -> BuildRecord:
    """Raises NotFound."""
    return codec.found_build(READ(connection, id=build_id).first(), build_id)


#: A build that ended, and its instance where that is to die now.
Ended = tuple[BuildRecord, Instance | None]


class BuildWrites:
    """The writes of a build's owner. Each raises Fenced when the epoch is no longer the build's:
    drop everything, do nothing more; Conflict when the state does not allow the move; NotFound."""

    def __init__(self, database: Database, shared: SharedWrites) -> None:
        self._database = database
        self._shared = shared

    def advance(
        self,
        build_id: str,
        *,
        epoch: int,
        to: BuildState,
        now: float,
        instance_to: InstanceState | None = None,
        hold_until: float | None = None,
    ) -> BuildRecord:
        """Move the build, and its instance with it. A build that is there already stays as it
        is, and so does an instance, so that a session that re-attaches may say it again.
        `hold_until`: of a sandbox that is ready, and never past its VM's deadline."""

        def work(connection: Connection) -> BuildRecord:
            values = {
                "id": build_id,
                "epoch": epoch,
                "now": now,
                "phase": codec.phase_text(to, now),
            }
            if hold_until is None:
                row = _ADVANCE[to](connection, **values).first()
            else:
                row = _ADVANCE_SANDBOX(connection, **values, hold_until=hold_until).first()
            if row is None:
                build = self._refused(connection, build_id, epoch, to)
            else:
                build = codec.build(row)
                put_event(connection, build_id, row[-1], EventKind.PHASE, now, state=to.value)
            if instance_to is not None and build.instance is not None:
                _move_instance(connection, build.instance, epoch, instance_to, now)
            return build

        return self._shared.write(work)

    def steps_started(self, build_id: str, *, epoch: int) -> bool:
        """Note that steps may have run. True when this call is the attempt's first to say so."""

        def work(connection: Connection) -> bool:
            if _STEPS(connection, id=build_id, epoch=epoch).rowcount:
                return True
            if fetch(connection, build_id).epoch != epoch:
                raise _fenced(build_id, epoch)
            return False

        return self._shared.write(work)

    def finish(self, build_id: str, **end: Unpack[BuildEnd]) -> Ended:
        """End it, release it, erase its secrets. The verdict of a held build stands; a finished
        build is returned as it is. With `doom` its instance is returned too, at an epoch one
        higher, unless it is dying already. Its log waits to be uploaded from then on."""
        return self._database.write(self._finishing(build_id, end))

    def finish_all(self, ends: Mapping[str, BuildEnd]) -> list[Ended | Exception]:
        """End these, by id, in as few transactions as may be. Returns for each what `finish` would
        return or raise."""
        return self._shared.write_all([self._finishing(*item) for item in ends.items()])

    def _finishing(self, build_id: str, end: BuildEnd) -> Callable[[Connection], Ended]:
        death = end.get("death")
        return self._ending(
            _FINISH, build_id, end["epoch"], BuildState.FINISHED, end["now"],
            DeathMark(death) if death is not None else None, **_verdict(end),
        )  # fmt: skip

    def hold(self, build_id: str, *, hold_until: float, **end: Unpack[BuildEnd]) -> BuildRecord:
        """Give its verdict but keep its VM, until `hold_until` or the deadline. The build belongs
        to the ledger from here on, and its secrets are erased."""
        work = self._ending(
            _HOLD, build_id, end["epoch"], BuildState.HELD, end["now"], hold_until=hold_until,
            **_verdict(end),
        )  # fmt: skip
        return self._database.write(work)[0]

    def requeue(self, build_id: str, *, epoch: int, now: float) -> BuildRecord:
        """Put a build back into the queue for another attempt, at a new epoch, with no instance."""
        work = self._ending(_REQUEUE, build_id, epoch, BuildState.QUEUED, now, uncounted=0)
        return self._database.write(work)[0]

    def put_back(
        self, build_id: str, *, epoch: int, now: float, before: float = 0.0
    ) -> BuildRecord:
        """The same of one to which no VM was given: that was no attempt, and it waited all along.
        However often that happens, it leaves no more: rows of refusals from `before` go."""
        ending = self._ending(_REQUEUE, build_id, epoch, BuildState.QUEUED, now, uncounted=1)

        def work(connection: Connection) -> BuildRecord:
            build, _ = ending(connection)
            if [phase.state for phase in build.phases[-3:]] == _TRY:
                kept = (*build.phases[:-3], replace(build.phases[-3], ended=None))
                build = replace(build, phases=kept)
                moves = (codec.phase_text(phase.state.value, phase.started) for phase in kept)
                _PHASES(connection, id=build_id, phases="".join(moves))
            gone = _DROP_REFUSED(connection, id=build_id, before=before).all()
            removed_vms.note_removed(connection, [row[0] for row in gone])
            _DROP_EVENTS(connection, id=build_id)
            return build

        return self._database.write(work)

    def retry(
        self, build_id: str, mark: DeathMark, *, epoch: int, now: float, counted: bool = True
    ) -> Ended:
        """The same of one whose instance is to die now, at an epoch one higher: at no time has a
        build an instance that its owner gave up. `counted`: what is over was an attempt."""
        uncounted = 0 if counted else 1
        work = self._ending(
            _REQUEUE, build_id, epoch, BuildState.QUEUED, now, mark, uncounted=uncounted
        )
        return self._database.write(work)

    def take_over(
        self, build_id: str, *, seen_epoch: int, owner: str, until: float, now: float
    ) -> BuildRecord | None:
        """Become the owner of a build that runs without one; its epoch and its instance's rise,
        which fences the former owner. None: another was faster, or it is over."""

        def work(connection: Connection) -> BuildRecord | None:
            row = _TAKE(connection, id=build_id, epoch=seen_epoch, owner=owner, until=until).first()
            if row is None:
                return None
            build = codec.build(row)
            if build.instance is not None:
                _TAKE_INSTANCE(connection, id=build.instance, epoch=build.epoch, owner=owner)
            put_event(connection, build_id, row[-1], EventKind.TAKE_OVER, now, owner=owner)
            return build

        return self._database.write(work)

    def _ending(
        self,
        statement: Prepared,
        build_id: str,
        epoch: int,
        to: BuildState,
        now: float,
        mark: DeathMark | None = None,
        **values: Any,
    ) -> Callable[[Connection], Ended]:
        from vmrunner.ledger.outbox import put_ended

        def work(connection: Connection) -> Ended:
            row = statement(
                connection, id=build_id, epoch=epoch, now=now,
                phase=codec.phase_text(to, now), **values,
            ).first()  # fmt: skip
            if row is None:
                return self._refused(connection, build_id, epoch, to), None
            build, dying = codec.build(row), None
            facts = {name: values[name] for name in ("result", "reason") if name in values}
            put_event(connection, build_id, row[-1], EventKind.PHASE, now, state=to.value, **facts)
            if to is not BuildState.QUEUED:  # of one that is held, the first time counts
                put_ended(connection, build, now)
            if to is BuildState.HELD and build.instance is not None:
                _move_instance(connection, build.instance, epoch, InstanceState.HELD, now)
            instance = build.instance if mark is None else mark.instance or build.instance
            if mark is not None and instance is not None:
                dying = MARK_DELETING(
                    connection, id=instance, epoch=epoch, death=mark.death.value, now=now,
                    message=mark.message,
                ).first()  # fmt: skip
            build = replace(build, cost=settle(connection, build_id, now))
            return build, codec.instance(dying) if dying is not None else None

        return work

    @staticmethod
    def _refused(connection: Connection, build_id: str, epoch: int, to: BuildState) -> BuildRecord:
        """The build where it is in that state already; else raises why a compare-and-set found no
        row."""
        build = fetch(connection, build_id)
        if build.epoch != epoch:
            raise _fenced(build_id, epoch)
        if build.state is to:
            return build
        raise Conflict(f"build {build_id} is {build.state}: it cannot become {to}")


def _verdict(end: BuildEnd) -> dict[str, Any]:
    return {
        "result": end["result"].value,
        "reason": end["reason"].value,
        "exit_code": end.get("exit_code"),
        "message": end.get("message", ""),
        "collected": end.get("collected"),
        "usage": codec.usage_text(end.get("usage", NO_USAGE)),
    }


def _fenced(name: str, epoch: int) -> Fenced:
    return Fenced(f"{name} has another owner: epoch {epoch} is over")


def _move_instance(
    connection: Connection, name: str, epoch: int, to: InstanceState, now: float
) -> None:
    if _INSTANCE[to](connection, id=name, epoch=epoch, now=now).rowcount:
        return
    row = _INSTANCE_STATE(connection, id=name).first()
    if row is None or row[0] != epoch:
        raise _fenced(name, epoch)
    if row[1] != to.value:
        raise Conflict(f"instance {name} is {row[1]}: it cannot become {to}")
