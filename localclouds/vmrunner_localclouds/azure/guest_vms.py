"""Real VMs behind those of the API: a disk, a disc with the user-data, and firmware by which
cloud-init knows Azure. Its address is that of its first interface, which had it from the VMs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vmrunner_localclouds.azure import children, ovf
from vmrunner_localclouds.azure.metadata import FABRIC, AzureMetadata
from vmrunner_localclouds.vms import METADATA, GuestSpec

if TYPE_CHECKING:
    from vmrunner_localclouds.azure.machines import AzureMachine
    from vmrunner_localclouds.vms import VmFleet

GiB: Final = 1024**3
#: The tag of the chassis of all of Azure's VMs.
ASSET: Final = "7783-7084-3265-9085-8269-3286-77"
#: Images name few datasources, and those made before there was this one do not name Azure's.
_WORDS: Final = "ci.ds=Azure"


def embody(machine: AzureMachine, bodies: VmFleet) -> None:
    """Give a new machine a VM."""
    (first, *_) = children.interfaces_of(machine)
    properties = machine.shown["properties"]
    content = ovf.environment(properties["osProfile"], machine.custom_data)
    guest = GuestSpec(
        name=machine.name,
        address=first["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"],
        mac=first["properties"]["macAddress"].replace("-", ":").lower(),
        disk=properties["storageProfile"]["osDisk"]["diskSizeGB"] * GiB,
        firmware={
            "manufacturer": "Microsoft Corporation",
            "product": "Virtual Machine",
            "serial": properties["vmId"],
            "uuid": properties["vmId"],
        },
        asset=ASSET,
        services=(METADATA, FABRIC),
        words=_WORDS,
        seed=ovf.disc(content),
    )
    bodies.give(machine, guest, AzureMetadata(machine))
