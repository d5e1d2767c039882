"""The system calls that Debian's Python has no name for."""

from __future__ import annotations

import ctypes
import os

_NEWNS = 0x00020000
_BIND = 0x1000
_POWER_OFF = 0x4321FEDC
_IN_MODIFY = 0x2

_libc = ctypes.CDLL(None, use_errno=True)


def bind(source: str, target: str) -> None:
    """Mount a file over another."""
    done = _libc.mount(source.encode(), target.encode(), None, ctypes.c_ulong(_BIND), None)
    _check(done, f"mount {target}")


def unmount(target: str) -> None:
    _check(_libc.umount2(target.encode(), ctypes.c_int(0)), f"umount {target}")


def enter_mounts(pid: int) -> None:
    """Go where that process sees its files."""
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(_NEWNS)), "setns")
    finally:
        os.close(fd)


def watch(directory: str) -> int:
    """A descriptor that is readable once something was written to a file of that directory."""
    fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    _check(fd, "inotify")
    try:
        added = _libc.inotify_add_watch(fd, directory.encode(), ctypes.c_uint32(_IN_MODIFY))
        _check(added, f"watch {directory}")
    except OSError:
        os.close(fd)
        raise
    return int(fd)


def power_off() -> None:
    """Switch the VM off at once; nothing is saved."""
    _check(_libc.reboot(ctypes.c_int(_POWER_OFF)), "reboot")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
