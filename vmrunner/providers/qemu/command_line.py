"""QEMU's command line for one VM. Pure: values in, words out.

QEMU gets every file as an inherited descriptor (`QemuFd`), since it runs as a user who may not
enter the directories they lie in. Block devices take `/dev/fdset/N`, which dups and opens nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from vmrunner.guest import identity

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

#: What it says once all that its boot began has ended, of a VM without an identity.
SETTLED: Final = b"vmrunner: settled"

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
    CHANNEL = 106  # a socket: the guest's identity
    QMP = 107  # a socket: orders to QEMU, until the VM runs
    RAM = 108
    STATE = 109
    TEMPLATE = 110  # the disk of the template that a clone starts from


def mode(number: int) -> int:
    """Flags with which a file that it may write is opened: QEMU takes a descriptor only for the
    very access that it wants."""
    return os.O_WRONLY if number == QemuFd.STATE else os.O_RDWR


#: Those that QEMU opens anew, by its own name of the descriptor; of the others it dups that.
REOPENED: Final = frozenset({QemuFd.KERNEL, QemuFd.INITRD, QemuFd.RAM})

#: Bytes of a kernel, of which its header says how to load it.
KERNEL_HEAD: Final = 65536

#: What tells a guest that its identity comes over the channel, and that nothing else has it.
CHANNEL_WORDS: Final = f"cloud-init=disabled {identity.FLAG}"


class QemuStart(Enum):
    """Way in which a QEMU gets its VM."""

    BOOT = "boot"
    SAVE = "save"  # boots, to be saved as a template
    RESUME = "resume"  # a clone of a template


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
    channel: bool = False  # the guest takes its identity from a port
    start: QemuStart = QemuStart.BOOT


def command(machine: QemuMachine) -> list[str]:
    """The argument vector."""
    source = CHANNEL_WORDS if machine.channel else "ds=nocloud"
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
        *("-append", kernel_words(machine.accel, machine.cmdline, source, "panic=-1")),
        *disk(template=machine.start is QemuStart.RESUME),
        *seed(),
        *_network(restrict=machine.restrict),
        *CONSOLE,
        *("-device", "virtio-rng-pci"),
        *(_channel() if machine.channel else ()),
        *_memory(machine),
    ]


def _channel() -> tuple[str, ...]:
    """The port for the identity, and the device that tells the guest's kernel of its cloning."""
    return (
        *("-chardev", f"socket,id=channel,fd={QemuFd.CHANNEL:d}"),
        *("-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,chardev=channel,name={identity.PORT}"),
        *("-device", "vmgenid,guid=auto"),
    )


def _memory(machine: QemuMachine) -> tuple[str, ...]:
    """Memory in a file, which a template writes and its clones map copy-on-write."""
    if machine.start is QemuStart.BOOT:
        return ()
    saves = machine.start is QemuStart.SAVE
    sharing = "share=on" if saves else "share=off,readonly=on,rom=off"
    backend = (
        f"memory-backend-file,id=ram,size={machine.memory // MiB}M,"
        f"mem-path=/proc/self/fd/{QemuFd.RAM:d},{sharing}"
    )
    return (
        *("-object", backend, "-machine", "memory-backend=ram"),
        *("-chardev", f"socket,id=qmp,fd={QemuFd.QMP:d}", "-mon", "chardev=qmp,mode=control"),
        *_file(QemuFd.STATE),
        *(() if saves else ("-incoming", "defer")),
    )


def accelerator(accel: str) -> tuple[str, ...]:
    if accel == "kvm":
        return (
            *("-add-fd", f"fd={QemuFd.KVM:d},set={QemuFd.KVM:d}"),
            *("-accel", f"kvm,device=/dev/fdset/{QemuFd.KVM:d}", "-cpu", "host"),
        )
    # Page tables of five levels cost an emulated guest an eighth more, and no guest needs them.
    return ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off")


def kernel_words(accel: str, *words: str) -> str:
    """The kernel's command line. An emulated one does without what keeps a real processor from
    speculating: docs/decisions/0056."""
    emulated = () if accel == "kvm" else ("mitigations=off",)
    return " ".join(filter(None, (*words, *emulated)))


def disk(*, template: bool = False) -> tuple[str, ...]:
    """An overlay on the read-only image, or on a template's overlay on that. It dies with the VM,
    so nothing waits for it to be on the disk (`no-flush`)."""
    below = "template" if template else "base"
    return (
        *_file(QemuFd.OVERLAY),
        *_file(QemuFd.BASE),
        *("-blockdev", f"{_shared(QemuFd.BASE)},node-name=base-file"),
        *("-blockdev", "driver=qcow2,node-name=base,file=base-file,read-only=on"),
        *(_template_disk() if template else ()),
        "-blockdev",
        f"{_at(QemuFd.OVERLAY)},node-name=disk-file,discard=unmap,cache.no-flush=on",
        "-blockdev",
        f"driver=qcow2,node-name=disk,file=disk-file,backing={below},discard=unmap,cache.no-flush=on",
        *("-device", "virtio-blk-pci,drive=disk"),
    )


def _template_disk() -> tuple[str, ...]:
    file = f"{_shared(QemuFd.TEMPLATE)},node-name=template-file"
    node = "driver=qcow2,node-name=template,file=template-file,backing=base,read-only=on"
    return (*_file(QemuFd.TEMPLATE), "-blockdev", file, "-blockdev", node)


def seed() -> tuple[str, ...]:
    """A small read-only disk beside the first one."""
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


def _shared(fd: QemuFd) -> str:
    """A file that other VMs read too and none writes: a lock would only keep them from it."""
    return f"{_at(fd)},read-only=on,locking=off"


def _network(*, restrict: bool) -> tuple[str, ...]:
    """SLIRP inside the VM's own network namespace: what it can reach is what that one can."""
    user = (
        f"user,id=net,ipv6=off,restrict={'on' if restrict else 'off'},"
        f"hostfwd=tcp:127.0.0.1:{SSH_PORT}-:22"
    )
    return ("-netdev", user, "-device", "virtio-net-pci,netdev=net,romfile=")
