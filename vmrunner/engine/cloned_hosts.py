"""Another host with this one's machine id: cloned from one disk, so that no node can tell whose a
local VM is. Each would take the other's VMs for gone, and their builds for lost.

One machine has one boot id at a time. A member of our machine in another boot is what this host was
before it booted, or a clone; only a clone's heartbeat goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from vmrunner.errors import ConfigError
from vmrunner.model import Process

if TYPE_CHECKING:
    from vmrunner.ledger.transfer_types import Member

#: Seconds in which a member that lives beats more than once.
SETTLED: Final = 15.0


def others_of(machine: Process, members: Iterable[Member]) -> list[Member]:
    """Return the members of the same machine id that ran in another boot than this process."""
    return [
        member
        for member in members
        if member.process.machine == machine.machine and member.process.boot != machine.boot
    ]


class CloneWatch:
    """Watch of a process that has just started over members of its machine in another boot. Who
    finds one that lives came second, and must not go on."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._beats: dict[str, tuple[float, float]] = {}  # member → beat, first seen (monotonic)
        self.over = False  # no other has lived since we started: who comes now finds us

    def look(self, members: Iterable[Member], now: float) -> ConfigError | None:
        """Take in the members; `now` is monotonic. Returns what is wrong, once a clone is seen to
        live. Until `over` nothing may be driven."""
        others = others_of(self._process, members)
        for member in others:
            beat, _ = self._beats.setdefault(member.id, (member.seen_at, now))
            if member.seen_at != beat:
                return refusal(member)
        self.over = all(now - self._beats[member.id][1] >= SETTLED for member in others)
        return None


def refusal(other: Member) -> ConfigError:
    """Error message about a clone."""
    return ConfigError(
        f"this host has the machine id {other.process.machine}, and so has the host of {other.id}, "
        "which lives: they were cloned, and each would take the other's local VMs for its own",
        hint="on one of them: rm /etc/machine-id /var/lib/dbus/machine-id; "
        "systemd-machine-id-setup; and reboot",
    )
