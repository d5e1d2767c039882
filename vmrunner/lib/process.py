"""Identity of a process, and whether it is certainly gone.

A pid alone says nothing: it is used again, and it means another process in another pid namespace
or on another machine. So an identity is machine, boot, pid namespace, pid and start time. VMs'
keepers use this module: standard library only.
"""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

from vmrunner.model import Process

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19  # fields of /proc/PID/stat, counted behind the command's last ")"


def current() -> Process:
    """Return the identity of this process. Another pid after a fork gives another identity."""
    return of(os.getpid())


def user() -> str:
    """The user of this process, as the ledger notes it: `local:UID@HOST`."""
    return f"local:{os.getuid()}@{socket.gethostname()}"


def alive(process: Process, *, one_host: bool = False) -> bool | None:
    """True: it runs. False: it is gone, for certain. None: it cannot be told from here, because
    it ran on another machine, in another boot or in another pid namespace.

    `one_host`: the ledger is a file of this host, so that the same machine id is the same machine
    (cloned machines may share it) and another boot id means that it has booted since."""
    here = _here(os.getpid())
    if process.machine != here.machine:
        return None
    if process.boot != here.boot:
        return False if one_host else None
    if process.pid_namespace != here.pid_namespace:
        return None
    fields = _stat(process.pid)
    if fields is None:
        return False
    # A zombie has ended; only its parent has not looked yet.
    return int(fields[_STARTED]) == process.started and fields[_STATE] not in ("Z", "X", "x")


def of(pid: int) -> Process:
    """A process of this pid namespace. Raises ProcessLookupError when there is none."""
    here = _here(os.getpid())
    fields = _stat(pid)
    if fields is None:
        raise ProcessLookupError(f"no process {pid}")
    return Process(
        machine=here.machine,
        boot=here.boot,
        pid_namespace=here.pid_namespace,
        pid=pid,
        started=int(fields[_STARTED]),
    )


@functools.lru_cache(maxsize=4)
def _here(pid: int) -> Process:
    """Machine, boot and namespace of this process; cached by pid, since a fork may change them."""
    return Process(
        machine=machine_id(),
        boot=(_PROC / "sys/kernel/random/boot_id").read_text().strip(),
        pid_namespace=str((_PROC / "self/ns/pid").readlink()),
        pid=pid,
        started=0,
    )


def machine_id() -> str:
    """The machine's own id; where it has none (a bare container), its boot id: such an identity
    never outlives a boot, so nothing is called gone that may live."""
    return written_machine_id() or (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def written_machine_id() -> str | None:
    """The machine's own id, where it has one."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text and text != "uninitialized":
            return text
    return None


def _stat(pid: int) -> list[str] | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()
