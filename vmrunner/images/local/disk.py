"""The way from tars to a disk that boots: ext4 without root, qcow2."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from vmrunner.errors import ImageError
from vmrunner.images.local.layers import Xattr
from vmrunner.images.local.programs import ChildPrograms, joined

#: How the image is booted, everywhere. The root is the first virtio disk.
CMDLINE: Final = (
    "root=/dev/vda rw console=ttyS0 net.ifnames=0 fsck.mode=skip quiet "
    # 1.6 s of a boot. No grace period of RCU is waited for, at the price of an interrupt to each
    # processor, also later: short waits are what a build of many processes wants too.
    "rcupdate.rcu_expedited=1 cryptomgr.notests no_timer_check"
)
LIBRARY: Final = "/usr/lib/vmrunner"  # the supervisor and its modules
MANIFEST: Final = "/etc/vmrunner/image.json"
SBOM: Final = "/etc/vmrunner/sbom.cdx.json"
#: Files of the machine on which an image was made: its identity, and its access.
TRACES: Final = (
    "/etc/machine-id",
    "/etc/ssh/ssh_host_ed25519_key",
    "/root/.bash_history",
    "/root/.ssh/authorized_keys",
    "/var/lib/dbus/machine-id",
    "/var/lib/docker/engine-id",
    "/var/lib/systemd/random-seed",
)

_END: Final = b"\0" * 1024  # of a tar
_TIMEOUT: Final = 600.0
_XATTR_NAME: Final = re.compile(r"[a-z]+\.[A-Za-z0-9_.-]+")


def make(
    content: Callable[[IO[bytes]], object], disk: Path, size: int, programs: ChildPrograms
) -> None:
    """An ext4 file system of `size` bytes, in a sparse file, with what `content` writes: a tar
    without its end."""
    disk.unlink(missing_ok=True)
    options = "assume_storage_prezeroed=1,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "vmrunner", "-m", "1", "-E", options]
    argv += ["-d", "-", str(disk), f"{size // 1024}k"]

    def write(tar: IO[bytes]) -> None:
        content(tar)
        tar.write(_END)

    def fill(tar: IO[bytes]) -> str:
        return programs.run(argv, what="making the disk", timeout=_TIMEOUT, stdin=tar)

    joined(write, fill)


def extract_kernel(root: Path, to: Path) -> None:
    """`vmlinuz` and `initrd.img` out of the root's tar into the directory `to`."""
    wanted = {"vmlinuz-": "vmlinuz", "initrd.img-": "initrd.img"}
    with tarfile.open(root) as tar:
        for member in tar:
            place, _, name = member.name.removeprefix("./").rpartition("/")
            for start in [s for s in wanted if place == "boot" and name.startswith(s)]:
                source = tar.extractfile(member)
                if source is not None:
                    (to / wanted.pop(start)).write_bytes(source.read())
            if not wanted:
                return
    raise ImageError(f"the VM's root has no {' and no '.join(sorted(wanted))} in /boot")


def set_xattrs(disk: Path, xattrs: Sequence[Xattr], work: Path, programs: ChildPrograms) -> None:
    """Give files of the unmounted file system attributes, and read them back."""
    puts, gets = [], []
    for number, xattr in enumerate(xattrs):
        if not _XATTR_NAME.fullmatch(xattr.name) or "\n" in xattr.path:
            raise ImageError(f"layer: {xattr.path!r}: its attribute {xattr.name!r} cannot be set")
        (work / f"xattr{number}").write_bytes(_bytes(xattr))
        path = xattr.path.replace('"', '""')
        puts.append(f'ea_set -f xattr{number} "/{path}" {xattr.name}')
        gets.append(f'ea_get -f back{number} "/{path}" {xattr.name}')
    for name, commands in (("puts", puts), ("gets", gets)):
        (work / name).write_text("".join(f"{c}\n" for c in commands), errors="surrogateescape")
        argv = ["debugfs", *(["-w"] if name == "puts" else []), "-f", name, str(disk)]
        programs.run(argv, what="setting attributes", timeout=_TIMEOUT, cwd=work)
    for number, xattr in enumerate(xattrs):
        back = work / f"back{number}"
        if not back.exists() or back.read_bytes() != _bytes(xattr):
            raise ImageError(f"layer: {xattr.path!r}: the attribute {xattr.name} was not taken")


def check(disk: Path, programs: ChildPrograms) -> None:
    """Raises ImageError where the file system is not sound."""
    programs.run(["e2fsck", "-f", "-n", str(disk)], what="checking the disk", timeout=_TIMEOUT)


def read(disk: Path, path: str, work: Path, programs: ChildPrograms) -> bytes | None:
    """A file of the unmounted file system; None: there is no such file."""
    back = work / "back"
    back.unlink(missing_ok=True)
    argv = ["debugfs", "-R", f"dump {path} back", str(disk)]
    programs.run(argv, what="reading from the disk", timeout=120, cwd=work)
    return back.read_bytes() if back.exists() else None


def check_clean(disk: Path, work: Path, programs: ChildPrograms) -> None:
    """Raises ImageError when the disk holds what would make two VMs of it look like one."""
    for path in TRACES:
        if read(disk, path, work, programs):
            raise ImageError(f"{path} was left in the image")


def convert(disk: Path, to: Path, programs: ChildPrograms) -> None:
    """The sparse raw disk as qcow2."""
    argv = ["qemu-img", "convert", "-O", "qcow2", "-m", "4", "-W", str(disk), str(to)]
    programs.run(argv, what="converting the disk", timeout=900)


def _bytes(xattr: Xattr) -> bytes:
    return xattr.value.encode("utf-8", "surrogateescape")
