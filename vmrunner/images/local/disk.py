"""The way from tars to a bootable disk: ext4 without root, one boot to fill Docker's store,
qcow2."""

from __future__ import annotations

import json
import os
import shlex
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex
from string import ascii_lowercase
from typing import Final

from vmrunner.errors import ImageError
from vmrunner.images import time_limits
from vmrunner.images.local.programs import ChildPrograms
from vmrunner.images.local.rootfs import Report
from vmrunner.images.recipe import Container

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

_SCRIPT_BLOCK: Final = 4096
_LOAD: Final = 1200.0  # and then for one container image


def make(root: Path, disk: Path, size: int, programs: ChildPrograms) -> None:
    """An ext4 file system of `size` bytes with the tar's content; the file is sparse."""
    disk.unlink(missing_ok=True)
    options = "assume_storage_prezeroed=1,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "vmrunner", "-m", "1", "-E", options]
    argv += ["-d", str(root), str(disk), f"{size // 1024}k"]
    programs.run(argv, what="making the disk", timeout=600)


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


def boot_script(containers: Sequence[Container], load: bytes, clean: bytes, nonce: str) -> bytes:
    """The text that the booted image runs from a disk of its own."""
    commands = []
    for container, letter in zip(containers, ascii_lowercase[2:], strict=False):
        device = f"/dev/vd{letter}"  # vda is the root, vdb the script
        if container.pull is not None:
            command = ["load", device, container.name]
        else:
            changes = [f"CMD [{', '.join(_quoted(w) for w in container.command)}]"]
            changes += [f"ENV {k}={_quoted(v)}" for k, v in sorted(container.env.items())]
            flags = [flag for change in changes for flag in ("--change", change)]
            command = ["import", device, container.name, *flags]
        commands.append(shlex.join(command))
    text = (
        f"nonce={nonce}\n"
        f"images() {{\n{chr(10).join(commands)}\n}}\n"
        f"clean() (\n{clean.decode()}\n)\n"
        f"{load.decode()}\nexit 0\n"
    ).encode()
    return text + b"\n" * (-len(text) % _SCRIPT_BLOCK)


def boot(
    disk: Path,
    boot_dir: Path,
    *,
    containers: Sequence[tuple[Container, Path]],
    load: bytes,
    clean: bytes,
    accel: str,
    work: Path,
    programs: ChildPrograms,
    report: Report,
) -> None:
    """Boot `disk` once, without a network, and load the containers' tars into it."""
    nonce = token_hex(16)
    script, console, events = work / "script", work / "console.log", work / "events.log"
    script.write_bytes(boot_script([c for c, _ in containers], load, clean, nonce))
    append = (
        f'{CMDLINE} cloud-init=disabled systemd.run="/bin/sh /dev/vdb" '
        "systemd.run_success_action=poweroff systemd.run_failure_action=poweroff"
    )
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-accel", "tcg,thread=multi" if accel == "tcg" else accel),
        *("-cpu", "max" if accel == "tcg" else "host", "-smp", "2", "-m", "2048", "-no-reboot"),
        *("-kernel", str(boot_dir / "vmlinuz"), "-initrd", str(boot_dir / "initrd.img")),
        *("-append", append, "-nic", "none"),
        *("-serial", f"file:{console}", "-serial", f"file:{events}"),
        *_drive(disk, "cache=unsafe,discard=unmap,detect-zeroes=unmap"),
    ]
    for path in (script, *(tar for _, tar in containers)):
        argv += _drive(path, "readonly=on")
    if os.geteuid() == 0:
        argv += ["-run-with", "user=nobody"]
    argv += ["-sandbox", "on,obsolete=deny,spawn=deny,resourcecontrol=deny"]
    for log in (console, events):
        log.write_bytes(b"")
    child = programs.start(argv)
    try:
        names = [c.name for c, _ in containers]
        _follow(child.poll, events, nonce, names, report, time_limits.FIRST_BOOT[accel])
    except ImageError as error:
        output = ""
        if child.poll() is not None and child.stdout is not None:
            output = child.stdout.read().decode("utf-8", "replace")
        shown = console.read_text("utf-8", "replace").splitlines()[-20:]
        raise ImageError(
            "\n".join([f"loading container images: {error}", output, *shown])
        ) from None
    finally:
        programs.end(child)


def _follow(
    ended: Callable[[], int | None],
    events: Path,
    nonce: str,
    names: list[str],
    report: Report,
    boot: float,
) -> None:
    """Read the guest's words until the machine is off, the first within `boot` seconds. Raises
    ImageError when they do not end with the nonce, or in time."""
    deadline = time.monotonic() + boot
    seen = 0
    report(0.0, "booting")
    while True:
        off = ended() is not None
        words = events.read_text("utf-8", "replace").splitlines()
        for word in words[seen:]:
            deadline = time.monotonic() + _LOAD
            loaded = sum(w.startswith("loaded ") for w in words)
            if word == "docker":
                report(0.2, f"loading {names[0]}")
            elif word.startswith("loaded "):
                after = names[loaded] if loaded < len(names) else None
                report(0.2 + 0.7 * loaded / len(names), f"loading {after}" if after else "cleaning")
            elif word.startswith("failed "):
                raise ImageError(f"the script in the VM {word}")
        seen = len(words)
        if off and f"done {nonce}" in words:
            return
        if off:
            raise ImageError("the VM ended before it was done")
        if time.monotonic() > deadline:
            raise ImageError("the VM does not go on")
        time.sleep(0.1)


def inject(
    disk: Path, files: Sequence[tuple[str, bytes, int]], work: Path, programs: ChildPrograms
) -> None:
    """Write files (path, content, mode) into the unmounted file system, then check all of it."""
    commands = []
    for number, (path, content, mode) in enumerate(files):
        (work / f"file{number}").write_bytes(content)
        commands += [f"rm {path}", f"write file{number} {path}"]
        commands += [f"set_inode_field {path} mode 0{0o100000 | mode:o}"]
        commands += [f"set_inode_field {path} {field} 0" for field in ("uid", "gid")]
    (work / "commands").write_text("\n".join(commands) + "\n")
    argv = ["debugfs", "-w", "-f", "commands", str(disk)]
    programs.run(argv, what="writing into the disk", timeout=120, cwd=work)
    for path, content, _ in files:
        if read(disk, path, work, programs) != content:
            raise ImageError(f"writing into the disk: {path} is not what was written")
    programs.run(["e2fsck", "-f", "-n", str(disk)], what="checking the disk", timeout=600)


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


def _drive(path: Path, options: str) -> list[str]:
    name = str(path).replace(",", ",,")
    return ["-drive", f"file={name},format=raw,if=virtio,{options}"]


def _quoted(word: str) -> str:
    """A JSON string, which is what Dockerfile lines take."""
    return json.dumps(word)
