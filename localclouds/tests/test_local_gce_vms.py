"""What happens to instances of a local GCE with VMs behind them; the VMs are stand-ins."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest
from google.api_core.exceptions import NotFound
from vmrunner_localclouds.gce import LocalGce
from vmrunner_localclouds.gce.guest_vms import mac
from vmrunner_localclouds.vms import MetadataRequest

from tests.support.gce import Google
from tests.support.stand_ins import StandIn, StandIns, until
from vmrunner.providers.fake import Clock

DYING: Final = {"instance_termination_action": "DELETE", "provisioning_model": "STANDARD"}


class World(Google):
    """A local GCE on the real clock; `delete_seconds` and the like are none."""

    def __init__(self, cloud: LocalGce, vms: StandIns) -> None:
        super().__init__(cloud, Clock())
        self.vms = vms

    def born(self, name: str, **more: Any) -> StandIn:
        self.insert(name, **more)
        return self.vms.made[-1]

    def wait_for(self, name: str, status: str) -> Any:
        until(lambda: self.get(name).status == status)
        return self.get(name)


@pytest.fixture
def world() -> Iterator[World]:
    vms = StandIns()
    with LocalGce(vms=vms) as cloud:  # type: ignore[arg-type]
        world = World(cloud, vms)
        yield world
        world.close()


def test_it_runs_when_its_vm_does_and_has_its_address(world: World) -> None:
    disk = world.boot_disk()
    disk["initialize_params"]["disk_size_gb"] = 12
    inner = [{"network": world.site.network, "subnetwork": world.site.subnetwork}]
    both, private = world.born("vm-1", disks=[disk]), world.born("vm-2", network_interfaces=inner)
    for name, vm in (("vm-1", both), ("vm-2", private)):
        (nic,) = world.wait_for(name, "RUNNING").network_interfaces
        assert vm.started
        assert nic.network_i_p == vm.guest.address
        outer = [config.nat_i_p for config in nic.access_configs]
        assert outer == ([vm.guest.address] if vm is both else [])
        assert vm.guest.mac == mac(vm.guest.address)
        assert vm.guest.firmware["product"] == "Google Compute Engine"
        assert vm.guest.firmware["serial"].startswith("GoogleCloud-")
        path, ask = "/computeMetadata/v1/instance/name", {"metadata-flavor": "Google"}
        reply = vm.answer(MetadataRequest(method="GET", path=path, headers=ask))
        assert reply.body.decode() == name
    assert [vm.guest.disk for vm in (both, private)] == [12 << 30, 10 << 30]


def test_a_guests_poweroff_leaves_its_disk_and_no_deadline(world: World) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    vm = world.born("vm-1", scheduling={**DYING, "termination_time": at})
    assert world.wait_for("vm-1", "RUNNING").resource_status.scheduling.termination_timestamp
    vm.code = 0
    item = world.wait_for("vm-1", "TERMINATED")
    assert not item.resource_status.scheduling.termination_timestamp
    assert [disk["name"] for disk in world.cloud.disks] == ["vm-1"]
    world.delete("vm-1")
    assert world.cloud.disks == []


def test_its_vm_stands_still_while_it_is_suspended(world: World) -> None:
    vm = world.born("vm-1")
    (nic,) = world.wait_for("vm-1", "RUNNING").network_interfaces
    where = {"project": world.project, "zone": world.zone, "instance": "vm-1"}
    world.instances.suspend_unary(**where, retry=None)
    assert world.wait_for("vm-1", "SUSPENDED").name == "vm-1"
    seen = vm.polls
    until(lambda: vm.polls >= seen + 2)  # its fleet looked, and leaves it alone
    assert (vm.frozen, vm.killed) == (True, False)
    world.instances.resume_unary(**where, retry=None)
    (again,) = world.wait_for("vm-1", "RUNNING").network_interfaces
    assert (vm.frozen, vm.killed) == (False, False)
    assert again.access_configs[0].nat_i_p == nic.access_configs[0].nat_i_p == vm.guest.address


def test_delete_kills_it_before_it_is_gone(world: World) -> None:
    running, fresh = world.born("vm-1"), world.born("vm-2")
    world.delete("vm-1")
    world.delete("vm-2")
    assert running.killed
    assert fresh.killed
    for name in ("vm-1", "vm-2"):
        with pytest.raises(NotFound):
            world.get(name)
    assert world.cloud.disks == []


def test_what_is_stopped_has_no_vm(world: World) -> None:
    vm = world.born("vm-1")
    world.wait_for("vm-1", "RUNNING")
    where = {"project": world.project, "zone": world.zone, "instance": "vm-1"}
    world.instances.stop_unary(request=where)
    until(lambda: vm.stopped)
    assert [disk["name"] for disk in world.cloud.disks] == ["vm-1"]


def test_its_own_deadline_kills_it_though_nobody_asks(world: World) -> None:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))
    vm = world.born("vm-1", scheduling={**DYING, "termination_time": at})
    world.wait_for("vm-1", "RUNNING")
    requests = len(world.cloud.requests)
    world.cloud.skew = 600
    until(lambda: vm.killed)
    assert len(world.cloud.requests) == requests
    assert world.cloud.alive == world.cloud.disks == []


def test_a_vm_that_breaks_or_cannot_start_stays_off(world: World) -> None:
    world.born("vm-1")
    world.wait_for("vm-1", "RUNNING")
    world.vms.made[0].code = 1
    world.vms.trouble = OSError("qemu-img: no space left on device")
    world.born("vm-2")
    for name in ("vm-1", "vm-2"):
        world.wait_for(name, "TERMINATED")
    operations = world.cloud.shelf("operations", f"zones/{world.zone}").values()
    assert [o["operationType"] for o in operations].count("compute.instances.hostError") == 2


def test_its_serial_port_says_what_it_said(world: World) -> None:
    vm = world.born("vm-1")
    vm.console = "boot \N{HEAVY CHECK MARK} \n".encode() + b"\xff"
    where = {"project": world.project, "zone": world.zone, "instance": "vm-1"}
    output = world.instances.get_serial_port_output(request=where)
    assert output.contents.startswith("boot \N{HEAVY CHECK MARK} \n")


def test_with_the_cloud_all_its_vms_end(world: World) -> None:
    made = [world.born(f"vm-{number}") for number in range(3)]
    world.cloud.stop()
    assert all(vm.killed for vm in made)


def test_one_without_capacity_has_no_vm(world: World) -> None:
    world.cloud.dry.add(("e2-standard-2", world.zone, "on-demand"))
    world.insert("vm-1")
    assert world.vms.made == []
