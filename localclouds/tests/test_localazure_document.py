"""Azure's published documents hold for the requests of the driver and for the answers that the
local Azure gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import httpx2
import pytest
from vmrunner_localclouds.azure import (
    COMPUTE_THROTTLED,
    FORBIDDEN,
    HALF_MADE,
    NO_ROOM,
    QUOTA,
    QUOTA_LATER,
    THROTTLED,
    UNHEARD_GUEST,
    AzureMachine,
    FailedLater,
    RequestFate,
)
from vmrunner_localclouds.azure.routes import KNOWN

from deploy.azure.guard import function_app as guard
from tests.support.arm import Arm, arm_of, refused
from tests.support.azure import Microsoft, look, make_order, swept
from tests.support.azure import azure as azure  # the fixture
from tests.support.azure_document import Exchange, kinds, problems, schemas
from tests.support.azure_document import heard as heard  # likewise
from vmrunner.model import Spec

#: Answers with a body of which the data here has no document.
UNPUBLISHED: Final = {
    *("resourceGroups.get", "resourceGroups.listAll", "resourceGroups.resources"),
    *("permissions.list", "locks.list", "sites.get"),
    "tags.patch",
    "usages.list",  # of Microsoft.Network
}
WHOLE: Final = [kind for kind in kinds() if kind.count("/") == 1]
PROVIDERS: Final = ("providers/Microsoft.Compute", "providers/Microsoft.Network")
BEARER: Final = {"Authorization": "Bearer test"}


@pytest.fixture
def arm(azure: Microsoft) -> Iterator[Arm]:
    """The raw clients beside the driver."""
    with arm_of(azure.cloud, azure.clock) as made:
        yield made


def test_the_documents_are_of_the_guards_versions() -> None:
    wanted = {"virtualMachines": guard.COMPUTE, "disks": guard.DISK, "snapshots": guard.DISK}
    wanted |= dict.fromkeys(("networkInterfaces", "publicIPAddresses"), guard.NETWORK)
    versions = {kind.rpartition("/")[2]: version for kind, version in kinds().items()}
    assert wanted.items() <= versions.items()


@pytest.mark.parametrize(
    "options",
    [
        {"spot": "prefer"},
        {"address": "private", "os_disk": "ephemeral", "machine_types": ("Standard_D4ds_v5",)},
        {"image": "Debian:debian-13:13-gen2:latest", "zones": (), "disk_type": "Premium_LRS"},
    ],
    ids=["spot", "ephemeral", "marketplace"],
)
def test_a_drivers_life_is_as_published(
    azure: Microsoft, heard: list[Exchange], options: dict[str, Any]
) -> None:
    provider = azure.provider(**options)
    order = make_order(provider, Spec(disk=40 * 2**30))
    ref = provider.create(order)
    armed = provider.arm(ref, order.instance, order.deadline)
    look(provider, order, ref)
    swept(provider)
    provider.console(ref)
    list(provider.check())
    if "os_disk" not in options:
        provider.park(ref)
        provider.wake(ref)
    provider.delete([ref] if armed is None else [ref, armed])
    assert problems(heard) == []
    assert {"virtualMachines.put", "virtualMachines.delete"} <= {
        exchange.action for exchange in heard
    }


def test_a_gallerys_image_is_asked_for_as_published(
    azure: Microsoft, heard: list[Exchange]
) -> None:
    provider = azure.provider(image=azure.site.version, security_group=azure.site.firewall)
    provider.create(make_order(provider))
    assert problems(heard) == []


def test_images_are_promoted_as_published(azure: Microsoft, heard: list[Exchange]) -> None:
    azure.cloud.image(azure.site.group, "made", tags={"vmrunner:installation": "x"})
    images = azure.provider(image=None).imaging()
    made = images.find_by_name("made")
    assert made is not None
    images.promote(made, 100.0)
    images.remove(made)
    assert problems(heard) == []
    assert {"images.patch", "images.delete"} <= {exchange.action for exchange in heard}


@pytest.mark.parametrize(
    "fate",
    [NO_ROOM, QUOTA_LATER, HALF_MADE, UNHEARD_GUEST, QUOTA, THROTTLED, COMPUTE_THROTTLED],
)
def test_what_fails_is_told_as_published(
    azure: Microsoft, arm: Arm, heard: list[Exchange], fate: RequestFate | FailedLater
) -> None:
    azure.cloud.faults.fail("virtualMachines.put", fate)
    with pytest.raises(Exception, match=fate.code):
        arm.create("vm-1")
    swept(azure.provider())
    assert problems(heard) == []
    later = isinstance(fate, FailedLater)
    assert any(("error" in json.loads(exchange.answer.body or "{}")) for exchange in heard)
    assert any(exchange.action == "operations.get" for exchange in heard) == later


def test_refusals_are_told_as_published(azure: Microsoft, arm: Arm, heard: list[Exchange]) -> None:
    body = arm.body("vm-1")
    body["properties"]["hardwareProfile"]["vmSize"] = "Standard_Nothing"
    arm.create("vm-1")
    azure.cloud.faults.fail("disks.list", FORBIDDEN)
    for call in (
        lambda: arm.create("vm-1"),
        lambda: arm.create("vm-2", body),
        lambda: arm.vms.get(arm.group, "vm-3"),
        lambda: list(arm.compute.disks.list_by_resource_group(arm.group)),
        lambda: arm.compute.disks.begin_delete(
            arm.group, azure.cloud.remaining[0]["name"]
        ).result(),
    ):
        assert refused(call)[0] in (400, 403, 404, 409, 412)
    assert problems(heard) == []


def test_what_is_not_published_is_noticed(
    arm: Arm, heard: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    body = arm.body("vm-1")
    body["properties"]["storageProfile"]["osDisk"] |= {"deleteOptions": "Delete", "caching": "All"}
    assert refused(lambda: arm.create("vm-1", body))[0] == 400
    arm.create("vm-1")
    monkeypatch.setattr(AzureMachine, "instance_view", lambda _: {"computername": "vm-1"})
    arm.vms.instance_view(arm.group, "vm-1")
    found = " ".join(problems(heard))
    assert all(word in found for word in ("'deleteOptions'", "'All'", "'computername'"))


# --- all that it answers --------------------------------------------------------------------------


def made_alone(arm: Arm) -> None:
    """Disks, snapshots, images, interfaces and addresses of no VM, made and changed."""
    group, compute, network = arm.group, arm.compute, arm.network
    place, change = {"location": arm.site.location}, {"tags": {"a": "b"}}
    empty = {**place, "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}}
    source = compute.disks.begin_create_or_update(group, "d", empty).result().id
    copied = {"creationData": {"createOption": "Copy", "sourceResourceId": source}}
    snapshot = {**place, "properties": copied}
    compute.snapshots.begin_create_or_update(group, "s", snapshot).result()
    compute.images.begin_create_or_update(group, "i", {**place, "properties": {}}).result()
    for kind, name in (("disks", "d"), ("snapshots", "s"), ("images", "i")):
        getattr(compute, kind).begin_update(group, name, change).result()
    fixed = {"publicIPAllocationMethod": "Static"}
    address = {**place, "sku": {"name": "Standard"}, "properties": fixed}
    network.public_ip_addresses.begin_create_or_update(group, "a", address).result()
    config = {"name": "ip", "properties": {"subnet": {"id": arm.site.subnet}}}
    interface = {**place, "properties": {"ipConfigurations": [config]}}
    network.network_interfaces.begin_create_or_update(group, "n", interface).result()
    for name, body in galleries(arm).items():
        family, names = getattr(compute, name), ("g", "d", "1.0.0")[: len(body["names"])]
        family.begin_create_or_update(group, *names, body["whole"]).result()
        family.begin_update(group, *names, change).result()
    network.public_ip_addresses.update_tags(group, "a", change)
    network.network_interfaces.update_tags(group, "n", change)


def galleries(arm: Arm) -> dict[str, Any]:
    """A gallery, a definition in it and a version of that: names and whole bodies, by family."""
    place = {"location": arm.site.location}
    definition = {
        "osType": "Linux",
        "osState": "Generalized",
        "hyperVGeneration": "V2",
        "identifier": {"publisher": "p", "offer": "o", "sku": "s"},
    }
    version = {
        "storageProfile": {"source": {"id": arm.site.image}},
        "publishingProfile": {"targetRegions": [{"name": "West Europe"}]},
    }
    return {
        "galleries": {"names": "g", "whole": {**place, "properties": {}}},
        "gallery_images": {"names": "gd", "whole": {**place, "properties": definition}},
        "gallery_image_versions": {"names": "gdv", "whole": {**place, "properties": version}},
    }


def states_of_a_vm(arm: Arm) -> None:
    vms, group = arm.vms, arm.group
    more = {"priority": "Spot", "evictionPolicy": "Deallocate"}
    able = {"hibernationEnabled": True}
    arm.create("vm-1", arm.body("vm-1", additionalCapabilities=able, **more))
    vms.begin_update(group, "vm-1", {"tags": {"a": "b"}}).result()
    for action, how in (
        *(("power_off", {}), ("start", {}), ("deallocate", {"hibernate": True}), ("start", {})),
        *(("deallocate", {}), ("start", {})),
    ):
        getattr(vms, f"begin_{action}")(group, "vm-1", **how).result()
        vms.instance_view(group, "vm-1")
    vms.retrieve_boot_diagnostics_data(group, "vm-1")
    schedules(arm)
    vms.simulate_eviction(group, "vm-1")
    list(vms.list(group, expand="instanceView"))


def schedules(arm: Arm) -> None:
    """Of three, one is called off, one strikes, and one is about no VM."""
    actions, place = arm.schedule.scheduled_actions, arm.site.location
    at = datetime.fromtimestamp(arm.clock() + 600, UTC)
    request = {
        "schedule": {"deadline": at.isoformat(), "timezone": "UTC", "deadlineType": "InitiateAt"},
        "executionParameters": {"retryPolicy": {"retryCount": 1, "retryWindowInMinutes": 10}},
        "resources": {"ids": [arm.machine.id, arm.machine.id, f"{arm.machine.id}0"]},
        "correlationid": "c",
    }
    results = actions.virtual_machines_submit_deallocate(place, request).results
    names = [result.operation.operation_id for result in results if result.operation]
    actions.virtual_machines_cancel_operations(
        place, {"operationIds": names[:1], "correlationid": "c"}
    )
    arm.clock.advance(700)
    both = {"operationIds": [*names, "none"], "correlationid": "c"}
    actions.virtual_machines_get_operation_status(place, both)


def read_all(arm: Arm) -> None:
    cloud, site = arm.cloud, arm.site
    subscription = f"/subscriptions/{cloud.subscription}"
    group, compute = f"{subscription}/resourceGroups/{arm.group}", "providers/Microsoft.Compute"
    ours = cloud.site(arm.group, "guard")["id"]
    gallery, version = site.version.partition("/images/")[0], site.version
    paths = [
        *(f"{subscription}/resourceGroups", group, f"{group}/resources", ours, gallery),
        *(f"{group}/providers/Microsoft.Authorization/{kind}" for kind in ("permissions", "locks")),
        f"{subscription}/{compute}/skus",
        *(f"{above}/providers/{kind}" for above in (subscription, group) for kind in WHOLE),
        *(f"{subscription}/{provider}/locations/{site.location}/usages" for provider in PROVIDERS),
        *(version, version.rpartition("/")[0], f"{site.network}/subnets", site.subnet),
        *(version.partition("/versions/")[0], f"{gallery}/images"),
        *(
            site.image,
            site.network,
            site.firewall,
            *(r["id"] for r in cloud.remaining),
        ),
        f"{arm.machine.id}?$expand=instanceView",
    ]
    for path in paths:
        url = httpx2.URL(f"{cloud.url}{path}").copy_merge_params({"api-version": guard.COMPUTE})
        assert httpx2.get(url, headers=BEARER).status_code == 200, path
    tags = f"{cloud.url}{group}/providers/Microsoft.Resources/tags/default?api-version={guard.TAGS}"
    merged = {"operation": "Merge", "properties": {"tags": {"a": "b"}}}
    assert httpx2.patch(tags, json=merged, headers=BEARER).status_code == 200


def delete_all(arm: Arm) -> None:
    arm.delete("vm-1")
    for kind, name in (("disks", "d"), ("snapshots", "s"), ("images", "i")):
        getattr(arm.compute, kind).begin_delete(arm.group, name).result()
    for family, names in (
        ("gallery_image_versions", ("g", "d", "1.0.0")),
        ("gallery_images", ("g", "d")),
        ("galleries", ("g",)),
    ):
        getattr(arm.compute, family).begin_delete(arm.group, *names).result()
    arm.network.network_interfaces.begin_delete(arm.group, "n").result()
    arm.network.public_ip_addresses.begin_delete(arm.group, "a").result()
    assert arm.left() == []


def test_all_that_is_answered_is_as_published(arm: Arm, heard: list[Exchange]) -> None:
    arm.cloud.restricted.add((arm.site.location, "Standard_D2ps_v5"))
    for part in (made_alone, states_of_a_vm, read_all, delete_all):
        part(arm)
    assert problems(heard) == []
    assert {exchange.action for exchange in heard} == set(KNOWN)
    bare = {
        exchange.action
        for exchange in heard
        if exchange.answer.body and not schemas(exchange.request)[1]
    }
    assert bare == UNPUBLISHED
