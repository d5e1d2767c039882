"""Real VMs behind instances: a disk, and firmware by which cloud-init knows GCE. Its address is
that of its first interface, which had it from the VMs."""

from __future__ import annotations

import secrets
import uuid
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.gce.metadata import GceMetadata
from vmrunner_localclouds.vms import GuestSpec

if TYPE_CHECKING:
    from vmrunner_localclouds.gce.machines import GceMachine
    from vmrunner_localclouds.vms import VmFleet

GiB: Final = 1024**3


def embody(machine: GceMachine, bodies: VmFleet) -> None:
    """Give a new machine a VM."""
    guest = GuestSpec(
        name=machine.name,
        address=machine.address,
        mac=mac(machine.address),
        disk=int(machine.shown["disks"][0]["diskSizeGb"]) * GiB,
        firmware={
            "manufacturer": "Google",
            "product": "Google Compute Engine",
            "serial": f"GoogleCloud-{secrets.token_hex(16).upper()}",
            "uuid": str(uuid.uuid4()),
        },
    )
    bodies.give(machine, guest, GceMetadata(machine))


def mac(address: str) -> str:
    """The MAC address of an interface: Google makes it of the IP address."""
    return "42:01:" + IPv4Address(address).packed.hex(":")
