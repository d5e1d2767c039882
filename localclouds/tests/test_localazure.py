"""The local Azure, by Microsoft's own clients: a VM's life, and its parts'."""

from __future__ import annotations

from typing import Any

import httpx2
from azure.core import MatchConditions
from vmrunner_localclouds.azure import NO_ROOM, UNHEARD_GUEST

from tests.support.arm import Arm, arm, refused

__all__ = ["arm"]

ALL = ["disks", "networkInterfaces", "publicIPAddresses"]


def test_a_create_makes_a_vm_with_its_parts(arm: Arm) -> None:
    made = arm.create("vm-1")
    assert made.properties.provisioning_state == "Succeeded"
    assert arm.power("vm-1") == "running"
    assert arm.left() == ALL
    nic = next(iter(arm.network.network_interfaces.list(arm.group)))
    assert nic.tags == {"vmrunner:instance": "vm-1"}
    assert made.properties.network_profile.network_interfaces[0].id == nic.id
    (config,) = nic.properties.ip_configurations
    (address,) = arm.network.public_ip_addresses.list(arm.group)
    assert config.properties.public_ip_address.id == address.id
    assert address.properties.ip_address.startswith("198.18.")
    (disk,) = arm.compute.disks.list_by_resource_group(arm.group)
    assert disk.managed_by.lower() == made.id.lower()
    assert disk.managed_by != made.id  # the group in capitals, as there


def test_no_answer_shows_what_was_secret(arm: Arm) -> None:
    profile = arm.create("vm-1").properties.os_profile
    assert (profile.custom_data, profile.admin_password) == (None, None)
    assert arm.machine.custom_data == b"#cloud-config\n{}\n"


def test_an_operation_is_followed_to_its_end(arm: Arm) -> None:
    arm.cloud.boot_seconds = 45.0
    began = arm.clock()
    arm.begin("vm-1").result()
    assert arm.clock() - began == 45.0
    assert arm.cloud.count("operations.get") == 5  # each let ten seconds pass at most
    assert arm.power("vm-1") == "running"


def test_a_create_waits_for_nobody(arm: Arm) -> None:
    """The first answer of it comes at once, with the address of its operation on this server."""
    arm.cloud.boot_seconds = 45.0
    arm.cloud.retry_after = 7
    headers: dict[str, Any] = {}

    def heard(response: Any) -> None:
        headers.update(response.http_response.headers, status=response.http_response.status_code)

    more = {"polling": False, "raw_response_hook": heard}
    arm.vms.begin_create_or_update(arm.group, "vm-1", arm.body("vm-1"), **more)
    assert headers["status"] == 201
    assert headers["Azure-AsyncOperation"].startswith(f"{arm.cloud.url}/subscriptions/")
    assert headers["Retry-After"] == "7"
    assert arm.machine.state == "starting"


def test_the_same_name_again_is_refused_when_asked(arm: Arm) -> None:
    arm.create("vm-1")
    assert refused(lambda: arm.create("vm-1")) == (412, "PreconditionFailed")
    arm.vms.begin_create_or_update(arm.group, "VM-1", arm.body("vm-1")).result()
    assert len(arm.cloud.machines) == 1


def test_a_changed_vm_is_not_changed_by_an_old_tag(arm: Arm) -> None:
    made = arm.create("vm-1")
    new = {"tags": {"team": "core"}}
    arm.vms.begin_update(arm.group, "vm-1", new).result()
    again = {"etag": made.etag, "match_condition": MatchConditions.IfNotModified}
    late = lambda: arm.vms.begin_update(arm.group, "vm-1", new, **again)  # noqa: E731
    assert refused(late) == (412, "PreconditionFailed")
    assert arm.vms.get(arm.group, "vm-1").tags == {"team": "core"}


def test_a_delete_takes_the_parts_that_die_with_it(arm: Arm) -> None:
    arm.create("vm-1")
    arm.delete("vm-1", force_deletion=True)
    assert refused(lambda: arm.vms.get(arm.group, "vm-1")) == (404, "ResourceNotFound")
    assert arm.left() == []
    arm.delete("vm-1")  # and again, of what is not there


def test_a_delete_leaves_the_parts_that_outlive_it(arm: Arm) -> None:
    body = arm.body("vm-1")
    del body["properties"]["storageProfile"]["osDisk"]["deleteOption"]
    (nic,) = body["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    (config,) = nic["properties"]["ipConfigurations"]
    del config["properties"]["publicIPAddressConfiguration"]["properties"]["deleteOption"]
    arm.create("vm-1", body)
    arm.delete("vm-1")
    assert arm.left() == ["disks", "publicIPAddresses"]
    (disk,) = arm.compute.disks.list_by_resource_group(arm.group)
    assert (disk.managed_by, disk.properties.disk_state) == (None, "Unattached")
    arm.compute.disks.begin_delete(arm.group, disk.name).result()
    (address,) = arm.network.public_ip_addresses.list(arm.group)
    arm.network.public_ip_addresses.begin_delete(arm.group, address.name).result()
    assert arm.left() == []


def test_parts_that_are_used_are_not_deleted(arm: Arm) -> None:
    arm.create("vm-1")
    (disk,) = arm.compute.disks.list_by_resource_group(arm.group)
    (nic,) = arm.network.network_interfaces.list(arm.group)
    (address,) = arm.network.public_ip_addresses.list(arm.group)
    network = arm.network
    assert refused(lambda: arm.compute.disks.begin_delete(arm.group, disk.name)) == (
        409,
        "OperationNotAllowed",
    )
    assert refused(lambda: network.network_interfaces.begin_delete(arm.group, nic.name)) == (
        400,
        "NicInUse",
    )
    assert refused(lambda: network.public_ip_addresses.begin_delete(arm.group, address.name)) == (
        400,
        "PublicIPAddressCannotBeDeleted",
    )


def test_a_forgotten_delete_option_leaves_the_parts(arm: Arm) -> None:
    arm.cloud.keeps_children = {"Microsoft.Compute/disks", "Microsoft.Network/networkInterfaces"}
    arm.create("vm-1")
    arm.delete("vm-1")
    assert arm.left() == ALL


def test_a_guest_that_switches_itself_off_bills_on(arm: Arm) -> None:
    arm.create("vm-1")
    arm.machine.power_off()
    assert arm.power("vm-1") == "stopped"
    assert arm.machine.billed
    arm.vms.begin_deallocate(arm.group, "vm-1").result()
    assert arm.power("vm-1") == "deallocated"
    assert not arm.machine.billed
    assert arm.left() == ALL  # these do


def test_a_vm_is_stopped_and_started_again(arm: Arm) -> None:
    arm.cloud.stop_seconds = 20.0
    arm.create("vm-1")
    arm.vms.begin_power_off(arm.group, "vm-1", polling=False)  # whose poller lets time pass
    assert arm.power("vm-1") == "stopping"
    arm.clock.sleep(20)
    assert arm.power("vm-1") == "stopped"
    arm.vms.begin_start(arm.group, "vm-1").result()
    assert arm.power("vm-1") == "running"


def test_only_a_vm_made_for_it_hibernates(arm: Arm) -> None:
    arm.create("vm-1")
    sleep = lambda name: arm.vms.begin_deallocate(arm.group, name, hibernate=True)  # noqa: E731
    assert refused(lambda: sleep("vm-1")) == (409, "OperationNotAllowed")
    arm.create("vm-2", arm.body("vm-2", additionalCapabilities={"hibernationEnabled": True}))
    sleep("vm-2").result()
    view = arm.vms.instance_view(arm.group, "vm-2")
    assert "HibernationState/Hibernated" in [status.code for status in view.statuses]
    arm.vms.begin_start(arm.group, "vm-2").result()
    assert not arm.cloud.machines[1].hibernated


def test_a_local_disk_is_no_resource(arm: Arm) -> None:
    body = arm.body("vm-1", hardwareProfile={"vmSize": "Standard_D2ds_v5"})
    local = {"caching": "ReadOnly", "diffDiskSettings": {"option": "Local"}}
    body["properties"]["storageProfile"]["osDisk"] |= local
    arm.create("vm-1", body)
    assert arm.left() == ["networkInterfaces", "publicIPAddresses"]
    stop = lambda: arm.vms.begin_deallocate(arm.group, "vm-1")  # noqa: E731
    assert refused(stop) == (409, "OperationNotAllowed")


def test_a_spot_vm_is_evicted_with_its_parts(arm: Arm) -> None:
    spot = {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}
    arm.create("vm-1", arm.body("vm-1", **spot))
    arm.cloud.eviction_seconds = 30.0
    arm.vms.simulate_eviction(arm.group, "vm-1")
    assert arm.power("vm-1") == "running"
    arm.clock.sleep(31)
    assert refused(lambda: arm.vms.get(arm.group, "vm-1")) == (404, "ResourceNotFound")
    assert arm.left() == []
    arm.create("vm-2")
    evict = lambda: arm.vms.simulate_eviction(arm.group, "vm-2")  # noqa: E731
    assert refused(evict) == (409, "OperationNotAllowed")


def test_an_evicted_vm_may_stay_deallocated(arm: Arm) -> None:
    arm.create("vm-1", arm.body("vm-1", priority="Spot"))
    arm.vms.simulate_eviction(arm.group, "vm-1")
    assert arm.power("vm-1") == "deallocated"
    assert arm.left() == ALL


def test_the_serial_port_is_read_at_a_signed_address(arm: Arm) -> None:
    arm.create("vm-1")
    arm.machine.serial = b"Debian GNU/Linux 13 vm-1 ttyS0\n"
    found = arm.vms.retrieve_boot_diagnostics_data(
        arm.group, "vm-1", sas_uri_expiration_time_in_minutes=5
    )
    url = found.serial_console_log_blob_uri
    assert httpx2.get(url).content == b"Debian GNU/Linux 13 vm-1 ttyS0\n"
    arm.clock.sleep(301)
    assert httpx2.get(url).status_code == 403


def test_a_vm_without_room_stays_failed_until_deleted(arm: Arm) -> None:
    arm.cloud.dry = {("Standard_D2s_v5", "", "on-demand")}
    poller = arm.begin("vm-1")
    assert refused(poller.result) == (200, NO_ROOM.code)
    shown = arm.vms.get(arm.group, "vm-1", expand="instanceView").properties
    assert shown.provisioning_state == "Failed"
    codes = [status.code for status in shown.instance_view.statuses]
    assert codes == ["ProvisioningState/failed/AllocationFailed"]
    assert arm.left() == ["networkInterfaces", "publicIPAddresses"]
    arm.delete("vm-1")
    assert arm.left() == []


def test_a_failed_vm_may_run_all_the_same(arm: Arm) -> None:
    arm.cloud.faults.fail("virtualMachines.put", UNHEARD_GUEST)
    assert refused(arm.begin("vm-1").result) == (200, "OSProvisioningTimedOut")
    assert arm.vms.get(arm.group, "vm-1").properties.provisioning_state == "Failed"
    assert arm.power("vm-1") == "running"
    assert arm.machine.billed


def test_a_delete_preempts_the_create(arm: Arm) -> None:
    arm.cloud.boot_seconds = 45.0
    arm.cloud.poll_seconds = 0.0  # the poller's first questions let no time pass
    poller = arm.begin("vm-1")
    arm.delete("vm-1")
    assert refused(poller.result) == (200, "OperationPreempted")
    assert arm.left() == []


def test_a_locked_vm_is_not_deleted(arm: Arm) -> None:
    arm.create("vm-1")
    arm.machine.locked = True
    assert refused(lambda: arm.vms.begin_delete(arm.group, "vm-1")) == (409, "ScopeLocked")
    arm.machine.locked = False
    arm.delete("vm-1")


def test_a_stuck_vm_goes_when_it_is_forced(arm: Arm) -> None:
    arm.create("vm-1")
    arm.machine.stuck = True
    poller = arm.vms.begin_delete(arm.group, "vm-1")
    assert poller.status() == "InProgress"
    assert refused(lambda: arm.vms.begin_start(arm.group, "vm-1")) == (409, "OperationNotAllowed")
    arm.delete("vm-1", force_deletion=True)
    assert poller.result() is None
