"""The root directory of a QEMU that might be taken over: programs, libraries and firmware of the
system, four devices, its own descriptors. Nothing in it can be written, by anybody.

No home, no directory of ours, no socket, no terminal, no shared memory and no process is there,
whoever QEMU runs as. Called in QEMU's own mount namespace, before it gives up its privileges.
Read by the keeper: standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vmrunner.providers.qemu import linux

_ROOT: Final = "/tmp/root"  # noqa: S108 - on the cradle's own tmpfs
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
_LINKER: Final = "/etc/ld.so.cache"
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def enter(program: Path, hidden: Sequence[str], resolver: str | None) -> None:
    """Make it this process's root. `hidden`: directories that QEMU has no business in, should they
    lie where its libraries do; `resolver`: whom it asks for names."""
    Path(_ROOT).mkdir()
    linux.mount_empty(_ROOT)
    for place in (*_SYSTEM, *_prefix(program, hidden)):
        _show(place)
        for inside in hidden:
            if Path(inside).is_relative_to(place) and os.path.isdir(_ROOT + inside):  # noqa: PTH112
                linux.mount_empty(_ROOT + inside)
    for file in (_LINKER, *_DEVICES):
        _touch(file)
    if os.path.exists(_LINKER):  # noqa: PTH110 - one that may not be looked at is not there
        linux.mount_over(_LINKER, _ROOT + _LINKER)
    if resolver is not None:
        Path(_ROOT + "/etc/resolv.conf").write_text(f"nameserver {resolver}\n")
    _own_descriptors()
    linux.protect(_ROOT)
    for device in _DEVICES:
        linux.mount_over(device, _ROOT + device)
        linux.protect(_ROOT + device, devices=True)
    linux.change_root(_ROOT)


def _prefix(program: Path, hidden: Sequence[str]) -> tuple[str, ...]:
    """Where a QEMU that is not the system's lies, with its firmware; never a whole home."""
    if any(program.is_relative_to(place) for place in _SYSTEM):
        return ()
    place = program.parent
    if place.name == "bin" and str(place.parent) not in ("/", *hidden):
        place = place.parent
    return (str(place),)


def _show(place: str) -> None:
    """The system's own, at the same path: the link, or what is in the directory."""
    real, shown = Path(place), Path(_ROOT + place)
    if real.is_symlink():
        shown.symlink_to(real.readlink())
    elif real.is_dir():
        shown.mkdir(parents=True, exist_ok=True)
        linux.mount_over(place, str(shown))


def _touch(file: str) -> None:
    """Something to be mounted over."""
    place = Path(_ROOT + file)
    place.parent.mkdir(exist_ok=True)
    place.touch()


def _own_descriptors() -> None:
    """Of all /proc QEMU uses its own descriptors; the rest shows the host's processes. Making a
    /proc of its own is refused in a container, where part of the outer one is covered."""
    me = Path("/proc/self").readlink().name  # as the host counts, whose /proc it is
    shown = Path(_ROOT + "/proc/self/fd")
    shown.mkdir(parents=True)
    linux.mount_over(f"/proc/{me}/fd", str(shown))
