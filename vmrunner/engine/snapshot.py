"""Knowledge of one tick of an engine.

The rows are read before the builds. A row that was read then has a build at least as new, so that
a row without a build that needs it is one that nobody needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from vmrunner.engine.context import EngineContext
from vmrunner.engine.membership import Membership
from vmrunner.model import BuildRecord, Instance


@dataclass(slots=True)
class Snapshot:
    """The knowledge of one tick. `rows` are the open ones within our scopes, `mine` those of them
    that this engine answers for: its own, and those whose owner is gone. `unread`: ids of rows that
    cannot be read, of VMs and builds: nothing may be concluded about these."""

    everybody: list[Instance]
    rows: dict[str, Instance]
    builds: dict[str, BuildRecord]  # neither queued nor finished, or queued with a wish to end
    mine: dict[str, Instance]
    unread: frozenset[str]
    closed: set[str] = field(default_factory=set)  # in this very tick

    @property
    def open(self) -> set[str]:
        """The ids of all rows that are not closed, as far as we know, wherever they are."""
        return {row.id for row in self.everybody} - self.closed | self.unread

    def update(self, row: Instance) -> None:
        """Something of it changed in this very tick. The provider stays that which acts on it."""
        row = replace(row, provider=self.rows[row.id].provider)
        self.rows[row.id] = row
        self.mine[row.id] = row


def read_snapshot(context: EngineContext, membership: Membership) -> Snapshot:
    """Read the open rows, then the builds, then who is there: who claimed one of them joined
    before."""
    everybody, driven = context.ledger.instances.open(), context.ledger.builds.driven()
    membership.update(context.ledger.engines.list(), context.monotonic())
    builds = {build.id: build for build in driven}
    rows = {row.id: row for row in context.reached(everybody)}
    mine = {
        name: row
        for name, row in rows.items()
        if row.owner == context.id or membership.member_gone(row.owner)
    }
    unread = everybody.unread | driven.unread
    return Snapshot(everybody=everybody, rows=rows, builds=builds, mine=mine, unread=unread)
