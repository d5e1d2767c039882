"""A control group for one VM: the only thing that bounds all memory that a QEMU can take.

It is made where systemd has given a part of the tree away, so that no limit of the host's owner is
passed by: beside a scope (a login, `systemd-run --scope`), or below a service with `Delegate=yes`
and `DelegateSubgroup=`. Elsewhere there is none, and `doctor` says so. Version 2 only.
Read by the keeper: standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TREE: Final = Path("/sys/fs/cgroup")
_NEEDED: Final = frozenset({"memory", "pids"})
_PREFIX: Final = "vmrunner-"


def place(tree: Path = _TREE, own: str | None = None) -> Path | None:
    """The directory in which this process may make groups; None where there is none."""
    lines = Path("/proc/self/cgroup").read_text() if own is None else own
    paths = [line[3:] for line in lines.splitlines() if line.startswith("0::/")]
    if not paths or ".." in paths[0]:
        return None
    mine = tree / paths[0].lstrip("/")
    if mine.suffix != ".scope" and mine.parent.suffix != ".service":
        return None
    there = mine.parent
    with contextlib.suppress(OSError):
        (there / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in sorted(_NEEDED)))
    try:
        given = (there / "cgroup.subtree_control").read_text().split()
    except OSError:
        return None
    return there if set(given) >= _NEEDED and os.access(there, os.W_OK) else None


@contextlib.contextmanager
def made(where: Path | None, name: str, *, memory: int, processes: int) -> Iterator[Path | None]:
    """A group that whoever is started meanwhile can `join`. What others left empty goes."""
    if where is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        lock = os.open(where, os.O_RDONLY)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)  # a group that is empty because it is new is left alone
        for old in where.glob(f"{_PREFIX}*"):
            remove(old)
        group = where / f"{_PREFIX}{name}"
        group.mkdir(exist_ok=True)
        (group / "memory.max").write_text(str(memory))
        (group / "memory.oom.group").write_text("1")
        (group / "pids.max").write_text(str(processes))
        yield group


def join(group: Path) -> None:
    """This process, and whatever it starts from now on."""
    (group / "cgroup.procs").write_text("0")


def remove(group: Path) -> None:
    """Unless somebody is in it."""
    with contextlib.suppress(OSError):
        group.rmdir()
