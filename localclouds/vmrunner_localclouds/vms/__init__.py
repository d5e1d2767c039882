"""Real VMs for a local cloud: QEMU on this machine, from the local image, each reached by SSH on a
loopback address of its own, and with a metadata service that only it can ask. Which cloud it is,
the firmware's names and the service's answers tell; both come from the caller.

    vms = Vms.open()                                # what is needed is there, or BadOrder says what
    vm = vms.make(GuestSpec(name=…, address=vms.address(), …), answer)
    vm.start(); vm.poll(); vm.kill()

The guest reaches its metadata service and nothing else. QEMU dies with the process, or rather the
thread, that started it, and leaves nothing on the disk. It is confined less than the `qemu`
provider's: this is for trying things out, not a wall.

`fleet.py` all VMs of a cloud · `host.py` what they share · `vm.py` one VM · `command_line.py`
QEMU's words · `spawn.py` the program that becomes QEMU · `metadata.py` HTTP for one guest ·
`forward.py` carries it there · `program.py` a local cloud as a program
"""

from __future__ import annotations

from vmrunner_localclouds.vms.command_line import METADATA, GuestSpec
from vmrunner_localclouds.vms.fleet import VmFleet
from vmrunner_localclouds.vms.host import Vms
from vmrunner_localclouds.vms.metadata import MetadataRequest, Reply
from vmrunner_localclouds.vms.vm import Vm

__all__ = ["METADATA", "GuestSpec", "MetadataRequest", "Reply", "Vm", "VmFleet", "Vms"]
