"""The vendor's limits at the local Azure: what there is one of, is met by who ignores it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from azure.core.exceptions import HttpResponseError
from vmrunner_localclouds.azure import limits, price
from vmrunner_localclouds.azure.resource_ids import NETWORK

from tests.support.arm import Arm, refused
from tests.support.arm import arm as arm  # the fixture

THROTTLED: Final = (429, "TooManyRequests")


def times(count: int, call: Callable[[], object]) -> None:
    for _ in range(count):
        call()


def get_of_a_vm(arm: Arm) -> None:
    arm.create("vm-1")
    arm.create("vm-2")
    arm.clock.advance(3600)
    times(36, lambda: arm.vms.get(arm.group, "vm-1", expand="instanceView"))
    assert refused(lambda: arm.vms.get(arm.group, "vm-1")) == THROTTLED
    assert refused(lambda: arm.vms.instance_view(arm.group, "vm-1")) == THROTTLED
    arm.vms.get(arm.group, "vm-2")
    arm.clock.advance(5)
    arm.vms.get(arm.group, "vm-1")
    assert refused(lambda: arm.vms.get(arm.group, "vm-1")) == THROTTLED


def list_of_all_vms(arm: Arm) -> None:
    times(900, lambda: list(arm.vms.list(arm.group)))
    with pytest.raises(HttpResponseError, match="for this subscription"):
        list(arm.vms.list_all())


def get_of_an_operation(arm: Arm) -> None:
    arm.create("vm-1")
    arm.cloud.obeys = False  # no time passes while somebody polls
    arm.cloud.delete_seconds = 1e6
    answers: list[Any] = []
    arm.vms.begin_delete(arm.group, "vm-1", polling=False, raw_response_hook=answers.append)
    url = answers[0].http_response.headers["Azure-AsyncOperation"]
    times(45, lambda: fetch(url))
    assert fetch(url) == 429


def put_of_a_vm(arm: Arm) -> None:
    arm.create("vm-1")
    arm.clock.advance(3600)
    times(12, lambda: arm.vms.begin_create_or_update(arm.group, "vm-1", arm.body("vm-1")))
    assert refused(lambda: arm.begin("vm-1")) == THROTTLED


def start_of_a_vm(arm: Arm) -> None:
    arm.create("vm-1")
    times(12, lambda: arm.vms.begin_start(arm.group, "vm-1"))
    assert refused(lambda: arm.vms.begin_start(arm.group, "vm-1")) == THROTTLED


def delete_of_a_vm(arm: Arm) -> None:
    times(12, lambda: arm.vms.begin_delete(arm.group, "vm-1"))
    assert refused(lambda: arm.vms.begin_deallocate(arm.group, "vm-1")) == THROTTLED


def fetch(url: str) -> int:
    try:
        with urlopen(Request(url)) as answer:
            return int(answer.status)
    except OSError as error:
        return int(getattr(error, "code", 0))


def retries_of_a_schedule(arm: Arm) -> None:
    arm.create("vm-1")
    ids = [arm.vms.get(arm.group, "vm-1").id]
    when = "2099-01-01T00:00:00Z"

    def submit(count: int, window: int) -> Any:
        retry = {"retryCount": count, "retryWindowInMinutes": window}
        return arm.schedule.scheduled_actions.virtual_machines_submit_deallocate(
            arm.site.location,
            {
                "schedule": {"deadline": when, "timezone": "UTC", "deadlineType": "InitiateAt"},
                "executionParameters": {"retryPolicy": retry},
                "resources": {"ids": ids},
                "correlationid": "00000000-0000-4000-8000-000000000000",
            },
        )

    submit(7, 120)
    for count, window in ((8, 120), (7, 121), (7, 4)):
        assert refused(lambda c=count, w=window: submit(c, w)) == (400, "BadRequest")
    arm.cloud.rejected.clear()


def order(arm: Arm, size: str, image: str, **storage: Any) -> tuple[int, str]:
    """What becomes of a VM of a size from an image: (0, "") for one that is made."""
    body = arm.body("vm-1", hardwareProfile={"vmSize": size})
    disk = {**body["properties"]["storageProfile"]["osDisk"], **storage.pop("disk", {})}
    profile = {"imageReference": {"id": image}, "osDisk": disk, **storage}
    body["properties"]["storageProfile"] = profile
    try:
        arm.create("vm-1", body)
    except HttpResponseError as error:
        arm.cloud.rejected.clear()
        return error.status_code or 0, str(getattr(error.error, "code", ""))
    arm.delete("vm-1")
    return 0, ""


def starts_of_a_managed_image(arm: Arm) -> None:
    arm.cloud.boot_seconds = 60.0
    for number in range(20):
        arm.begin(f"vm-{number}", polling=False)
    with pytest.raises(HttpResponseError, match="OSProvisioningTimedOut"):
        arm.begin("vm-20").result()
    storage = arm.body("vm-21")["properties"]["storageProfile"]
    storage["imageReference"] = {"id": arm.site.version}
    arm.create("vm-21", arm.body("vm-21", storageProfile=storage))


def starts_of_a_version(arm: Arm) -> None:
    arm.cloud.boot_seconds = 60.0
    arm.cloud.quotas["westeurope"] = {}

    def begin(number: int) -> Any:
        storage = arm.body(f"vm-{number}")["properties"]["storageProfile"]
        storage["imageReference"] = {"id": arm.site.version}
        body = arm.body(f"vm-{number}", storageProfile=storage)
        return arm.vms.begin_create_or_update(arm.group, f"vm-{number}", body, polling=number == 50)

    for number in range(50):
        begin(number)
    with pytest.raises(HttpResponseError, match="OSProvisioningTimedOut"):
        begin(50).result()


def controllers_of_a_size(arm: Arm) -> None:
    managed, version = arm.site.image, arm.site.version
    no = (400, "InvalidParameter")
    assert order(arm, "Standard_D2s_v6", managed) == no
    assert order(arm, "Standard_D2s_v6", version) == (0, "")
    assert order(arm, "Standard_D2s_v6", version, diskControllerType="NVMe") == (0, "")
    assert order(arm, "Standard_D2s_v6", version, diskControllerType="SCSI") == no
    assert order(arm, "Standard_D2s_v5", version, diskControllerType="NVMe") == no
    assert order(arm, "Standard_E2bs_v5", managed) == (0, "")


def generations_of_a_size(arm: Arm) -> None:
    assert order(arm, "Standard_A2_v2", arm.site.image) == (400, "BadRequest")
    first = arm.cloud.image(arm.group, "first")
    first["properties"]["hyperVGeneration"] = "V1"
    assert order(arm, "Standard_A2_v2", first["id"]) == (0, "")


def placements_of_a_size(arm: Arm) -> None:
    def local(place: str) -> dict[str, Any]:
        return {
            "caching": "ReadOnly",
            "diffDiskSettings": {"option": "Local", "placement": place},
            "managedDisk": {"storageAccountType": "Standard_LRS"},
        }

    size, version = "Standard_D2ds_v6", arm.site.version
    assert order(arm, size, version, disk=local("NvmeDisk")) == (0, "")
    assert order(arm, size, version, disk=local("ResourceDisk")) == (409, "NotSupported")


def size_of_a_subnet(arm: Arm) -> None:
    network = arm.cloud.shelf(NETWORK)[arm.site.network.lower()]
    network["properties"]["subnets"][0]["properties"]["addressPrefix"] = "10.8.0.0/29"
    for number in range(3):
        arm.create(f"vm-{number}")
    assert refused(lambda: arm.create("vm-3")) == (400, "SubnetIsFull")
    arm.cloud.rejected.clear()


def quota_of_addresses(arm: Arm) -> None:
    arm.create("vm-1")
    used = {
        usage.name.value: usage.current_value for usage in arm.network.usages.list("westeurope")
    }
    assert used["PublicIPAddresses"] == 1
    assert "cores" not in used  # and Microsoft.Compute tells none of these


def case_of_a_size_in_a_price(arm: Arm) -> None:
    arm.cloud.prices = [price("westeurope", "Standard_D2s_v5", 0.1)]

    def price_count(name: str) -> int:
        query = urlencode({"$filter": f"armSkuName eq '{name}'"})
        with urlopen(f"{arm.cloud.url}/api/retail/prices?{query}") as answer:
            return len(json.load(answer)["Items"])

    assert (price_count("Standard_D2s_v5"), price_count("standard_d2s_v5")) == (1, 0)


CASES: Final[dict[str, Callable[[Arm], None]]] = {
    "vm-get": get_of_a_vm,
    "vm-list": list_of_all_vms,
    "operation-get": get_of_an_operation,
    "vm-put": put_of_a_vm,
    "vm-update": start_of_a_vm,
    "vm-delete": delete_of_a_vm,
    "managed-image": starts_of_a_managed_image,
    "gallery-version": starts_of_a_version,
    "controllers": controllers_of_a_size,
    "generations": generations_of_a_size,
    "placements": placements_of_a_size,
    "subnet-size": size_of_a_subnet,
    "addresses": quota_of_addresses,
    "price-case": case_of_a_size_in_a_price,
    "retries": retries_of_a_schedule,
}


@pytest.mark.parametrize("name", CASES)
def test_who_ignores_a_limit_is_refused(arm: Arm, name: str) -> None:
    CASES[name](arm)


def test_each_limit_has_its_page_and_its_case() -> None:
    assert {limit.name for limit in limits.LIMITS} == CASES.keys()
    assert all(limit.page.startswith("https://") and limit.read for limit in limits.LIMITS)
