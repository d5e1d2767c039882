"""Rows of VMs on hosts that are gone for good: only such a host's own processes could see them
dead, so another engine must know when they cannot live any more.

A local VM ends at its deadline by its host's clock, whatever else lives (`Driver.host_bound`). The
last reading of that clock is the last beat of the VM's owner there, and the deadline is told by the
same clock: when we have known that reading for the time between the two, the deadline has passed
there, however wrong either clock is. Only a host that slept meanwhile, or whose clock was set back
by more than `DOUBT` after that beat, may still have the VM: it ends in the moment in which the host
wakes, or by its own reaper, and its build's epoch is over by then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from vmrunner.engine import lifecycle_log
from vmrunner.engine.context import EngineContext, log
from vmrunner.engine.membership import Membership
from vmrunner.engine.snapshot import Snapshot
from vmrunner.model import Death, Instance
from vmrunner.providers import registry

LOOK: Final = 10.0  # seconds between two looks
#: Seconds past the deadline: for a clock that was corrected meanwhile, and for its keeper.
DOUBT: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Watch:
    sign: tuple[float, int, int]  # what changes while a process minds the VM
    over: float  # when it cannot live any more, monotonic


class GoneHosts:
    """Watch over VMs that this engine cannot reach. Used by the tick's thread alone."""

    def __init__(self, context: EngineContext, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._watched: dict[str, _Watch] = {}
        self._looked = float("-inf")

    def update(self, snapshot: Snapshot) -> None:
        """Close the rows of VMs that cannot live any more, whose owners are gone. Their builds are
        taken over then as those of any VM that is gone."""
        now = self._context.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        watched = {}
        for row in snapshot.everybody.values():
            if row.id in snapshot.rows or not registry.is_host_bound(row.scope.kind):
                continue
            watch = watched[row.id] = self._watch(row, now)
            if now >= watch.over and self._membership.member_gone(row.owner):
                with self._context.guard("give up", row.build):
                    self._close(snapshot, row)
        self._watched = watched

    def _watch(self, row: Instance, now: float) -> _Watch:
        # A clock that was set back after the VM's birth has a beat before it: the later time.
        beat = self._membership.last_beat(row.owner)
        read = row.created_at if beat is None else beat
        # A process there that deletes and does not succeed counts it: that host is not gone.
        former, sign = self._watched.get(row.id), (read, row.epoch, row.deletes)
        if former is not None and former.sign == sign:
            return former
        return _Watch(sign, now + max(0.0, row.deadline - read) + DOUBT)

    def _close(self, snapshot: Snapshot, row: Instance) -> None:
        text = f"its host {row.scope.account} was not heard of until long past the VM's deadline"
        death = row.death or Death.VANISHED
        if self._context.ledger.instances.close(
            row.id, epoch=row.epoch, death=death, now=row.deadline, message=text
        ):
            log.warning("%s is given up: %s", row.id, text)
            lifecycle_log.gone(row, death)
            snapshot.closed.add(row.id)
