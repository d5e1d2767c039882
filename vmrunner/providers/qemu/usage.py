"""Use of a VM as this host sees it: CPU time of what runs it, and the room of its disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from vmrunner.model import HostUsage
from vmrunner.providers.qemu import processes, state_dir
from vmrunner.providers.qemu.state_dir import InstanceDir, StateDir

_BLOCK: Final = 512  # bytes, as `stat` counts what a file takes
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat, after the name


def used(state: StateDir, mark: str, instance: str) -> HostUsage | None:
    """Return what a VM used since its start; None when it is gone."""
    home = state.home(instance)
    if home is None:
        return None
    return HostUsage(cpu_seconds=_cpu(home, mark), disk=_disk(home))


def _cpu(home: InstanceDir, mark: str) -> float | None:
    """Seconds of its control group; where it has none, of QEMU and what keeps it."""
    group = (home.read(state_dir.KEEPER) or {}).get(state_dir.GROUP)
    try:
        if group:
            lines = (Path(group) / "cpu.stat").read_text().splitlines()
            return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
        theirs = [who.pid for who, name in processes.marked(mark) if name == home.path.name]
        return sum(map(_seconds, theirs)) if theirs else None
    except (OSError, ValueError, LookupError):
        return None


def _seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[_USER]) + int(words[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def _disk(home: InstanceDir) -> int | None:
    try:
        return (home.path / state_dir.OVERLAY).stat().st_blocks * _BLOCK
    except OSError:
        return None
