"""The container's cgroup: its processes, and what the kernel did to them."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from .state import ContainerError, Place


class Cgroup:
    """Found when it is first needed, by the runtime unless it is known. Where there is none,
    nothing is in it."""

    def __init__(self, place: Place, container: str = "", pid: int = 0) -> None:
        """`container`: its id, with `pid`, the driver's, as the VM sees it."""
        self._place = place
        self._id = container
        self._pid = pid if container else 0
        self.figures: dict[str, int | float] = {}  # of what it has used

    def count_oom_kills(self) -> int:
        """Processes of the container that the kernel killed for want of memory."""
        counts = dict(line.split() for line in self._lines("memory.events"))
        return int(counts.get("oom_kill", 0))

    def terminate(self) -> None:
        """TERM to all processes of the build. The driver, pid 1, is told to stop instead."""
        for pid in map(int, self._lines("cgroup.procs")):
            if pid != self._pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill all processes at once."""
        with suppress(OSError), open(f"{self._path()}/cgroup.kill", "w", encoding="utf-8") as file:
            file.write("1")

    def look(self) -> None:
        """Read anew what it has used. Figures only grow: the last that could be read stand."""
        with suppress(ModuleNotFoundError):  # in a stock image, whose user-data has no room
            from .usage import read

            self.figures |= read(self)

    def pid(self) -> int:
        """The driver, as the VM sees it. Raises OSError where it lives no more."""
        self._path()
        return self._pid

    def read(self, name: str) -> str:
        """A file in the container's cgroup. Raises OSError where it cannot be read."""
        with open(f"{self._path()}/{name}", encoding="utf-8") as file:
            return file.read()

    def _path(self) -> str:
        """The directory of the container's own cgroup. Raises OSError where there is none."""
        try:
            if not self._pid:
                self._id, self._pid = self._place.runtime.first(self._place)
            with open(f"/proc/{self._pid}/cgroup", encoding="utf-8") as file:
                path = file.read().strip().rpartition("::")[2]
        except (ContainerError, ValueError) as error:
            raise FileNotFoundError("no cgroup can be found") from error
        if self._id not in path:
            raise FileNotFoundError("the container has no cgroup of its own")
        return f"/sys/fs/cgroup{path}"

    def _lines(self, name: str) -> list[str]:
        """Lines of a file in the container's cgroup; none when it cannot be read."""
        try:
            return self.read(name).splitlines()
        except OSError:
            return []
