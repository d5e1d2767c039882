"""The system calls that Debian's Python has no name for."""

from __future__ import annotations

import ctypes
import os
import signal

_NEWNS = 0x00020000
_NEWUSER = 0x10000000
_NAMES = {_NEWNS: "mnt", _NEWUSER: "user"}
_CAPABILITY_VERSION = 0x20080522
_FILES = 0b11011  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID
_PDEATHSIG = 1
_BIND = 0x1000
_POWER_OFF = 0x4321FEDC
_IN_MODIFY = 0x2
_IN_MOVED_TO = 0x80

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


def enter_container(pid: int) -> None:
    """Go where that process sees its files, as root of its user namespace, and keep what root may
    do to files there alone."""
    kinds = [_NEWNS]
    if _inode(f"/proc/{pid}/ns/user") != _inode("/proc/self/ns/user"):
        kinds.insert(0, _NEWUSER)
    opened = [(kind, os.open(f"/proc/{pid}/ns/{_NAMES[kind]}", os.O_RDONLY)) for kind in kinds]
    for kind, fd in opened:
        _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")
        os.close(fd)
    if _NEWUSER in kinds:
        os.setgid(0)
        os.setuid(0)
    os.chdir("/")
    keep_rights_to_files()


def keep_rights_to_files() -> None:
    """Have no capability but those to files, as far as we have them: a unit's container has less
    than root of a VM."""
    head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable
    _check(_libc.capget(head, held), "capget")
    files = held[1] & _FILES
    kept = (ctypes.c_uint32 * 6)(files, files, 0, 0, 0, 0)
    _check(_libc.capset(head, kept), "capset")


def _inode(path: str) -> int:
    return os.stat(path).st_ino


def die_with(parent: int) -> None:
    """End this process with its parent."""
    _check(_libc.prctl(_PDEATHSIG, signal.SIGKILL), "prctl")
    if os.getppid() != parent:
        os._exit(1)


def set_namespace(descriptor: int) -> None:
    """Move to the namespace that the descriptor is of."""
    _check(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(0)), "setns")


def watch(directory: str) -> int:
    """A descriptor that is readable once something was written to a file of that directory, or
    moved there."""
    fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    _check(fd, "inotify")
    try:
        added = _libc.inotify_add_watch(
            fd, directory.encode(), ctypes.c_uint32(_IN_MODIFY | _IN_MOVED_TO)
        )
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
