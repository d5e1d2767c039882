"""A control group for one VM: the only thing that bounds all memory that a QEMU can take.

It is made where that passes by no limit of the host's owner: beside a scope without one (a login,
`systemd-run --scope`), or below a service with `Delegate=yes` and `DelegateSubgroup=`. Elsewhere
there is none, and `doctor` says so. Version 2 only.
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
    own_group = tree / paths[0].lstrip("/")
    scope = own_group.suffix == ".scope" and not _limited(own_group)
    if not scope and own_group.parent.suffix != ".service":
        return None
    parent = own_group.parent
    return parent if _given(parent) and os.access(parent, os.W_OK) else None


def _given(group: Path) -> bool:
    """True if groups below it can have what we need: switched on already, or by us."""
    control = group / "cgroup.subtree_control"
    with contextlib.suppress(OSError):
        if not set(control.read_text().split()) >= _NEEDED:
            control.write_text(" ".join(f"+{name}" for name in sorted(_NEEDED)))
        return set(control.read_text().split()) >= _NEEDED
    return False


def _limited(group: Path) -> bool:
    try:
        return (group / "memory.max").read_text().strip() != "max"
    except OSError:
        return False


@contextlib.contextmanager
def made(where: Path | None, name: str, *, memory: int, processes: int) -> Iterator[Path | None]:
    """Make a group, which processes started in the block can `join`. Others' empty ones go."""
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
    """Move this process, and all that it starts from now on, into the group."""
    (group / "cgroup.procs").write_text("0")


def remove(group: Path) -> None:
    """Remove the group, unless a process is in it."""
    with contextlib.suppress(OSError):
        group.rmdir()
