"""Refusals of the local Azure, as Azure's: by the types of Microsoft's own clients, and by rules
that are in none."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from azure.mgmt.computeschedule import models
from vmrunner_localclouds.azure import schedule_shapes, shapes
from vmrunner_localclouds.azure.api_error import Json

from tests.support.arm import Arm, arm, refused

__all__ = ["arm"]


def within(body: Json, path: str) -> Json:
    """The object that a path with dots leads to; a number is a place in a list."""
    found: Any = body["properties"]
    for part in path.split("."):
        found = found[int(part) if part.isdigit() else part]
    assert isinstance(found, dict)
    return found


IP = "networkProfile.networkInterfaceConfigurations.0.properties.ipConfigurations.0.properties"
ADDRESS = f"{IP}.publicIPAddressConfiguration"

WRONG: dict[str, tuple[Callable[[Json], object], int, str]] = {
    "a field that nobody knows": (
        lambda b: within(b, "storageProfile.osDisk").update(deleteOptions="Delete"),
        400,
        "InvalidRequestContent",
    ),
    "a word that the enum lacks": (
        lambda b: within(b, "storageProfile.osDisk").update(deleteOption="Deleted"),
        400,
        "InvalidParameter",
    ),
    "a number for a text": (lambda b: b["tags"].update(a=1), 400, "InvalidParameter"),
    "no place": (lambda b: b.pop("location"), 400, "InvalidParameter"),
    "a place that is nowhere": (
        lambda b: b.update(location="atlantis"),
        400,
        "LocationNotAvailableForResourceType",
    ),
    "a zone that is nowhere": (lambda b: b.update(zones=["4"]), 400, "InvalidAvailabilityZone"),
    "a tag with a slash": (
        lambda b: b["tags"].update({"a/b": ""}),
        400,
        "InvalidTagNameCharacters",
    ),
    "a tag that is too long": (
        lambda b: b["tags"].update(a="x" * 257),
        400,
        "InvalidTagValueLength",
    ),
    "too many tags": (
        lambda b: b["tags"].update({f"t{n}": "" for n in range(50)}),
        400,
        "InvalidTagCount",
    ),
    "no user": (lambda b: within(b, "osProfile").pop("adminUsername"), 400, "InvalidParameter"),
    "the user root": (
        lambda b: within(b, "osProfile").update(adminUsername="root"),
        400,
        "InvalidParameter",
    ),
    "no way in": (
        lambda b: within(b, "osProfile.linuxConfiguration").pop("ssh"),
        400,
        "InvalidParameter",
    ),
    "user-data that is not base64": (
        lambda b: within(b, "osProfile").update(customData="#cloud-config"),
        400,
        "InvalidParameter",
    ),
    "too much user-data": (
        lambda b: within(b, "osProfile").update(customData=base64.b64encode(bytes(65536)).decode()),
        400,
        "InvalidParameter",
    ),
    "a size that is none": (
        lambda b: within(b, "hardwareProfile").update(vmSize="Standard_Z1"),
        400,
        "InvalidParameter",
    ),
    "an image that is none": (
        lambda b: within(b, "storageProfile.imageReference").update(id="/subscriptions/s/x"),
        404,
        "ImageNotFound",
    ),
    "a disk smaller than its image": (
        lambda b: within(b, "storageProfile.osDisk").update(diskSizeGB=5),
        409,
        "ResizeDiskError",
    ),
    "a subnet that is none": (
        lambda b: within(b, f"{IP}.subnet").update(id="/subscriptions/s/subnets/x"),
        400,
        "InvalidResourceReference",
    ),
    "a network of no version": (
        lambda b: within(b, "networkProfile").pop("networkApiVersion"),
        400,
        "InvalidParameter",
    ),
    "an address of the kind that ended": (
        lambda b: within(b, ADDRESS).pop("sku"),
        400,
        "IPv4BasicSkuPublicIpCountLimitReached",
    ),
    "an eviction of what is not spot": (
        lambda b: b["properties"].update(evictionPolicy="Delete"),
        400,
        "InvalidParameter",
    ),
    "a local disk that is written through": (
        lambda b: within(b, "storageProfile.osDisk").update(diffDiskSettings={"option": "Local"}),
        400,
        "InvalidParameter",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_create_is_refused_and_nothing_is_made(arm: Arm, what: str) -> None:
    spoil, status, code = WRONG[what]
    body = arm.body("vm-1")
    spoil(body)
    assert refused(lambda: arm.begin("vm-1", body)) == (status, code)
    assert (arm.cloud.machines, arm.left()) == ([], [])


def test_a_disk_of_that_name_is_in_the_way(arm: Arm) -> None:
    arm.cloud.disk(arm.group, "root")
    body = arm.body("vm-1")
    body["properties"]["storageProfile"]["osDisk"]["name"] = "root"
    assert refused(lambda: arm.begin("vm-1", body)) == (409, "ConflictingUserInput")


def test_names_of_vms_have_a_form(arm: Arm) -> None:
    assert refused(lambda: arm.begin("vm_1.", arm.body("vm-1"))) == (400, "InvalidParameter")
    assert refused(lambda: arm.begin("v" * 65, arm.body("vm-1"))) == (400, "InvalidParameter")


def test_a_group_that_is_none_is_told(arm: Arm) -> None:
    lost = lambda: arm.vms.get("elsewhere", "vm-1")  # noqa: E731
    assert refused(lost) == (404, "ResourceGroupNotFound")


def test_what_nobody_has_written_is_told(arm: Arm) -> None:
    arm.create("vm-1")
    assert refused(lambda: arm.vms.begin_redeploy(arm.group, "vm-1"))[0] == 501


def test_the_quota_of_a_family_and_of_all(arm: Arm) -> None:
    arm.cloud.quotas["westeurope"] |= {"standardDSv5Family": 3}
    arm.create("vm-1")
    assert refused(lambda: arm.begin("vm-2")) == (409, "OperationNotAllowed")
    arm.vms.begin_deallocate(arm.group, "vm-1").result()
    arm.create("vm-2")
    arm.cloud.quotas["westeurope"] |= {"standardDSv5Family": 100, "cores": 2}
    assert refused(lambda: arm.begin("vm-3")) == (409, "OperationNotAllowed")
    arm.create("vm-3", arm.body("vm-3", priority="Spot"))  # these have their own


def test_a_size_that_nobody_may_have(arm: Arm) -> None:
    arm.cloud.restricted = {("westeurope", "Standard_D2s_v5")}
    assert refused(lambda: arm.begin("vm-1")) == (409, "SkuNotAvailable")
    found = arm.compute.resource_skus.list(filter="location eq 'westeurope'")
    none = [s.name for s in found if s.restrictions]
    assert none == ["Standard_D2s_v5"]


def test_our_own_shapes_are_the_clients() -> None:
    """Microsoft.ComputeSchedule's client has models, and no types of JSON."""
    pairs = {
        schedule_shapes.SubmitRequest: models.SubmitDeallocateRequest,
        schedule_shapes.SubmittedSchedule: models.Schedule,
        schedule_shapes.SubmittedExecution: models.ExecutionParameters,
        schedule_shapes.SubmittedRetries: models.RetryPolicy,
        schedule_shapes.SubmittedResources: models.Resources,
        schedule_shapes.OperationsRequest: models.CancelOperationsRequest,
    }
    for ours, theirs in pairs.items():
        fields = dict.fromkeys(ours.__annotations__)
        accepted = set(theirs(fields))  # type: ignore[call-overload]
        assert accepted == set(fields)
        attributes = {n for n in vars(theirs) if not n.startswith("_")}
        assert len(attributes) == len(fields), theirs


def test_a_wrong_answer_of_this_cloud_is_found(arm: Arm) -> None:
    arm.create("vm-1")
    arm.machine.shown["propertys"] = {}
    assert refused(lambda: arm.vms.get(arm.group, "vm-1"))[0] == 500
    with pytest.raises(shapes.Misshapen, match="propertys"):
        shapes.check(arm.machine.shown, "Microsoft.Compute", "VirtualMachine")
    assert len(arm.cloud.complaints) == 1
    arm.cloud.complaints.clear()
