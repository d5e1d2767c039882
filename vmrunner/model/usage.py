"""Figures of what builds and VMs used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildUsage:
    """Use of a build, in its last attempt. None: unknown. The first six are of its container, as
    the VM says: whoever became root there can say anything. The last two are of the whole VM since
    its start, as its host says."""

    memory_peak: int | None = None  # bytes at once
    cpu_seconds: float | None = None
    disk_read: int | None = None  # bytes
    disk_written: int | None = None
    network_received: int | None = None
    network_sent: int | None = None
    vm_cpu_seconds: float | None = None
    vm_disk: int | None = None  # bytes that its disk takes on its host


NO_USAGE: Final = BuildUsage()


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUsage:
    """Use of a VM, as who runs it sees from outside. None: unknown."""

    cpu_seconds: float | None = None
    disk: int | None = None  # bytes
