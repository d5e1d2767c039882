"""Pages of builds, newest first: of so many builds at most, and of so many bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select

from vmrunner.ledger import row_codec as codec
from vmrunner.ledger.labels import having, owned
from vmrunner.ledger.row_reading import readable
from vmrunner.ledger.tables import BUILDS
from vmrunner.model import BuildRecord, BuildState

_b = BUILDS.c


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildChoice:
    """The builds that a list is of. `active`: only those not finished (True) or finished (False);
    `states`: only those in one of them; `own`: only those of the principal
    with this label filter; `tenant`: only those that this one submitted; `before`: only those whose
    id sorts before that."""

    active: bool | None = None
    states: Collection[BuildState] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)
    tenant: str | None = None
    before: str | None = None

    def select(self, *columns: ColumnElement[Any]) -> Select[*tuple[Any, ...]]:
        """A query of their columns, newest first."""
        conditions = [*having(_b.id, self.labels), *owned(self.own)]
        if self.tenant is not None:
            conditions.append(_b.tenant == self.tenant)
        if self.active is not None:
            done = _b.state == BuildState.FINISHED.value
            conditions.append(~done if self.active else done)
        if self.states:
            conditions.append(_b.state.in_([state.value for state in self.states]))
        if self.before is not None:
            conditions.append(_b.id < self.before)
        return select(*columns).where(*conditions).order_by(_b.id.desc())


@dataclass(frozen=True, slots=True)
class BuildPage:
    """Some builds. `next`: what the page after this one is before; None: there is none."""

    builds: Sequence[BuildRecord] = ()
    next: str | None = None


def read(connection: Connection, choice: BuildChoice, limit: int, size: int) -> BuildPage:
    """The first of them, as many as `limit` allows, and `size`, in bytes of their specs; one at
    least."""
    last: str | None = None
    remaining, more = size, False
    sizes = choice.select(_b.id, func.length(_b.spec)).limit(limit + 1)
    for count, (name, length) in enumerate(connection.execute(sizes).all()):
        remaining -= length
        if more := count == limit or (remaining < 0 and count > 0):
            break
        last = name
    if last is None:
        return BuildPage()
    found = connection.execute(choice.select(*codec.BUILD).where(_b.id >= last))
    # By the row: one that cannot be read is no end of the list.
    return BuildPage(readable(codec.build, found), last if more else None)
