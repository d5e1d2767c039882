"""Memory limits of containers: their control groups, and whether one was used up.

The runtime takes a container's group away with it, so its out-of-memory kills are counted in the
group above, which is ours: by an event descriptor (version 1 of control groups, where that one has
the limit), or in its `memory.events` (version 2).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = Path("/sys/fs/cgroup")
_EMPTY: Final = 2.0  # seconds for what was killed to leave its group


class MemoryGroup:
    """The group above that of one container. `path`: the container's, as the runtime is told."""

    def __init__(self, name: str, resources: dict[str, Any]) -> None:
        """`resources`: the runtime's, whose limit may be kept here instead."""
        self.path = f"{name}/box"
        self._events: int | None = None
        self._killed = False
        self._directory = _own() / name
        self._directory.mkdir(parents=True, exist_ok=True)
        control = self._directory / "memory.oom_control"
        if control.exists() and (memory := resources.pop("memory", None)):
            (self._directory / "memory.limit_in_bytes").write_text(str(memory["limit"]))
            self._events = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            watched = os.open(control, os.O_RDONLY | os.O_CLOEXEC)
            text = f"{self._events} {watched}"
            (self._directory / "cgroup.event_control").write_text(text)
            os.close(watched)

    @property
    def processes(self) -> str:
        """The file that takes the pid of who is to be in our own group."""
        return f"{self._directory}/cgroup.procs"

    def killed(self) -> bool:
        """True if something in it was killed for want of memory."""
        if self._events is not None:
            with suppress(BlockingIOError):
                self._killed = os.eventfd_read(self._events) > 0
            return self._killed
        with suppress(OSError):
            lines = (self._directory / "memory.events").read_text().splitlines()
            return int(dict(line.split() for line in lines)["oom_kill"]) > 0
        return False

    def close(self) -> None:
        """Remove it, in each hierarchy, as far as nothing lives in it."""
        if self._events is not None:
            os.close(self._events)
            self._events = None
        name = self.path.partition("/")[0]
        end = time.monotonic() + _EMPTY
        groups = {top / name for top in (_own(), *_hierarchies())}
        while groups := {group for group in groups if not _removed(group)}:
            if time.monotonic() > end:
                raise OSError(f"processes live on in {sorted(groups)[0]}")
            time.sleep(0.02)


def sweep(prefix: str) -> None:
    """Remove what processes that are dead left: groups `PREFIX-PID-…`."""
    for top in (_own(), *_hierarchies()):
        for group in top.glob(f"{prefix}-*"):
            if not Path(f"/proc/{group.name.removeprefix(prefix).split('-')[1]}").exists():
                _removed(group)


def _removed(group: Path) -> bool:
    """Remove a group and those below it; False: something lives there."""
    for path in sorted((path for path in group.glob("**/") if path.is_dir()), reverse=True):
        with suppress(OSError):
            path.rmdir()
    return not group.exists()


def _own() -> Path:
    """The directory of our own group, of the hierarchy that has memory limits."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return _V1 / path.strip("/")
    return _V2 / _v2_path()


def _v2_path() -> str:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next((x[3:].strip("/") for x in lines if x.startswith("0::")), "")


def _hierarchies() -> list[Path]:
    """The directories of our own group in all of them."""
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        name = controllers.partition("=")[2] or controllers or "unified"
        found.append(_V2 / name / path.strip("/"))
    return found


def size(quantity: str | int) -> int:
    """Bytes of a Kubernetes quantity: `256Mi`, `1.5Gi`, `10M`, `1e3`."""
    text = str(quantity)
    units = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
    units |= {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    for unit, factor in units.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    return int(float(text))
