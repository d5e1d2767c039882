"""Real VMs behind the instances: what each of them is given, and one thread that starts them, hears
when they end, and lets time pass while nobody asks anything."""

from __future__ import annotations

import base64
import logging
import secrets
import threading
from typing import TYPE_CHECKING, Final

from moto.ec2.models.instances import StateReason

from vmrunner.testing.localcloud import patches
from vmrunner.testing.localcloud.imds import InstanceMetadata
from vmrunner.testing.vms import Guest, Vm, Vms

if TYPE_CHECKING:
    from vmrunner.testing.localcloud.cloud import LocalCloud
    from vmrunner.testing.localcloud.machines import Machine

log = logging.getLogger(__name__)

GiB: Final = 1024**3
_TICK: Final = 0.2  # seconds
_BROKEN: Final = StateReason("Server.InternalError: Internal error on launch", "")


class Bodies:
    """All VMs of one cloud."""

    def __init__(self, cloud: LocalCloud, vms: Vms) -> None:
        self._cloud = cloud
        self._vms = vms
        self._waiting: list[Machine] = []  # they have a VM that is not started
        self._running: list[Machine] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """When this returns no VM is left."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        for machine in (*self._waiting, *self._running):
            _body(machine).kill()

    def give(self, machine: Machine) -> None:
        """A newborn gets a VM, which is started soon, and the VM's address for its own."""
        address = self._vms.address()
        nic = machine.moto.nics[0]
        nic.private_ip_address = address
        nic.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        if nic.public_ip:
            nic.public_ip = address
        root = machine.moto.block_device_mapping[machine.moto.root_device_name]
        uuid = f"ec2{secrets.token_hex(16)[3:]}"
        uuid = "-".join((uuid[:8], uuid[8:12], uuid[12:16], uuid[16:20], uuid[20:]))
        guest = Guest(
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
        machine.body = self._vms.make(guest, InstanceMetadata(machine))
        self._waiting.append(machine)

    def console(self, machine: Machine) -> str:
        """Its serial output, as the API writes it."""
        return base64.b64encode(_body(machine).console).decode()

    # --- within ---

    def _live(self) -> None:
        """QEMU dies with the thread that started it: this one lives as long as the cloud."""
        while not self._stopped.wait(_TICK):
            try:
                self._tick()
            except Exception:
                log.exception("a tick of the local cloud")

    def _tick(self) -> None:
        self._cloud.settle()
        while self._waiting:
            self._begin(self._waiting[0])
        for machine in list(self._running):
            self._look(machine)

    def _begin(self, machine: Machine) -> None:
        try:
            _body(machine).start()
        except OSError as error:
            log.warning("%s: %s", machine.id, error)
            self._befall(machine, broken=True)
        else:
            self._running.append(machine)
            with self._cloud.lock, patches.within(self._cloud):
                machine.run()
        self._waiting.remove(machine)

    def _look(self, machine: Machine) -> None:
        body = _body(machine)
        code = body.poll()
        if code is None and machine.state in ("stopped", "terminated"):
            body.kill()
        elif code is None:
            return
        elif machine.alive:
            broken = code != 0
            if broken:
                log.warning("%s: QEMU ended with %d: %s", machine.id, code, body.complaint)
            self._befall(machine, broken=broken)
        self._running.remove(machine)

    def _befall(self, machine: Machine, *, broken: bool) -> None:
        with self._cloud.lock, patches.within(self._cloud):
            if broken:
                machine.end(_BROKEN)
            else:
                machine.power_off()


def _body(machine: Machine) -> Vm:
    assert machine.body is not None
    return machine.body
