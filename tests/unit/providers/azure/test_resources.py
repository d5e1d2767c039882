"""What Azure shows of a VM and its parts, in the core's words."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.model import Kind, Power, Ref, Scope
from vmrunner.providers.azure.resources import GroupReader, power, seen

SCOPE = Scope("azure", "s", "builds")
NAME = "vm-01m8bpp14crr8dkdy9gq3zh714"
MINE = "00000000-0000-4000-8000-000000000001"
PATH = "/subscriptions/s/resourceGroups/BUILDS/providers/Microsoft."


def vm(state: str, *codes: str, message: str = "") -> dict[str, Any]:
    statuses = [{"code": code} for code in codes]
    if message:
        statuses[0] |= {"level": "Error", "message": message}
    properties = {"provisioningState": state, "instanceView": {"statuses": statuses}}
    return {"id": f"{PATH}Compute/virtualMachines/{NAME}", "name": NAME, "properties": properties}


@pytest.mark.parametrize(
    ("state", "codes", "wanted"),
    [
        ("Creating", (), Power.PENDING),
        ("Creating", ("PowerState/starting",), Power.PENDING),
        ("Creating", ("PowerState/running",), Power.RUNNING),
        ("Succeeded", ("ProvisioningState/succeeded", "PowerState/running"), Power.RUNNING),
        ("Succeeded", ("PowerState/stopped",), Power.STOPPED),
        ("Updating", ("PowerState/deallocating",), Power.STOPPING),
        ("Succeeded", ("PowerState/deallocated",), Power.STOPPED),
        ("Deleting", ("PowerState/running",), Power.STOPPING),
        ("Failed", ("ProvisioningState/failed/OSProvisioningTimedOut",), Power.RUNNING),
        ("Failed", ("PowerState/running",), Power.RUNNING),
        ("Failed", ("ProvisioningState/failed/AllocationFailed",), Power.STOPPED),
        ("Succeeded", ("PowerState/dreaming",), Power.RUNNING),
        ("Succeeded", (), Power.RUNNING),
    ],
)
def test_no_state_is_death(state: str, codes: tuple[str, ...], wanted: Power) -> None:
    found = power(vm(state, *codes))
    assert found is wanted
    assert found is not Power.DEAD


def test_a_failure_is_told_in_its_own_words() -> None:
    item = vm("Failed", "ProvisioningState/failed/AllocationFailed", message="no room")
    shown = seen(SCOPE, item, "192.0.2.1")
    assert (shown.detail, shown.address) == ("no room", None)
    assert seen(SCOPE, vm("Succeeded", "PowerState/running"), "192.0.2.1").address is not None


def disk(**more: Any) -> dict[str, Any]:
    return {"id": f"{PATH}Compute/disks/{NAME}", "name": NAME, "properties": {}, **more}


def test_a_part_tells_its_vm() -> None:
    reader = GroupReader(SCOPE, MINE)
    holder = Ref(SCOPE, Kind.INSTANCE, NAME)
    shouted = f"{PATH}Compute/virtualMachines/{NAME.upper()}"
    assert reader.disk(disk(managedBy=shouted)).parent == holder
    nic = {"name": f"{NAME}-1", "properties": {"virtualMachine": {"id": shouted}}}
    assert reader.interface(nic).parent == holder
    config = {"id": f"{PATH}Network/networkInterfaces/{NAME}-1/ipConfigurations/ip"}
    address = {"name": f"{NAME}-2", "properties": {"ipConfiguration": config}}
    assert reader.address(address).parent == holder
    unread = GroupReader(SCOPE, MINE).address(address).parent
    assert unread == Ref(SCOPE, Kind.INTERFACE, f"{NAME}-1")


def test_a_leftover_without_tags_is_ours_by_name() -> None:
    reader = GroupReader(SCOPE, MINE)
    found = reader.disk(disk())
    assert (found.tag("installation"), found.instance) == (MINE, NAME)
    assert found.expires_at is None


@pytest.mark.parametrize(
    "item",
    [
        disk(managedBy=f"{PATH}Compute/virtualMachines/x"),
        disk(tags={"vmrunner:installation": "another's"}),
        disk(tags={"VMRUNNER:Role": "guard"}),
        disk(name="data"),
        disk(name=f"my-{NAME}"),
        disk(name=f"{NAME}-copy"),
    ],
)
def test_nothing_else_is_ours_by_name(item: dict[str, Any]) -> None:
    assert GroupReader(SCOPE, MINE).disk(item).tag("installation") != MINE


def test_a_snapshot_is_ours_by_its_tags_alone() -> None:
    """No VM has one: somebody made it, to look at what a build left."""
    reader = GroupReader(SCOPE, MINE)
    kept = {"id": f"{PATH}Compute/snapshots/{NAME}-kept", "name": f"{NAME}-kept"}
    assert reader.snapshot(kept).tag("installation") is None
    assert reader.snapshot({**kept, "tags": {"vmrunner:installation": MINE}}).tag("installation")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [(f"{NAME}-1", 1_795_689_219), ("vm-uuuuuuuuuuuuuuuuuuuuuuuuuu", None), ("nic", None)],
)
def test_what_tells_no_birth_has_its_names(name: str, wanted: int | None) -> None:
    created_at = GroupReader(SCOPE, MINE).interface({"name": name, "properties": {}}).created_at
    assert (None if created_at is None else int(created_at)) == wanted


def test_names_of_tags_may_come_in_another_case() -> None:
    tags = {"vmrunner:Installation": MINE, "VMRUNNER:expires-at": "1800000000", "Name": "x"}
    found = GroupReader(SCOPE, MINE).instance({**vm("Succeeded"), "tags": tags})
    assert (found.tag("installation"), found.expires_at) == (MINE, 1_800_000_000.0)
    assert found.tags["Name"] == "x"
