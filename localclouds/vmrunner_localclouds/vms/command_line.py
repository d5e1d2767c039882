"""QEMU's command line for one guest. Pure: values in, words out."""

from __future__ import annotations

import ipaddress
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vmrunner.providers.qemu import command_line
from vmrunner.providers.qemu.command_line import MiB

SSH: Final = 22

# Every connection to the metadata service starts a program, in a session of its own, which counts
# as a privilege here. (It has none: `spawn.py` took all from it.)
SANDBOX: Final = "on,obsolete=deny,elevateprivileges=allow,spawn=allow,resourcecontrol=deny"

#: Where every cloud's metadata service is, and the guest's own addresses near it.
METADATA: Final = "169.254.169.254"
_NETWORK: Final = (
    "restrict=on,ipv6=off,net={net},host=169.254.169.2,dns=169.254.169.3,dhcpstart=169.254.169.15"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuestSpec:
    """A cloud's decisions about a VM. `firmware` is what the guest reads of its hardware's maker
    (SMBIOS type 1: manufacturer, product, serial, uuid), by which cloud-init tells where it is.
    `services` are the addresses at which its metadata service answers."""

    name: str
    address: str  # of the host's loopback: its port 22 is the guest's
    mac: str
    disk: int  # bytes, at least; the image may need more
    firmware: Mapping[str, str]
    asset: str = ""  # the tag of its chassis (SMBIOS type 3)
    services: tuple[str, ...] = (METADATA,)
    words: str = ""  # for its kernel, after those of the image
    seed: bytes = b""  # a second disk, which it only reads; none when empty


@dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """The host's part, the same for all guests. `cpus` and `memory` (bytes) are a VM's."""

    qemu: str
    accel: str  # kvm or tcg
    cpus: int
    memory: int
    kernel: Path
    initrd: Path
    cmdline: str


def command(host: HostSpec, guest: GuestSpec, forwarder: Sequence[str]) -> list[str]:
    """The argument vector. `forwarder` is started for every connection to the metadata service,
    and talks on its stdin and stdout. The disk's files come as `QemuFd` says."""
    return [
        host.qemu,
        *("-name", f"guest={_safe(guest.name)}"),
        *command_line.BARE,
        *("-sandbox", SANDBOX),
        *(
            ("-accel", "kvm", "-cpu", "host")
            if host.accel == "kvm"
            else command_line.accelerator("tcg")
        ),
        *("-smp", str(host.cpus), "-m", f"{host.memory // MiB}M"),
        *("-rtc", "base=utc"),
        *("-smbios", "type=1," + ",".join(f"{k}={_safe(v)}" for k, v in guest.firmware.items())),
        *(("-smbios", f"type=3,asset={_safe(guest.asset)}") if guest.asset else ()),
        *("-kernel", str(host.kernel), "-initrd", str(host.initrd)),
        *("-append", command_line.kernel_words(host.accel, host.cmdline, guest.words)),
        *command_line.disk(),
        *(command_line.seed() if guest.seed else ()),
        *_network(guest, forwarder),
        *command_line.CONSOLE,
        *("-device", "virtio-rng-pci"),
    ]


def _network(guest: GuestSpec, forwarder: Sequence[str]) -> tuple[str, ...]:
    carried = _safe(shlex.join(forwarder))
    user = ",".join(
        (
            f"user,id=net,{_NETWORK.format(net=_round(guest.services))}",
            f"hostfwd=tcp:{guest.address}:{SSH}-:{SSH}",
            *(f"guestfwd=tcp:{service}:80-cmd:{carried}" for service in guest.services),
        )
    )
    return ("-netdev", user, "-device", f"virtio-net-pci,netdev=net,romfile=,mac={guest.mac}")


def _round(services: Sequence[str]) -> str:
    """The smallest network round a guest and its services: QEMU forwards within it alone."""
    network = ipaddress.IPv4Network("169.254.169.0/24")
    while not all(ipaddress.IPv4Address(service) in network for service in services):
        network = network.supernet()
    return str(network)


def _safe(value: str) -> str:
    """A comma ends a value of QEMU's, two of them are one."""
    return value.replace(",", ",,")
