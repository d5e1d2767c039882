"""Faults of the local Azure, on demand, as Microsoft's own clients meet them."""

from __future__ import annotations

import pytest
from azure.core.exceptions import ServiceRequestError, ServiceResponseError
from vmrunner_localclouds.azure import (
    AFTER_ALL,
    COMPUTE_THROTTLED,
    CONFLICT,
    EXPIRED,
    GARBAGE,
    HALF_MADE,
    INTERNAL,
    LOST_ANSWER,
    LOST_REQUEST,
    NO_ROOM_IN_ZONE,
    NO_SKU,
    QUOTA,
    THROTTLED,
    FailedLater,
    RequestFate,
)

from tests.support.arm import Arm, arm, refused

__all__ = ["arm"]

PUT = "virtualMachines.put"
ALL = ["disks", "networkInterfaces", "publicIPAddresses"]


@pytest.mark.parametrize(
    "fate", [THROTTLED, COMPUTE_THROTTLED, CONFLICT, INTERNAL, NO_SKU, QUOTA], ids=lambda f: f.code
)
def test_an_error_on_demand_makes_nothing(arm: Arm, fate: RequestFate) -> None:
    arm.cloud.faults.fail(PUT, fate)
    assert refused(lambda: arm.begin("vm-1")) == (fate.status, fate.code)
    assert arm.cloud.machines == []
    arm.create("vm-1")


def test_a_throttled_client_is_told_how_long(arm: Arm) -> None:
    arm.cloud.throttle_seconds = 17
    arm.cloud.faults.fail(PUT, THROTTLED)
    with pytest.raises(Exception, match="Throttled") as caught:
        arm.begin("vm-1")
    assert caught.value.response.headers["Retry-After"] == "17"  # type: ignore[attr-defined]


@pytest.mark.parametrize("fate", [LOST_ANSWER, AFTER_ALL, GARBAGE._replace(happens=True)])
def test_an_unheard_create_has_happened(arm: Arm, fate: RequestFate) -> None:
    arm.cloud.faults.fail(PUT, fate)
    with pytest.raises(Exception):  # noqa: B017 - each in its own way
        arm.create("vm-1")
    assert arm.machine.state == "running"
    assert refused(lambda: arm.create("vm-1")) == (412, "PreconditionFailed")


def test_a_lost_request_has_not_happened(arm: Arm) -> None:
    arm.cloud.faults.fail(PUT, LOST_REQUEST)
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        arm.begin("vm-1")
    assert arm.cloud.machines == []


def test_a_denied_client_is_told_which_right_it_needs(arm: Arm) -> None:
    arm.cloud.faults.deny("virtualMachines.start", PUT)
    with pytest.raises(Exception, match="Compute/virtualMachines/write"):
        arm.begin("vm-1")
    arm.cloud.faults.allow(PUT)
    arm.create("vm-1")
    assert refused(lambda: arm.vms.begin_start(arm.group, "vm-1")) == (403, "AuthorizationFailed")


def test_a_token_that_is_over_is_refused(arm: Arm) -> None:
    arm.cloud.refused["test"] = EXPIRED
    assert refused(lambda: list(arm.vms.list_all())) == (401, "ExpiredAuthenticationToken")


def test_a_failed_create_may_leave_its_parts_behind(arm: Arm) -> None:
    arm.cloud.faults.fail(PUT, HALF_MADE)
    poller = arm.begin("vm-1")
    assert refused(poller.result) == (200, "InternalExecutionError")
    assert refused(lambda: arm.vms.get(arm.group, "vm-1"))[0] == 404
    assert arm.left() == ALL
    (nic,) = arm.network.network_interfaces.list(arm.group)
    assert nic.properties.virtual_machine is None
    arm.network.network_interfaces.begin_delete(arm.group, nic.name).result()
    (disk,) = arm.compute.disks.list_by_resource_group(arm.group)
    arm.compute.disks.begin_delete(arm.group, disk.name).result()
    assert arm.left() == []  # its address said that it dies with its interface


def test_an_interface_is_reserved_after_a_failure(arm: Arm) -> None:
    arm.cloud.reserved_seconds = 180.0
    arm.cloud.faults.fail(PUT, HALF_MADE)
    assert refused(arm.begin("vm-1").result)[1] == "InternalExecutionError"
    (nic,) = arm.network.network_interfaces.list(arm.group)
    delete = lambda: arm.network.network_interfaces.begin_delete(arm.group, nic.name)  # noqa: E731
    assert refused(delete) == (400, "NicReservedForAnotherVm")
    arm.clock.sleep(181)
    delete().result()


def test_an_operation_that_fails_late_changes_nothing(arm: Arm) -> None:
    arm.create("vm-1")
    broken = FailedLater("InternalExecutionError", "An internal execution error occurred.")
    arm.cloud.faults.fail("virtualMachines.delete", broken)
    arm.cloud.faults.fail("virtualMachines.deallocate", broken)
    for call in (arm.vms.begin_deallocate, arm.vms.begin_delete):
        assert refused(call(arm.group, "vm-1").result) == (200, "InternalExecutionError")
    assert arm.power("vm-1") == "running"


def test_a_zone_that_is_down_has_no_room(arm: Arm) -> None:
    arm.cloud.down = {"1"}
    body = arm.body("vm-1") | {"zones": ["1"]}
    assert refused(arm.begin("vm-1", body).result) == (200, NO_ROOM_IN_ZONE.code)
    arm.create("vm-2", arm.body("vm-2") | {"zones": ["2"]})


def test_a_deallocated_vm_may_find_no_room(arm: Arm) -> None:
    arm.create("vm-1")
    arm.vms.begin_deallocate(arm.group, "vm-1").result()
    arm.cloud.dry = {("Standard_D2s_v5", "", "on-demand")}
    assert refused(arm.vms.begin_start(arm.group, "vm-1").result) == (200, "AllocationFailed")
    assert arm.power("vm-1") == "deallocated"


def test_a_location_that_is_down_does_not_answer(arm: Arm) -> None:
    arm.cloud.down = {"westeurope"}
    assert refused(lambda: list(arm.compute.usage.list("westeurope")))[0] == 503
