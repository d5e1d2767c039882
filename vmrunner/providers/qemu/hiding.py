"""What a QEMU that was taken over need not see of the host: its processes and its services.

Called in QEMU's own mount namespace. Read by the keeper: standard library only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vmrunner.providers.qemu import linux

_PROC: Final = "/tmp/proc"  # noqa: S108 - on the cradle's own tmpfs


def processes() -> None:
    """Of all /proc QEMU uses its own descriptors; the rest shows the host's processes. Making a
    /proc of its own is refused in a container, where part of the outer one is covered."""
    me = Path("/proc/self").readlink().name  # as the host counts, whose /proc it is
    Path(_PROC).mkdir()
    linux.mount_empty(_PROC)
    Path(_PROC, "self", "fd").mkdir(parents=True)
    linux.mount_over(f"/proc/{me}/fd", f"{_PROC}/self/fd")
    linux.mount_over(_PROC, "/proc")


def services() -> None:
    """The host's sockets: started by an ordinary user, QEMU may use all that he may. What is kept
    is the resolver's name, which on many systems lies there too."""
    resolv = Path("/etc/resolv.conf").resolve()
    kept = resolv.read_bytes() if resolv.is_relative_to("/run") and resolv.exists() else None
    linux.mount_empty("/run")
    if kept is not None:
        resolv.parent.mkdir(parents=True, exist_ok=True)
        resolv.write_bytes(kept)
