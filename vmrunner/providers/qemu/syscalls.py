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
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
_MS_REC_PRIVATE: Final = 0x4000 | 0x40000
_MS_BIND: Final = 0x1000
_MS_REC: Final = 0x4000
_MS_NOSUID_NOEXEC: Final = 2 | 8
_MS_NODEV: Final = 4
_SEALS: Final = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_MNT_DETACH: Final = 2
_SECCOMP_MODE_FILTER: Final = 2

# Numbers that are the same on every architecture.
_OPEN_TREE: Final = 428
_MOUNT_SETATTR: Final = 442
# Of x86-64, the only one that a local VM runs on.
_PIVOT_ROOT: Final = 155
_KEYCTL: Final = 250

_KEYCTL_JOIN_SESSION_KEYRING: Final = 1
_OPEN_TREE_CLONE: Final = 1
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH: Final = 0x1000
_AT_RECURSIVE: Final = 0x8000
_ATTR_READ_ONLY_NOSUID: Final = 1 | 2
_ATTR_NODEV: Final = 4
_ATTR_NOEXEC: Final = 8
_SIOCGIFFLAGS: Final = 0x8913
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_IFF_UP: Final = 1
_CAPABILITY_VERSION: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _call(number: int, *arguments: int | bytes | None) -> int:
    """A system call that the C library may have no name for."""
    given = (
        ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments
    )
    return int(_libc.syscall(ctypes.c_long(number), *given))


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
    """Give up capabilities: none (but `keep`, if we have it) survives the next exec, under any uid,
    and none comes back."""
    for capability in range(64):
        if capability != keep:
            _prctl(_PR_CAPBSET_DROP, capability)
    _checked(_prctl(_PR_SET_NO_NEW_PRIVS, 1), "PR_SET_NO_NEW_PRIVS")


def give_up_capabilities() -> None:
    """Give up what this process has now: for one that goes on without an exec."""
    head = struct.pack("=II", _CAPABILITY_VERSION, 0)
    _checked(_libc.capset(head, bytes(24)), "capset")


def leave_session_keyring() -> None:
    """Leave the session keyring: the keys of the user's session are not for our children. Where
    the kernel or a container has no keyrings, there is none to be left."""
    _call(_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, None)


def filter_calls(program: bytes) -> None:
    """Filter system calls from now on, for good, and for what this process turns into
    (`seccomp.py`)."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    head = ctypes.create_string_buffer(header, len(header))
    done = _libc.prctl(
        ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(head)
    )
    _checked(done, "seccomp")


# --- mounts --------------------------------------------------------------------------------------


def _mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    _checked(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode() or None,
        ),
        f"mount {target}",
    )


def keep_mounts_private() -> None:
    _mount("none", "/", None, _MS_REC_PRIVATE)


def mount_empty(target: str, *, devices: bool = False) -> None:
    """A tmpfs of at most 1 MiB."""
    flags = _MS_NOSUID_NOEXEC | (0 if devices else _MS_NODEV)
    _mount("tmpfs", target, "tmpfs", flags, "size=1m,nr_inodes=1k,mode=755")


def mount_over(source: str, target: str) -> None:
    """Mount `source` over `target`, with what is mounted below `source`."""
    _mount(source, target, None, _MS_BIND | _MS_REC)


def protect(target: str, *, devices: bool = False) -> None:
    """Make a mount, and all that are mounted below it, read-only, without setuid programs and,
    unless `devices`, without devices."""
    _set(target.encode(), 0 if devices else _ATTR_NODEV)


def _set(target: bytes, more: int, at: int = _AT_FDCWD) -> None:
    attributes = struct.pack("QQQQ", _ATTR_READ_ONLY_NOSUID | more, 0, 0, 0)
    flags = _AT_RECURSIVE | (0 if target else _AT_EMPTY_PATH)
    done = _call(_MOUNT_SETATTR, at, target, flags, attributes, len(attributes))
    _checked(done, f"mount_setattr {target.decode()}")


def open_protected(path: str) -> int:
    """A descriptor of a file that cannot be written, nor changed, through it: it lies on a
    read-only mount of its own. (`/proc/self/fd/N` opens a file anew, with the file's permissions:
    what the user owns can be written through any other descriptor of it.)"""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _call(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    _checked(tree, f"open_tree {path}")
    try:
        _set(b"", _ATTR_NODEV | _ATTR_NOEXEC, tree)
        return os.open(f"/proc/self/fd/{tree}", os.O_RDONLY)
    finally:
        os.close(tree)


def sealed_copy(descriptor: int, most: int | None = None) -> int:
    """Copy a file's first bytes, or all, into memory and seal them. Closes `descriptor`."""
    copy = os.memfd_create("vmrunner", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    size = os.fstat(descriptor).st_size if most is None else most
    while size > 0 and (sent := os.sendfile(copy, descriptor, None, size)):
        size -= sent
    os.close(descriptor)
    fcntl.fcntl(copy, fcntl.F_ADD_SEALS, _SEALS)
    return copy


def change_root(root: str) -> None:
    """Change the root to a mount, with nothing left of the old root."""
    os.chdir(root)
    _checked(_call(_PIVOT_ROOT, b".", b"."), "pivot_root")
    _checked(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)), "umount the old root")
    os.chdir("/")


def loopback_up(address: str | None = None) -> None:
    """`address`: one that the loopback gets beside its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if address is not None:
            for call, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.255")):
                place = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
                fcntl.ioctl(sock, call, struct.pack("16s16s8x", b"lo:1", place))
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
