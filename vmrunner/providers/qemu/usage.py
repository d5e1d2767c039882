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
    """Usage of a VM since its start; None when it is not there."""
    instance_dir = state.instance_dir(instance)
    if instance_dir is None:
        return None
    return HostUsage(cpu_seconds=_cpu(instance_dir, mark), disk=_disk(instance_dir))


def _cpu(instance_dir: InstanceDir, mark: str) -> float | None:
    """Seconds of its control group; where it has none, of QEMU and what keeps it."""
    group = (instance_dir.read(state_dir.KEEPER) or {}).get(state_dir.GROUP)
    try:
        if group:
            lines = (Path(group) / "cpu.stat").read_text().splitlines()
            return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
        pids = [
            owner.pid for owner, name in processes.marked(mark) if name == instance_dir.path.name
        ]
        return sum(map(_seconds, pids)) if pids else None
    except (OSError, ValueError, LookupError):
        return None


def _seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[_USER]) + int(words[_SYSTEM])) / os.sysconf("SC_CLK_TCK")


def _disk(instance_dir: InstanceDir) -> int | None:
    try:
        return (instance_dir.path / state_dir.OVERLAY).stat().st_blocks * _BLOCK
    except OSError:
        return None
