"""The rows and builds of an engine that a tick looks at.

Most of them just go on: their session runs, none is cancelled, their end is far. What could concern
such a build changes its rows, its session or its providers, or is a matter of time. All others are
looked at in each tick, and all of them whenever all was read (`ledger.open_rows`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from vmrunner.engine.context import EngineContext
from vmrunner.engine.sessions import SessionManager
from vmrunner.engine.snapshot import Snapshot
from vmrunner.model import BuildRecord, BuildState, Instance, InstanceState, Scope

#: Seconds before a VM's deadline at which its session is told to hand over the last of its log.
LOG_HANDOVER: Final = 5.0


def last_moment(build: BuildRecord, row: Instance) -> float:
    """The time at which its session must end, by the VM's clock."""
    end = row.end - LOG_HANDOVER
    return min(end, build.hold_until) if build.was_ready and build.hold_until else end


_Place = tuple[str, Scope]


class WorkSelector:
    """Choice of what a tick looks at. Used by the tick's thread alone."""

    def __init__(
        self,
        context: EngineContext,
        sessions: SessionManager,
        settled: Callable[[], Callable[[Instance], bool]],
    ) -> None:
        """`settled` returns a predicate for this moment: true for a VM about which the rest of the
        engine has nothing to do."""
        self._context = context
        self._sessions = sessions
        self._settled = settled
        self._restless: set[str] = set()
        self._ends: dict[_Place, list[tuple[float, str]]] = {}  # heaps, by whose clock it is

    def pick(self, snapshot: Snapshot) -> None:
        """Note in the snapshot what is restless."""
        touched = self._sessions.touched()
        if snapshot.changed is None:
            self._ends = {}
            names: set[str] = snapshot.mine.keys() | snapshot.builds.keys()
        else:
            names = self._restless | snapshot.changed | touched | self._due(snapshot)
        for name in list(names):
            row, build = snapshot.mine.get(name), snapshot.builds.get(name)
            if row is not None and row.build:
                names.add(row.build)
            if build is not None and build.instance:
                names.add(build.instance)
        snapshot.restless = set(self._unsettled(snapshot, names))
        self._restless = snapshot.restless

    # --- within ---

    def _unsettled(self, snapshot: Snapshot, names: set[str]) -> Iterable[str]:
        goes_on = self._question()
        for name in names:
            row, build = snapshot.mine.get(name), snapshot.builds.get(name)
            if row is not None:
                build = snapshot.builds.get(row.build or "")
                if build is None or not goes_on(build, row):
                    yield name
                    if build is not None and build.instance == name and self._concerns(build):
                        yield build.id
            elif build is not None and self._concerns(build):
                row = snapshot.mine.get(build.instance or "")
                listed = row is not None and row.build == name and row.id in names  # with its VM
                if not listed:
                    yield name

    def _concerns(self, build: BuildRecord) -> bool:
        """True for a build of ours, one that was, and a cancelled one in the queue."""
        ours = build.owner == self._context.id or self._sessions.of(build.id) is not None
        return ours or build.state is BuildState.QUEUED

    def _question(self) -> Callable[[BuildRecord, Instance], bool]:
        """A predicate for this moment: true for a build that just goes on in its VM."""
        context, settled = self._context, self._settled()
        times: dict[_Place, float] = {}

        def goes_on(build: BuildRecord, row: Instance) -> bool:
            active = self._sessions.of(build.id)
            if not (
                build.state is BuildState.RUNNING
                and row.state is InstanceState.BUSY
                and build.instance == row.id
                and build.owner == row.owner == context.id
                and build.epoch == row.epoch
                and build.cancel is None
                and build.submitter is None
                and active is not None
                and active.epoch == build.epoch
                and active.stopped is None
                and settled(row)
            ):
                return False
            place, end = (row.provider, row.scope), last_moment(build, row)
            if place not in times:
                times[place] = context.now(row)
            if times[place] >= end:
                return False
            heapq.heappush(self._ends.setdefault(place, []), (end, row.id))
            return True

        return goes_on

    def _due(self, snapshot: Snapshot) -> set[str]:
        """The VMs whose end is near, each by its own clock."""
        due = set()
        for heap in self._ends.values():
            while heap and heap[0][1] not in snapshot.mine:
                heapq.heappop(heap)
            if heap:
                now = self._context.now(snapshot.mine[heap[0][1]])
                while heap and heap[0][0] <= now:
                    due.add(heapq.heappop(heap)[1])
        return due
