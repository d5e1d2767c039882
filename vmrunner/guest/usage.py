"""Figures of what a build has used: the container's cgroup, and its network.

They go with the container, so they are read while it lives: after each step, whose end waits for
that, and each second in between.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cgroup import Cgroup

Figures = dict[str, int | float]


def read(cgroup: Cgroup) -> Figures:
    """Return the figures so far. One that cannot be read is left out: unknown, not 0."""
    found: Figures = {}
    for part in (_memory, _cpu, _disk, _network):
        with suppress(OSError, ValueError, KeyError, IndexError):
            found |= part(cgroup)
    return found


def _memory(cgroup: Cgroup) -> Figures:
    return {"memory_peak": int(cgroup.read("memory.peak"))}


def _cpu(cgroup: Cgroup) -> Figures:
    values = dict(line.split() for line in cgroup.read("cpu.stat").splitlines())
    return {"cpu_seconds": int(values["usage_usec"]) / 1e6}


def _disk(cgroup: Cgroup) -> Figures:
    pairs = [entry.partition("=") for entry in cgroup.read("io.stat").split()]

    def total(name: str) -> int:
        return sum(int(value) for key, _, value in pairs if key == name)

    return {"disk_read": total("rbytes"), "disk_written": total("wbytes")}


def _network(cgroup: Cgroup) -> Figures:
    """Bytes as the container's interfaces count them; nothing leaves the VM by `lo`."""
    with open(f"/proc/{cgroup.pid()}/net/dev", encoding="ascii") as file:
        lines = [line.partition(":") for line in file.read().splitlines()[2:]]
    counts = [rest.split() for name, _, rest in lines if name.strip() != "lo"]
    return {
        "network_received": sum(int(count[0]) for count in counts),
        "network_sent": sum(int(count[8]) for count in counts),
    }
