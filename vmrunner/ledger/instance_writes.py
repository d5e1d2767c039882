"""The end of instances: from the decision to seen dead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.actions import add_action
from vmrunner.ledger.build_costs import settle
from vmrunner.ledger.build_writes import MARK_DELETING, instance_move
from vmrunner.ledger.events import add_event
from vmrunner.ledger.instance_reads import InstanceReads
from vmrunner.ledger.sql import Connection, func, select, update
from vmrunner.ledger.statements import Prepared, arg, run
from vmrunner.ledger.tables import BUILDS, INSTANCES
from vmrunner.model import BuildState, Death, EventKind, Instance, InstanceState

_b, _i = BUILDS.c, INSTANCES.c

_CLOSE = Prepared(
    lambda: instance_move(
        InstanceState.GONE,
        gone_at=arg("now"),
        death=func.coalesce(_i.death, arg("death")),
        message=func.coalesce(func.nullif(arg("message"), ""), _i.message),
        access=None,
        ordered=None,
    ).returning(_i.build)
)
_ERASE_SECRETS = Prepared(
    lambda: (
        update(BUILDS)
        .where(_b.id == arg("id"), _b.state == BuildState.FINISHED.value, _b.secrets.is_not(None))
        .values(secrets=None)
    )
)
_FENCE_BUILD = Prepared(
    lambda: (
        update(BUILDS)
        .where(
            _b.id == arg("build"),
            _b.instance == arg("instance"),
            _b.state != BuildState.FINISHED.value,
        )
        .values(epoch=arg("epoch"))
    )
)
_HELD = Prepared(
    lambda: select(_b.id).where(
        _b.id == select(_i.build).where(_i.id == arg("instance")).scalar_subquery(),
        _b.instance == arg("instance"),
        _b.state == BuildState.HELD.value,
        _b.cancel.is_(None),
        _b.hold_until > arg("now"),
    )
)
_TRIED = Prepared(
    lambda: (
        update(INSTANCES)
        .where(_i.id == arg("id"), _i.state == InstanceState.DELETING.value)
        .values(deletes=_i.deletes + 1, delete_at=arg("delete_at"))
    )
)


def note_death_mark(connection: Connection, dying: Instance, now: float) -> None:
    """Note that an instance must die: with its build, or among the actions."""
    death = dying.death.value if dying.death else ""
    if dying.build is not None:
        add_event(connection, dying.build, EventKind.DOOM, now, instance=dying.id, death=death)
    else:
        detail = f"{death}: {dying.message}".rstrip(": ")
        add_action(connection, dying.owner or "", "end", dying.id, now, detail)


class InstanceWrites(InstanceReads):
    """The writes that end instances."""

    def mark_deleting(
        self, instance_id: str, *, seen_epoch: int, death: Death, now: float, message: str = ""
    ) -> Instance | None:
        """Decide that it must die. Its epoch rises, and its unfinished build's to the same number,
        which fences its former owner: go on with the epoch of what is returned. None: the epoch is
        another by now, it dies already, or a hold that was over by `now`, the provider's clock, has
        been extended since."""

        def work(connection: Connection) -> Instance | None:
            self._lock(connection, [instance_id])
            if death is Death.DONE and _HELD(connection, instance=instance_id, now=now).first():
                return None
            row = MARK_DELETING(
                connection, id=instance_id, epoch=seen_epoch, death=death.value, now=now,
                message=message,
            ).first()  # fmt: skip
            if row is None:
                return None
            dying = codec.instance(row)
            _FENCE_BUILD(connection, build=dying.build, instance=dying.id, epoch=dying.epoch)
            note_death_mark(connection, dying, now)
            return dying

        return self._database.write(work)

    def tried(self, instance_id: str, delete_at: float) -> None:
        """Count a delete; the next one not before `delete_at`."""
        self._database.write(lambda c: _TRIED(c, id=instance_id, delete_at=delete_at))

    def close(
        self, instance_id: str, *, epoch: int, death: Death, now: float, message: str = ""
    ) -> bool:
        """Close the row of an instance that was seen dead, and erase what was sealed in it. An
        earlier reason to die stands. Return False when the epoch is another by now, or the row is
        closed already."""

        def work(connection: Connection) -> bool:
            self._lock(connection, [instance_id])
            return self._close(connection, instance_id, epoch, death, now, message)

        return self._database.write(work)

    def close_all(self, dead: Sequence[tuple[str, int, Death]], now: float) -> set[str]:
        """Close rows for (instance id, epoch, reason) in one transaction, and return the ids that
        it closed."""

        def work(connection: Connection) -> set[str]:
            self._lock(connection, [name for name, _, _ in dead])
            return {
                name
                for name, epoch, death in sorted(dead)
                if self._close(connection, name, epoch, death, now, "")
            }

        return self._database.write(work) if dead else set()

    # --- within ---

    def _lock(self, connection: Connection, instances: Iterable[str]) -> None:
        """Take their builds' rows before their own, in order. SQLite has one writer anyway."""
        if not self._database.sqlite:
            wanted = select(_i.build).where(_i.id.in_(list(instances)))
            run(
                connection, select(_b.id).where(_b.id.in_(wanted)).order_by(_b.id).with_for_update()
            )

    def _close(
        self,
        connection: Connection,
        instance_id: str,
        epoch: int,
        death: Death,
        now: float,
        message: str,
    ) -> bool:
        row = _CLOSE(
            connection, id=instance_id, epoch=epoch, death=death.value, now=now, message=message
        ).first()
        if row is None:
            return False
        if row[0] is not None:
            _ERASE_SECRETS(connection, id=row[0])
            settle(connection, row[0], now)
        return True
