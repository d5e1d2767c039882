"""The processes of one command of a sandbox: a control group below the container's. Where the
container has none of its own, they are what descends from the command's shell."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

ROOT = "/sys/fs/cgroup"


class CommandGroup:
    """`cgroup` is a directory, or empty; `shell` the pid of the first process."""

    def __init__(self, cgroup: str, shell: int) -> None:
        self._cgroup = cgroup
        self._shell = shell

    @classmethod
    def make(cls, root: int, name: str, shell: int) -> CommandGroup:
        """A group for a shell in the container whose first process is `root`."""
        above = group_of(root)
        if "docker" not in above or not os.path.exists(f"{above}/cgroup.kill"):
            return cls("", shell)
        path = f"{above}/command-{name}"
        os.makedirs(path, exist_ok=True)
        with open(f"{path}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(shell))
        return cls(path, shell)

    @classmethod
    def load(cls, path: str) -> CommandGroup:
        """Return the group that was saved there. Raises FileNotFoundError."""
        with open(path, encoding="utf-8") as file:
            shell, _, cgroup = file.read().partition(" ")
        return cls(cgroup, int(shell))

    @property
    def shell(self) -> int:
        return self._shell

    def save(self, path: str) -> None:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.write(f"{self._shell} {self._cgroup}")
        os.rename(f"{path}.new", path)

    def processes(self) -> list[int]:
        """Return the pids of its processes."""
        if not self._cgroup:
            return descendants(self._shell)
        with suppress(OSError), open(f"{self._cgroup}/cgroup.procs", encoding="ascii") as file:
            return [int(line) for line in file]
        return []

    def signal(self, number: int) -> None:
        """Send a signal to all but the shell, which is to say how the command ended."""
        for pid in self.processes():
            if pid != self._shell:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def kill(self) -> None:
        """Kill them all, the shell too."""
        if self._cgroup:
            with suppress(OSError), open(f"{self._cgroup}/cgroup.kill", "w") as file:
                file.write("1")
            return
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def remove(self) -> None:
        """Remove the group, once it is empty."""
        if self._cgroup:
            with suppress(OSError):
                os.rmdir(self._cgroup)


def group_of(pid: int) -> str:
    """Return the directory of a process's control group."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return ROOT + file.read().strip().rpartition("::")[2]


def is_full(root: int) -> bool:
    """True if the container whose first process that is has as many processes as it may."""
    with suppress(OSError, ValueError):  # without a limit there is no number
        with open(f"{group_of(root)}/pids.max", encoding="ascii") as file:
            most = int(file.read())
        with open(f"{group_of(root)}/pids.current", encoding="ascii") as file:
            return int(file.read()) >= most
    return False


def descendants(root: int) -> list[int]:
    """Return a process that lives and all that descend from it."""
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        with suppress(OSError):
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                is_zombie = file.read().rpartition(") ")[2].startswith("Z")
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
                todo += map(int, file.read().split())
            found += [] if is_zombie else [pid]
    return found
