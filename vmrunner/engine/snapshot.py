"""Knowledge of one tick of an engine.

The rows are read before the builds. A row that was read then has a build at least as new, so that a
row without a build that needs it is needed by none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vmrunner.engine.context import EngineContext
from vmrunner.engine.membership import Membership
from vmrunner.ledger.open_rows import OpenRows
from vmrunner.model import BuildRecord, Instance, Scope
from vmrunner.providers import Provider

T = TypeVar("T")


@dataclass(slots=True)
class Snapshot:
    """The knowledge of one tick. `rows` are the open ones within our scopes, `mine` those of them
    that this engine answers for: its own, and those whose owner is gone. `unread`: ids of rows that
    cannot be read, of VMs and builds: nothing may be concluded about these. `restless`: ids of
    our rows and builds that something may have to be done about; the others just go on."""

    everybody: Mapping[str, Instance]
    rows: dict[str, Instance]
    builds: dict[str, BuildRecord]  # neither queued nor finished, or queued and cancelled
    mine: dict[str, Instance]
    unread: frozenset[str]
    orphaned: list[BuildRecord]  # their owners are gone
    changed: frozenset[str] | None  # ids of what differs from the tick before; None: whichever
    restless: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)  # in this very tick

    @property
    def open(self) -> set[str]:
        """The ids of all rows that are not closed, as far as we know, wherever they are."""
        return self.everybody.keys() - self.closed | self.unread

    def newly_open(self) -> set[str] | None:
        """The same as `open`; None where that did not change since the tick before."""
        return self.open if self.is_new or self.closed else None

    @property
    def is_new(self) -> bool:
        """True if anything differs from the tick before."""
        return self.changed is None or bool(self.changed)

    def restless_rows(self) -> list[Instance]:
        """Return our rows that something may have to be done about, oldest first."""
        return [self.mine[name] for name in sorted(self.restless & self.mine.keys())]

    def restless_builds(self) -> list[BuildRecord]:
        """The same of builds."""
        return [self.builds[name] for name in sorted(self.restless & self.builds.keys())]

    def update(self, row: Instance) -> None:
        """Something of it changed in this very tick. The provider stays that which acts on it."""
        provider = self.rows[row.id].provider
        if row.provider != provider:
            row = replace(row, provider=provider)
        self.rows[row.id] = row
        self.mine[row.id] = row
        self.restless.add(row.id)


class SnapshotReader:
    """The open rows and their builds from tick to tick: only what changed is sorted again. Used by
    the tick's thread alone."""

    def __init__(self, context: EngineContext, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._reader = context.ledger.open_rows(images=False)
        self._builds: Mapping[str, BuildRecord] = {}
        self._rows: dict[str, Instance] = {}  # those within our scopes
        self._rows_of: dict[str | None, dict[str, Instance]] = {}  # the same, by owner
        self._builds_of: dict[str | None, dict[str, BuildRecord]] = {}
        self._providers: Mapping[str, Provider] = {}
        self._scopes: dict[str, frozenset[Scope]] = {}  # of the providers that were asked
        self._gone: frozenset[str | None] = frozenset()
        self._finished = False  # the tick that read last came to its end

    def read(self) -> Snapshot:
        """Read the open rows, then the builds, then the members: an engine that claimed one of them
        joined before."""
        context = self._context
        finished, self._finished = self._finished, False
        found = self._reader.read(context.monotonic())
        self._membership.update(context.ledger.engines.list(), context.monotonic())
        if not finished:  # what changed before may still have to be looked at
            found = replace(found, changed=None)
        changed = self._sort(found)
        owners = (self._rows_of.keys() | self._builds_of.keys()) - {context.id}
        gone = frozenset(name for name in owners if self._membership.member_gone(name))
        if gone - self._gone:
            changed = None
        self._gone = gone
        mine = dict(self._rows_of.get(context.id, {}))
        orphaned: dict[str, BuildRecord] = {}
        for owner in gone:
            mine |= self._rows_of.get(owner, {})
            orphaned |= self._builds_of.get(owner, {})
        return Snapshot(
            everybody=found.rows,
            rows=dict(self._rows),
            builds=dict(found.builds),
            mine=mine,
            unread=found.unread,
            orphaned=[orphaned[name] for name in sorted(orphaned)],
            changed=changed,
        )

    def finish(self) -> None:
        """Note that the tick came to its end: the next one looks at what changes from here on."""
        self._finished = True

    def _sort(self, found: OpenRows) -> frozenset[str] | None:
        """Sort what changed. The changed ids; None: all, also where providers act elsewhere now."""
        changed, providers = found.changed, self._context.providers
        former = self._scopes if found.rows else {}
        scopes = {
            name: self._context.all_scopes(providers[name]) for name in former if name in providers
        }
        if changed is None or providers is not self._providers or scopes != self._scopes:
            changed, names = None, found.rows.keys() | found.builds.keys()
            self._builds, self._rows, self._rows_of, self._builds_of = {}, {}, {}, {}
            scopes = {}
        else:
            names = set(changed)
        for name in names & self._rows.keys():
            _remove(self._rows_of, self._rows.pop(name).owner, name)
        for name in names & self._builds.keys():
            _remove(self._builds_of, self._builds[name].owner, name)
        fresh = [found.rows[name] for name in sorted(names & found.rows.keys())]
        for row in self._context.reached(fresh, scopes):
            self._rows[row.id] = row
            self._rows_of.setdefault(row.owner, {})[row.id] = row
        for name in names & found.builds.keys():
            build = found.builds[name]
            self._builds_of.setdefault(build.owner, {})[name] = build
        self._builds, self._providers, self._scopes = found.builds, providers, scopes
        return changed


def _remove(groups: dict[str | None, dict[str, T]], owner: str | None, name: str) -> None:
    del groups[owner][name]
    if not groups[owner]:
        del groups[owner]
