"""Figures of what builds and VMs used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildUsage:
    """Resources that a build's last attempt used; None: unknown. The first six figures are its
    container's, reported by the VM, where root can forge them. The last two are the whole VM's
    since its start, measured by its host."""

    memory_peak: int | None = None  # bytes at once
    cpu_seconds: float | None = None
    disk_read: int | None = None  # bytes
    disk_written: int | None = None
    network_received: int | None = None
    network_sent: int | None = None
    vm_cpu_seconds: float | None = None
    vm_disk: int | None = None  # bytes that its disk takes on its host

    def __post_init__(self) -> None:
        """Forget a container's CPU time that its whole VM has not had: in an emulated VM on a busy
        host the guest counts the time in which it was not run."""
        if (
            self.cpu_seconds is not None
            and self.vm_cpu_seconds is not None
            and self.cpu_seconds > self.vm_cpu_seconds * 1.1 + 1.0  # read at slightly other times
        ):
            object.__setattr__(self, "cpu_seconds", None)


NO_USAGE: Final = BuildUsage()


@dataclass(frozen=True, kw_only=True, slots=True)
class HostUsage:
    """Resources that a VM used, measured by its host. None: unknown."""

    cpu_seconds: float | None = None
    disk: int | None = None  # bytes
