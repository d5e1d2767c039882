"""Real VMs behind instances: an address, a disk, and firmware by which cloud-init knows EC2."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.ec2.metadata import Ec2Metadata
from vmrunner_localclouds.vms import GuestSpec

if TYPE_CHECKING:
    from vmrunner_localclouds.ec2.machines import Ec2Machine
    from vmrunner_localclouds.vms import VmFleet

GiB: Final = 1024**3


def embody(machine: Ec2Machine, bodies: VmFleet) -> None:
    """Give a new machine a VM, and the VM's address for its own."""
    address = bodies.address()
    nic = machine.moto.nics[0]
    nic.private_ip_address = address
    nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
    if nic.public_ip:
        nic.public_ip = address
    root = machine.moto.block_device_mapping[machine.moto.root_device_name]
    uuid = f"ec2{secrets.token_hex(16)[3:]}"
    uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
    guest = GuestSpec(
        name=machine.id,
        address=address,
        mac=nic.mac_address,
        disk=int(machine.backend.volumes[root.volume_id].size) * GiB,
        firmware={
            "manufacturer": "Amazon EC2",
            "product": machine.moto.instance_type,
            "serial": uuid,
            "uuid": uuid,
        },
    )
    bodies.give(machine, guest, Ec2Metadata(machine))
