"""Processes of this machine, whose identity is certain before any kill.

Signals go through a pidfd, so that the checked process is the one that is hit. The keeper uses
this module: standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from vmrunner.lib import process
from vmrunner.model import Process
from vmrunner.providers.qemu import state_dir as layout

MARK: Final = "vmrunner="  # in the command line of QEMU: `guest=vmrunner=<hash>=<name>`
KEEPER: Final = "vmrunner.providers.qemu.keeper"  # the module

# Users of our own, above what systemd, containers and people use: one for each VM.
_FIRST_USER: Final = 0x7000_0000
_NOBODY: Final = 65534


def written(identity: Process) -> list[int | str]:
    """A process as a keeper's file names it."""
    return [identity.pid, identity.started, identity.boot, identity.pid_namespace]


def parse(value: Any) -> Process | None:
    """The reverse: a process of this machine, as its state directory is."""
    match value:
        case [int(pid), int(started), str(boot), str(namespace)]:
            machine = process.machine_id()
            return Process(
                machine=machine, boot=boot, pid_namespace=namespace, pid=pid, started=started
            )
        case _:
            return None


def send(target: Process, number: int) -> bool:
    """Signal exactly this process. False: it has ended, or is not in reach from here. Raises
    PermissionError when it is another user's."""
    if not process.alive(target):
        return False
    try:
        handle = os.pidfd_open(target.pid)
    except ProcessLookupError:
        return False
    try:
        if not process.alive(target):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def kernel() -> tuple[int, ...]:
    """The version of the kernel: major, minor."""
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def user(instance: str) -> tuple[int, int] | None:
    """Return the user that QEMU runs as when we are root, which nothing else is. None: as we
    are."""
    if os.geteuid() != 0:
        return None
    number = _FIRST_USER + int.from_bytes(hashlib.sha256(instance.encode()).digest()[:4]) % 2**27
    for chosen in (number, _NOBODY):  # a container's root has often only 65536 users, or one
        if _mapped("uid", chosen) and _mapped("gid", chosen):
            return (chosen, chosen)
    return None


def _mapped(kind: str, number: int) -> bool:
    """True if our own user namespace has this id."""
    for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
        first, _, count = (int(word) for word in line.split())
        if first <= number < first + count:
            return True
    return False


def marked(scope_mark: str) -> Iterator[tuple[Process, str]]:
    """QEMU's and keepers' processes that carry `scope_mark`, with the name that follows it. This
    needs no directory. Anybody can write a mark: it counts on a process of ours, or of the user
    that the VM of that name runs as."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            cmdline = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        name = name_in(cmdline, scope_mark)
        found = None if name is None else _running(int(entry.name))
        if name is not None and found is not None and _users(found.pid) <= _trusted(name):
            yield found, name


def _running(pid: int) -> Process | None:
    try:
        return process.of(pid)
    except ProcessLookupError:
        return None


def _trusted(name: str) -> set[int]:
    """Return the users whose processes a VM's may be."""
    parsed = layout.parse(name)
    return {os.geteuid(), *(user(parsed.instance) or () if parsed else ())}


def _users(pid: int) -> set[int]:
    """The real, effective, saved and file system user of a process; -1 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except OSError:
        return {-1}
    (line,) = (line for line in status.splitlines() if line.startswith("Uid:"))
    return set(map(int, line.split()[1:]))


def name_in(cmdline: bytes, scope_mark: str) -> str | None:
    """The instance name in a command line of ours: where QEMU and the keeper have it and nowhere
    else, for what carries it may be killed."""
    match cmdline.decode("utf-8", "replace").split("\0"):
        case [_, "-name", guest, *_]:
            name = guest.partition(",")[0].removeprefix("guest=")
        case [_, _, "-m", module, _, name, ""] if module == KEEPER:
            pass
        case _:
            return None
    return name.removeprefix(scope_mark) if name.startswith(scope_mark) else None


def resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 when it is gone."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def machine_id(state_dir: Path) -> str:
    """The machine's id; without one (some containers), an id kept in the state directory."""
    found = process.written_machine_id()
    if found is not None:
        return found
    kept = state_dir / "machine-id"
    if not kept.exists():
        made = kept.with_name(f".machine-id.{os.getpid()}")
        made.write_text(os.urandom(16).hex())
        with contextlib.suppress(FileExistsError):
            kept.hardlink_to(made)  # the first one wins
        made.unlink()
    return kept.read_text().strip()
