"""QEMU's command line for one VM. Pure: values in, words out.

QEMU gets every file as an inherited descriptor (`QemuFd`), since it runs as a user who may not
enter the directories they lie in. Block devices take `/dev/fdset/N`, which dups and opens nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

MiB: Final = 1024**2
SSH_PORT: Final = 2222  # on the loopback of the VM's network namespace

# Denied on top of QEMU's own filter: another program, new privileges, scheduling, dead calls.
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

#: A machine with nothing in it that is not asked for.
BARE: Final = (
    *("-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none"),
    *("-machine", "q35,vmport=off,hpet=off"),
)
#: What the console of an image of ours says once sshd listens (packer/scripts/10-system.sh).
ANNOUNCED: Final = b"vmrunner: ssh is up"

#: The guest's first serial port on QEMU's stdin and stdout.
CONSOLE: Final = ("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")


class QemuFd(IntEnum):
    """The number under which QEMU finds each file. High, so that none is in use already."""

    OVERLAY = 100
    BASE = 101
    SEED = 102
    KERNEL = 103
    INITRD = 104
    KVM = 105


#: Those that QEMU opens anew, by its own name of the descriptor; of the others it dups that.
REOPENED: Final = frozenset({QemuFd.KERNEL, QemuFd.INITRD})


@dataclass(frozen=True, kw_only=True, slots=True)
class QemuMachine:
    """The values that the command line depends on."""

    qemu: str
    guest: str  # the mark by which a sweep finds the process: no comma
    accel: str  # kvm or tcg
    cpus: int
    memory: int  # bytes
    cmdline: str  # the kernel's
    restrict: bool  # the guest may reach nothing at all


def command(machine: QemuMachine) -> list[str]:
    """The argument vector."""
    return [
        machine.qemu,
        "-name",
        f"guest={machine.guest}",
        *BARE,
        "-no-reboot",
        *("-sandbox", SANDBOX),
        *accelerator(machine.accel),
        *("-smp", str(machine.cpus), "-m", f"{machine.memory // MiB}M"),
        *("-rtc", "base=utc"),
        *(
            "-kernel",
            f"/proc/self/fd/{QemuFd.KERNEL:d}",
            "-initrd",
            f"/proc/self/fd/{QemuFd.INITRD:d}",
        ),
        *("-append", f"{machine.cmdline} ds=nocloud panic=-1".strip()),
        *disk(),
        *_seed(),
        *_network(restrict=machine.restrict),
        *CONSOLE,
        *("-device", "virtio-rng-pci"),
    ]


def accelerator(accel: str) -> tuple[str, ...]:
    if accel == "kvm":
        return (
            *("-add-fd", f"fd={QemuFd.KVM:d},set={QemuFd.KVM:d}"),
            *("-accel", f"kvm,device=/dev/fdset/{QemuFd.KVM:d}", "-cpu", "host"),
        )
    return ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max")


def disk() -> tuple[str, ...]:
    """An overlay on the read-only image. It dies with the VM, so nothing waits for it to be on the
    disk (`no-flush`)."""
    return (
        *_file(QemuFd.OVERLAY),
        *_file(QemuFd.BASE),
        *("-blockdev", f"{_at(QemuFd.BASE)},node-name=base-file,read-only=on"),
        *("-blockdev", "driver=qcow2,node-name=base,file=base-file,read-only=on"),
        "-blockdev",
        f"{_at(QemuFd.OVERLAY)},node-name=disk-file,discard=unmap,cache.no-flush=on",
        "-blockdev",
        "driver=qcow2,node-name=disk,file=disk-file,backing=base,discard=unmap,cache.no-flush=on",
        *("-device", "virtio-blk-pci,drive=disk"),
    )


def _seed() -> tuple[str, ...]:
    return (
        *_file(QemuFd.SEED),
        *("-blockdev", f"{_at(QemuFd.SEED)},node-name=seed-file,read-only=on"),
        *("-blockdev", "driver=raw,node-name=seed,file=seed-file,read-only=on"),
        *("-device", "virtio-blk-pci,drive=seed"),
    )


def _file(fd: QemuFd) -> tuple[str, str]:
    return ("-add-fd", f"fd={fd:d},set={fd:d}")


def _at(fd: QemuFd) -> str:
    return f"driver=file,filename=/dev/fdset/{fd:d}"


def _network(*, restrict: bool) -> tuple[str, ...]:
    """SLIRP inside the VM's own network namespace: what it can reach is what that one can."""
    user = (
        f"user,id=net,ipv6=off,restrict={'on' if restrict else 'off'},"
        f"hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"
    )
    return ("-netdev", user, "-device", "virtio-net-pci,netdev=net,romfile=")
