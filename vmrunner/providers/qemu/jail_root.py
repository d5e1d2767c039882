"""The root directory of a QEMU that might be taken over: programs, libraries and firmware of the
system, four devices, its own descriptors. Nothing in it can be written.

No home, no directory of ours, no socket, no terminal, no shared memory and no process is there,
whichever user QEMU runs as. Called in QEMU's own mount namespace, before it gives up its
privileges. Read by the keeper: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vmrunner.providers.qemu import syscalls

_ROOT: Final = "/tmp/root"  # noqa: S108 - on the jail's own tmpfs
_EMPTY: Final = "/tmp/empty"  # noqa: S108
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
_LINKER: Final = "/etc/ld.so.cache"
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def enter(program: Path, hidden: Sequence[str], resolver: str | None) -> None:
    """Make it this process's root. `hidden`: directories that QEMU has no business in, should they
    lie where its libraries do; `resolver`: whom it asks for names."""
    Path(_ROOT).mkdir()
    syscalls.mount_empty(_ROOT)
    for place in (*_SYSTEM, *_own(program)):
        _show(place)
        for inside in hidden:
            if Path(inside).is_relative_to(place) and _is_there(_ROOT + inside):
                syscalls.mount_empty(_ROOT + inside)
    for file in (_LINKER, *_DEVICES):
        _touch(file)
    if Path(_LINKER).exists():
        syscalls.mount_over(_LINKER, _ROOT + _LINKER)
    if resolver is not None:
        Path(_ROOT + "/etc/resolv.conf").write_text(f"nameserver {resolver}\n")
    _own_descriptors()
    syscalls.protect(_ROOT)
    for device in _DEVICES:
        syscalls.mount_over(device, _ROOT + device)
        syscalls.protect(_ROOT + device, devices=True)
    syscalls.change_root(_ROOT)


def enter_empty() -> None:
    """Make an empty directory this process's root. Called in a mount namespace of its own."""
    Path(_EMPTY).mkdir()
    syscalls.mount_empty(_EMPTY)
    syscalls.protect(_EMPTY)
    syscalls.change_root(_EMPTY)


def _own(program: Path) -> tuple[str, ...]:
    """Directory of a QEMU that is not the system's, with its libraries and firmware."""
    if any(program.is_relative_to(place) for place in _SYSTEM):
        return ()
    beside = program.parent.parent
    parts = () if beside == Path("/") else ("lib", "lib64", "libexec", "share")
    return (str(program.parent), *(str(beside / part) for part in parts))


def _show(place: str) -> None:
    """The system's own, at the same path: the link, or what is in the directory."""
    shown = Path(_ROOT + place)
    if os.path.islink(place):  # noqa: PTH114 - as below
        shown.symlink_to(Path(place).readlink())
    elif _is_there(place):
        shown.mkdir(parents=True, exist_ok=True)
        syscalls.mount_over(place, str(shown))


def _is_there(place: str) -> bool:
    """True if it is a directory. One that may not be looked at is none, and no error."""
    return os.path.isdir(place)  # noqa: PTH112


def _touch(file: str) -> None:
    """Make a file to be mounted over."""
    place = Path(_ROOT + file)
    place.parent.mkdir(exist_ok=True)
    place.touch()


def _own_descriptors() -> None:
    """Give QEMU of all /proc its own descriptors alone; the rest shows the host's processes. Making
    a /proc of its own is refused in a container, where part of the outer one is covered."""
    me = Path("/proc/self").readlink().name  # as the host counts, whose /proc it is
    shown = Path(_ROOT + "/proc/self/fd")
    shown.mkdir(parents=True)
    syscalls.mount_over(f"/proc/{me}/fd", str(shown))
