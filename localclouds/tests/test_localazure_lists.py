"""Lists of the local Azure, page by page; locations, sizes, quotas, prices; scheduled
deallocations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from vmrunner_localclouds.azure import price

from tests.support.arm import SIZE, Arm, arm, refused

__all__ = ["arm"]


def test_lists_of_a_group_and_of_all(arm: Arm) -> None:
    other = arm.cloud.furnish(group="other")
    arm.create("vm-1")
    arm.vms.begin_create_or_update(other.group, "vm-2", arm.body("vm-2")).result()
    assert [vm.name for vm in arm.vms.list(arm.group)] == ["vm-1"]
    assert [vm.name for vm in arm.vms.list_all()] == ["vm-1", "vm-2"]
    assert [vm.name for vm in arm.vms.list_by_location("westeurope")] == ["vm-1", "vm-2"]
    assert list(arm.vms.list_by_location("northeurope")) == []


def test_a_list_tells_states_when_asked(arm: Arm) -> None:
    arm.create("vm-1")
    (plain,) = arm.vms.list(arm.group)
    assert plain.properties.instance_view is None
    for listed in (
        arm.vms.list(arm.group, expand="instanceView"),
        arm.vms.list_all(status_only="true"),
    ):
        (shown,) = listed
        codes = [status.code for status in shown.properties.instance_view.statuses]
        assert codes == ["ProvisioningState/succeeded", "PowerState/running"]


def test_a_list_goes_on_on_the_next_page(arm: Arm) -> None:
    arm.cloud.page_size = 2
    for number in range(5):
        arm.cloud.disk(arm.group, f"disk-{number}", tags={"n": str(number)})
    found = list(arm.compute.disks.list_by_resource_group(arm.group))
    assert [disk.tags["n"] for disk in found] == list("01234")
    assert arm.cloud.count("disks.list") == 3


def test_newborns_are_in_no_list_for_a_while(arm: Arm) -> None:
    arm.cloud.visibility_lag = 5.0
    arm.create("vm-1")
    assert list(arm.vms.list(arm.group)) == []
    assert arm.vms.get(arm.group, "vm-1").name == "vm-1"
    arm.clock.sleep(5)
    assert len(list(arm.vms.list(arm.group))) == 1


def test_a_group_tells_what_is_in_it(arm: Arm) -> None:
    arm.create("vm-1")
    arm.cloud.snapshot(arm.group, "snap", tags={"team": "core"})
    base = f"{arm.cloud.url}/subscriptions/{arm.cloud.subscription}/resourceGroups/{arm.group}"
    query = {"api-version": "2021-04-01"}
    assert httpx2.get(base, params=query).json()["location"] == "westeurope"

    def kinds(**more: str) -> list[str]:
        answer = httpx2.get(
            f"{base}/resources", params=query | {f"${k}": v for k, v in more.items()}
        )
        return sorted(resource["type"].rpartition("/")[2] for resource in answer.json()["value"])

    whole = ["disks", "galleries", "images", "networkInterfaces", "networkSecurityGroups"]
    whole += ["publicIPAddresses", "snapshots", "virtualMachines", "virtualNetworks"]
    assert kinds() == whole
    assert kinds(filter="tagName eq 'team' and tagValue eq 'core'") == ["snapshots"]
    assert kinds(filter="resourceType eq 'Microsoft.Compute/disks'") == ["disks"]
    wrong = httpx2.get(f"{base}/resources", params=query | {"$filter": "zones eq '1'"})
    assert wrong.json()["error"]["code"] == "InvalidFilterInQueryString"


def test_sizes_and_quotas_are_told(arm: Arm) -> None:
    arm.create("vm-1")
    found = {s.name: s for s in arm.compute.resource_skus.list(filter="location eq 'westeurope'")}
    can = {c.name: c.value for c in found[SIZE].capabilities or []}
    assert (can["vCPUs"], can["MemoryGB"], can["CpuArchitectureType"]) == ("2", "8", "x64")
    used = {u.name.value: (u.current_value, u.limit) for u in arm.compute.usage.list("westeurope")}
    assert used["cores"] == used["standardDSv5Family"] == (2, 100)
    network: Any = arm.network.usages.list("westeurope")
    assert {u.name.value: u.current_value for u in network} == {
        "NetworkInterfaces": 1,
        "PublicIPAddresses": 1,
        "StandardSkuPublicIpAddresses": 1,
    }


def test_networks_images_and_versions_are_told(arm: Arm) -> None:
    (network,) = arm.network.virtual_networks.list(arm.group)
    (subnet,) = arm.network.subnets.list(arm.group, network.name)
    assert arm.network.subnets.get(arm.group, network.name, subnet.name).id == arm.site.subnet
    assert arm.compute.images.get(arm.group, "vmrunner").id == arm.site.image
    found = arm.compute.gallery_image_versions.get(arm.group, "vmrunner", "vmrunner", "1.0.0")
    assert found.id == arm.site.version
    body = arm.body("vm-1")
    latest = arm.site.version.rpartition("/versions/")[0]
    body["properties"]["storageProfile"]["imageReference"] = {"id": latest}
    arm.create("vm-1", body)


def test_prices_are_told_to_anybody_page_by_page(arm: Arm) -> None:
    arm.cloud.prices = [price("westeurope", f"Standard_D{n}s_v5", n / 20) for n in range(1, 6)]
    arm.cloud.prices.append(price("northeurope", SIZE, 0.09))
    query = {"$filter": "armRegionName eq 'westeurope' and contains(armSkuName, '_v5')"}
    page = httpx2.get(f"{arm.cloud.url}/api/retail/prices", params=query).json()
    found = [item["retailPrice"] for item in page["Items"]]
    page = httpx2.get(page["NextPageLink"]).json()
    found += [item["retailPrice"] for item in page["Items"]]
    assert page["NextPageLink"] is None
    assert found == [0.05, 0.1, 0.15, 0.2, 0.25]
    either = {"$filter": f"armSkuName eq '{SIZE}' or armSkuName eq 'none'"}
    page = httpx2.get(f"{arm.cloud.url}/api/retail/prices", params=either).json()
    assert [item["armRegionName"] for item in page["Items"]] == ["westeurope", "northeurope"]


# --- Microsoft.ComputeSchedule -------------------------------------------------------------------


def submit(arm: Arm, *ids: str, seconds: float = 600, kind: str = "InitiateAt") -> Any:
    at = datetime.fromtimestamp(arm.clock(), UTC) + timedelta(seconds=seconds)
    request = {
        "schedule": {"deadline": at.isoformat(), "timezone": "UTC", "deadlineType": kind},
        "executionParameters": {"retryPolicy": {"retryCount": 3, "retryWindowInMinutes": 30}},
        "resources": {"ids": list(ids)},
        "correlationid": "00000000-0000-4000-8000-000000000001",
    }
    actions = arm.schedule.scheduled_actions
    return actions.virtual_machines_submit_deallocate("westeurope", request)


def state(arm: Arm, operation: str) -> str:
    request = {"operationIds": [operation], "correlationid": "c"}
    (found,) = arm.schedule.scheduled_actions.virtual_machines_get_operation_status(
        "westeurope", request
    ).results
    return str(found.operation.state.value)


def test_a_vm_is_deallocated_at_its_time(arm: Arm) -> None:
    made = arm.create("vm-1")
    results = submit(arm, made.id, f"{made.id}-none").results
    assert [result.error_code for result in results] == [None, "ResourceNotFound"]
    operation = results[0].operation
    assert operation.state == "PendingScheduling"
    assert state(arm, operation.operation_id) == "Scheduled"
    arm.clock.sleep(599)
    assert arm.power("vm-1") == "running"
    arm.clock.sleep(1)
    assert arm.power("vm-1") == "deallocated"
    assert state(arm, operation.operation_id) == "Succeeded"


def test_a_cancelled_deallocation_does_not_come(arm: Arm) -> None:
    made = arm.create("vm-1")
    operation = submit(arm, made.id).results[0].operation.operation_id
    request = {"operationIds": [operation], "correlationid": "c"}
    actions = arm.schedule.scheduled_actions
    (result,) = actions.virtual_machines_cancel_operations("westeurope", request).results
    assert result.operation.state == "Cancelled"
    arm.clock.sleep(601)
    assert arm.power("vm-1") == "running"


def test_a_deallocation_of_what_is_gone_fails(arm: Arm) -> None:
    made = arm.create("vm-1")
    operation = submit(arm, made.id).results[0].operation.operation_id
    arm.delete("vm-1")
    arm.clock.sleep(601)
    assert state(arm, operation) == "Failed"


def test_only_a_time_to_begin_at_is_taken(arm: Arm) -> None:
    made = arm.create("vm-1")
    wrong = lambda: submit(arm, made.id, kind="CompleteBy")  # noqa: E731
    assert refused(wrong) == (400, "InvalidParameter")
    assert refused(lambda: submit(arm, made.id, seconds=-3600)) == (400, "InvalidDeadline")
