"""The guard of an Azure resource group at the local endpoint: what becomes of real answers' VMs and
their parts, and that a driver's VM ends by it alone."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import pytest
from vmrunner_localclouds.azure import (
    CONFLICT,
    FORBIDDEN,
    HALF_MADE,
    INTERNAL,
    LOST_REQUEST,
    THROTTLED,
    UNAVAILABLE,
    AzureMachine,
    RequestFate,
)

from deploy.azure.guard import function_app as guard
from tests.support.arm import Arm
from tests.support.arm import arm as arm  # the fixture

INSTALLATION: Final = "00000000-0000-4000-8000-000000000001"
GRACE: Final = guard.GRACE
BEARER: Final = {"Authorization": "Bearer test"}


def sweep(arm: Arm, **more: Any) -> dict[str, Any]:
    settings = guard.Settings(
        installation=INSTALLATION,
        subscription=arm.cloud.subscription,
        group=arm.group,
        **{"max_ttl": 14_400.0, **more},
    )
    send = partial(guard.request, headers=BEARER)
    report = guard.guard(
        settings, send, arm.clock(), base=arm.cloud.url, clock=arm.clock, sleep=arm.clock.sleep
    )
    arm.cloud.settle()
    assert arm.cloud.rejected == []
    return report


def tagged(arm: Arm, late: float = GRACE + 1, **more: str) -> dict[str, str]:
    """The tags of something that is so many seconds past its deadline."""
    values = {"installation": INSTALLATION, "role": "build", "instance": "vm-1", **more}
    values.setdefault("expires_at", str(int(arm.clock() - late)))
    return {f"vmrunner:{key.replace('_', '-')}": value for key, value in values.items()}


def launch(arm: Arm, name: str, tags: dict[str, str]) -> AzureMachine:
    """A VM whose every part has its tags."""
    body = arm.body(name)
    body["tags"] = tags
    (nic,) = body["properties"]["networkProfile"]["networkInterfaceConfigurations"]
    nic["name"], nic["tags"] = name, tags
    (config,) = nic["properties"]["ipConfigurations"]
    address = config["properties"]["publicIPAddressConfiguration"]
    address["name"], address["tags"] = name, tags
    arm.create(name, body)
    return arm.cloud.machines[-1]


def names(report: dict[str, Any], what: str = "ended") -> set[str]:
    return {line["id"].rpartition("/")[2] for line in report[what]}


def test_a_vm_goes_with_all_that_hangs_on_it(arm: Arm) -> None:
    launch(arm, "vm-1", tagged(arm))
    launch(arm, "vm-2", tagged(arm, GRACE))
    report = sweep(arm)
    assert (names(report), report["failures"]) == ({"vm-1"}, [])
    assert [machine.name for machine in arm.cloud.alive] == ["vm-2"]
    assert len(arm.left()) == 3  # the other's


@pytest.mark.parametrize("state", ["stopped", "deallocated"])
def test_a_vm_that_is_off_ends_with_its_disk(arm: Arm, state: str) -> None:
    machine = launch(arm, "vm-1", tagged(arm, role="pool"))
    if state == "stopped":
        machine.power_off()
    else:
        arm.vms.begin_deallocate(arm.group, "vm-1").result()
    assert arm.power("vm-1") == state
    assert names(sweep(arm)) == {"vm-1"}
    assert (arm.cloud.alive, arm.left()) == ([], [])


def test_parts_that_a_vm_left_behind_end_in_two_passes(arm: Arm) -> None:
    """An address is held by its interface until that is gone."""
    arm.cloud.faults.fail("virtualMachines.put", HALF_MADE)
    with pytest.raises(Exception, match="InternalExecutionError"):
        launch(arm, "vm-1", tagged(arm))
    assert len(arm.left()) == 3
    for _ in range(2):
        assert sweep(arm)["failures"] == []
    assert arm.left() == []


def test_what_hangs_on_no_vm_ends(arm: Arm) -> None:
    for late, number in ((GRACE + 1, 1), (GRACE, 2)):
        more = {"tags": tagged(arm, late)}
        arm.cloud.disk(arm.group, f"disk-{number}", **more)
        arm.cloud.snapshot(arm.group, f"snapshot-{number}", **more)
        arm.cloud.reserve(arm.group, f"address-{number}", **more)
        arm.cloud.interface(arm.group, f"nic-{number}", arm.site.subnet, **more)
    arm.cloud.disk(arm.group, "somebodys")
    report = sweep(arm)
    assert names(report) == {"disk-1", "snapshot-1", "address-1", "nic-1"}
    assert report["failures"] == []
    assert len(arm.left()) == 5


def test_a_deadline_that_nobody_can_read_leaves_the_age(arm: Arm) -> None:
    launch(arm, "vm-1", tagged(arm, expires_at="soon", max_ttl="600"))
    arm.clock.advance(600 + GRACE)
    assert names(sweep(arm)) == set()
    arm.clock.advance(1)
    assert names(sweep(arm)) == {"vm-1"}
    assert arm.cloud.alive == []


def test_every_page_is_read(arm: Arm) -> None:
    arm.cloud.page_size = 2
    for number in range(5):
        launch(arm, f"vm-{number}", tagged(arm))
    assert len(names(sweep(arm))) == 5
    assert arm.cloud.alive == []


@pytest.mark.parametrize("action", ["virtualMachines", "disks"])
def test_a_denied_kind_is_told_and_the_others_end(arm: Arm, action: str) -> None:
    launch(arm, "vm-1", tagged(arm))
    arm.cloud.disk(arm.group, "disk-1", tags=tagged(arm))
    arm.cloud.snapshot(arm.group, "snapshot-1", tags=tagged(arm))
    arm.cloud.faults.deny(f"{action}.list")
    report = sweep(arm)
    (failure,) = report["failures"]
    assert "403" in failure["error"]
    denied = {"virtualMachines": "vm-1", "disks": "disk-1"}[action]
    assert names(report) == {"vm-1", "disk-1", "snapshot-1"} - {denied}


def test_short_failures_are_tried_again(arm: Arm) -> None:
    launch(arm, "vm-1", tagged(arm))
    arm.cloud.faults.fail("virtualMachines.list", THROTTLED, UNAVAILABLE)
    arm.cloud.faults.fail("virtualMachines.delete", LOST_REQUEST, INTERNAL)
    began = arm.clock()
    report = sweep(arm)
    assert (names(report), report["failures"]) == ({"vm-1"}, [])
    assert arm.clock() - began == arm.cloud.throttle_seconds + 3 * guard.PAUSE
    assert arm.cloud.alive == []


@pytest.mark.parametrize(("fate", "section"), [(FORBIDDEN, "failures"), (CONFLICT, "held")])
def test_one_vm_that_may_not_end_saves_no_other(arm: Arm, fate: RequestFate, section: str) -> None:
    for name in ("poison", "other"):
        launch(arm, name, tagged(arm))
    arm.cloud.faults.on_request = lambda request: (
        fate
        if request.action == "virtualMachines.delete" and request.path.name == "poison"
        else None
    )
    report = sweep(arm)
    assert (names(report), names(report, section)) == ({"other"}, {"poison"})
    assert [machine.name for machine in arm.cloud.alive] == ["poison"]
