"""The system calls that Python 3.11 has no name for. Standard library only, used after a fork."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
from typing import Final

NEWNS: Final = 0x00020000
NEWIPC: Final = 0x08000000
NEWUSER: Final = 0x10000000
NEWPID: Final = 0x20000000
NEWNET: Final = 0x40000000

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_NOSUID_NOEXEC: Final = 2 | 8
_MS_NODEV: Final = 4
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def enter(namespace: int, flags: int) -> None:
    _checked(_libc.setns(ctypes.c_int(namespace), ctypes.c_int(flags)), "setns")


def _prctl(option: int, value: int) -> int:
    zero = ctypes.c_ulong(0)
    return int(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def die_with_parent() -> None:
    """SIGKILL when the parent dies. A change of credentials undoes it: call it last."""
    _checked(_prctl(_PR_SET_PDEATHSIG, signal.SIGKILL), "PR_SET_PDEATHSIG")


def adopt_orphans() -> None:
    """Descendants whose parent dies become this process's children."""
    _checked(_prctl(_PR_SET_CHILD_SUBREAPER, 1), "PR_SET_CHILD_SUBREAPER")


def be_dumpable() -> None:
    """Own the files under /proc/self again, after a change of user took them away."""
    _checked(_prctl(_PR_SET_DUMPABLE, 1), "PR_SET_DUMPABLE")


def give_up_privileges(keep: int = -1) -> None:
    """No capability (but `keep`, if we have it) survives the next exec, whatever the uid, and none
    comes back."""
    for capability in range(64):
        if capability != keep:
            _prctl(_PR_CAPBSET_DROP, capability)
    _checked(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    _checked(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            None,
        ),
        f"mount {target}",
    )


def keep_mounts_private() -> None:
    _mount("none", "/", None, _MS_REC_PRIVATE)


def mount_empty(target: str, *, devices: bool = False) -> None:
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID_NOEXEC | (0 if devices else _MS_NODEV))


def mount_over(source: str, target: str) -> None:
    """What is mounted below `source` comes along."""
    _mount(source, target, None, _MS_BIND | _MS_REC)


def loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
