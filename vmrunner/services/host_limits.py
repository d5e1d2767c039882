"""Limits of this host, against what so many builds at once need. A local VM's programs run beside
the engine, and count with it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vmrunner.model import Finding, Level

_TREE: Final = Path("/sys/fs/cgroup")
#: Threads and descriptors of the engine, the reaper and the HTTP API themselves.
_OWN: Final = 200
_THREADS: Final = 3  # of a build: its session, its connection, its artifacts
_FILES: Final = 8  # … descriptors: its connection, pipes, logs, artifacts
_PROGRAMS: Final = 24  # of a local VM, with their threads: keeper, QEMU, network


def findings(builds: int, *, local: bool, given: dict[str, int | None]) -> Iterator[Finding]:
    """Compare `max_instances` with what is given (`of_this_process`)."""
    tasks = _OWN + builds * (_THREADS + (_PROGRAMS if local else 0))
    files = _OWN + builds * _FILES
    for name, most in given.items():
        needed, what, unit = (
            (files, "open files", "LimitNOFILE=")
            if name == "RLIMIT_NOFILE"
            else (tasks, "threads and processes", "TasksMax= and LimitNPROC=")
        )
        if most is not None and most < needed:
            yield Finding(
                check="limits",
                level=Level.WARNING,
                message=f"{name} is {most} here; max_instances = {builds} may need {needed} {what}",
                fix=f"raise it (systemd: {unit}; a shell: ulimit), or lower max_instances",
            )


def of_this_process(tree: Path = _TREE, own: str | None = None) -> dict[str, int | None]:
    """Return each limit by name; None where there is none."""
    given = {"RLIMIT_NOFILE": _soft(resource.RLIMIT_NOFILE), "pids.max": _pids_max(tree, own)}
    if os.geteuid():  # root may have any number
        given["RLIMIT_NPROC"] = _soft(resource.RLIMIT_NPROC)
    return given


def _soft(what: int) -> int | None:
    soft, _ = resource.getrlimit(what)
    return None if soft == resource.RLIM_INFINITY else soft


def _pids_max(tree: Path, own: str | None) -> int | None:
    """Return the smallest of those above this process, in control groups of version 2."""
    lines = Path("/proc/self/cgroup").read_text() if own is None else own
    paths = [line[4:] for line in lines.splitlines() if line.startswith("0::/")]
    found = []
    for path in paths:
        group = tree / path
        for place in (group, *group.parents):
            if not place.is_relative_to(tree):
                break
            try:
                text = (place / "pids.max").read_text().strip()
            except OSError:
                continue
            found += [int(text)] if text.isdigit() else []
    return min(found, default=None)
