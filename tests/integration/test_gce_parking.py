"""VMs of Compute Engine that are parked and woken."""

from __future__ import annotations

from typing import Any

import pytest
from vmrunner_localclouds.gce import (
    FORBIDDEN,
    INTERNAL,
    LOST_ANSWER,
    QUOTA,
    QUOTA_LATER,
    STOCKOUT,
    THROTTLED,
    BrokenOperation,
)

from tests.support.gce import Google, look, make_order, swept
from tests.support.gce import gce as gce  # the fixture
from vmrunner.errors import (
    BadOrder,
    CredentialsRefused,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Uncertain,
)
from vmrunner.model import Power, Ref
from vmrunner.providers import Parks, registry
from vmrunner.providers.gce.provider import GceProvider

BROKEN = BrokenOperation("INTERNAL_ERROR", "It went wrong.", 500)


def born(gce: Google) -> tuple[GceProvider, Any, Ref]:
    provider = gce.provider()
    order = make_order(provider)
    return provider, order, provider.create(order)


def test_a_driver_that_parks_says_so(gce: Google) -> None:
    driver = registry.find("gce")
    assert driver is not None
    assert driver.parks
    assert isinstance(gce.provider(), Parks)


def test_one_is_parked_and_goes_on_elsewhere(gce: Google) -> None:
    gce.cloud.suspend_seconds, gce.cloud.boot_seconds = 30, 10
    provider, order, ref = born(gce)
    gce.clock.advance(10)
    before = look(provider, order, ref)
    assert before is not None
    assert before.address is not None
    provider.park(ref)
    assert gce.machine.state == "SUSPENDING"  # accepted, and not waited for
    for wait, power in ((0, Power.STOPPING), (30, Power.STOPPED)):
        gce.clock.advance(wait)
        seen = look(provider, order, ref)
        assert seen is not None
        assert (seen.power, seen.address, seen.self_ended) == (power, None, False)
    (vm, _) = sorted(swept(provider), key=lambda found: found.ref.kind.value, reverse=True)
    assert vm.alive
    provider.wake(ref)
    after = look(provider, order, ref)
    assert after is not None
    assert after.power is Power.RUNNING
    assert after.address not in (None, before.address)
    assert gce.cloud.count("zoneOperations.list") == 0  # by its state alone it is known


def test_both_may_be_said_again(gce: Google) -> None:
    gce.cloud.suspend_seconds = 30
    provider, _, ref = born(gce)
    provider.park(ref)
    provider.park(ref)
    gce.clock.advance(30)
    provider.park(ref)
    assert gce.machine.state == "SUSPENDED"
    gce.cloud.boot_seconds = 10
    provider.wake(ref)
    provider.wake(ref)
    assert gce.machine.history.count("RUNNING") == 2
    assert (gce.cloud.count("instances.suspend"), gce.cloud.count("instances.resume")) == (1, 1)


@pytest.mark.parametrize("state", ["PROVISIONING", "STAGING"])
def test_one_that_wakes_is_not_woken_again(gce: Google, state: str) -> None:
    provider, _, ref = born(gce)
    provider.park(ref)
    gce.machine.shown["status"] = state
    provider.wake(ref)
    assert gce.cloud.count("instances.resume") == 0


def test_a_late_twin_of_a_parking_stops_no_build(gce: Google) -> None:
    """Its answer was lost, it was said again, and the second came when the VM had been woken."""
    provider, _, ref = born(gce)
    gce.cloud.faults.fail("instances.suspend", LOST_ANSWER)
    with pytest.raises(Uncertain):
        provider.park(ref)
    (twin,) = [request for request in gce.cloud.requests if request.action == "instances.suspend"]
    provider.wake(ref)
    gce.instances.suspend_unary(
        request={
            "project": gce.project,
            "zone": gce.zone,
            "instance": ref.id,
            "request_id": twin.query["requestId"],
        },
        retry=None,
    )
    assert gce.machine.state == "RUNNING"


def test_one_that_is_still_being_suspended_is_woken_later(gce: Google) -> None:
    gce.cloud.suspend_seconds = 30
    provider, _, ref = born(gce)
    provider.park(ref)
    with pytest.raises(Uncertain, match="SUSPENDING"):
        provider.wake(ref)
    gce.clock.advance(30)
    provider.wake(ref)
    assert gce.machine.state == "RUNNING"


@pytest.mark.parametrize(
    ("trouble", "error"),
    [
        (STOCKOUT, NoCapacity),
        (QUOTA, QuotaExceeded),
        (QUOTA_LATER, QuotaExceeded),
        (BROKEN, BadOrder),  # the same request again would come to the same end
        (THROTTLED, Throttled),
        (FORBIDDEN, CredentialsRefused),
        (INTERNAL, Uncertain),
    ],
    ids=lambda param: getattr(
        param, "code", param.__name__ if isinstance(param, type) else str(param)
    ),
)
def test_a_wake_that_fails_says_what_it_means(
    gce: Google, trouble: Any, error: type[ProviderError]
) -> None:
    gce.cloud.operation_seconds = 3
    provider, _, ref = born(gce)
    provider.park(ref)
    gce.cloud.faults.fail("instances.resume", trouble)
    with pytest.raises(error):
        provider.wake(ref)
    assert gce.machine.state == "SUSPENDED"


def test_an_operation_that_cannot_be_read_may_have_woken_it(gce: Google) -> None:
    provider, order, ref = born(gce)
    provider.park(ref)
    gce.cloud.operation_seconds = gce.cloud.boot_seconds = 3
    gce.cloud.faults.fail("zoneOperations.wait", INTERNAL)
    with pytest.raises(Uncertain):
        provider.wake(ref)
    gce.clock.advance(3)
    seen = look(provider, order, ref)
    assert seen is not None
    assert seen.power is Power.RUNNING


def test_a_parking_that_came_to_nothing_is_told_again(gce: Google) -> None:
    gce.cloud.operation_seconds = 3
    provider, _, ref = born(gce)
    gce.cloud.faults.fail("instances.suspend", BROKEN)
    provider.park(ref)  # accepted
    gce.clock.advance(3)
    gce.cloud.faults.fail("instances.suspend", BROKEN, BROKEN)  # the first is told as it was
    provider.park(ref)  # once more: what failed may do better
    gce.clock.advance(3)
    for _ in range(2):
        with pytest.raises(BadOrder, match="It went wrong"):
            provider.park(ref)


def test_a_suspension_that_failed_once_is_tried_again(gce: Google) -> None:
    gce.cloud.operation_seconds = 3
    provider, _, ref = born(gce)
    gce.cloud.faults.fail("instances.suspend", BROKEN)
    provider.park(ref)
    gce.clock.advance(3)
    provider.park(ref)
    assert gce.machine.state == "SUSPENDED"


def test_a_guest_that_does_not_obey_is_told_so(gce: Google) -> None:
    gce.cloud.deaf_guests, gce.cloud.suspend_seconds = True, 180
    provider, order, ref = born(gce)
    for _ in range(2):
        provider.park(ref)
        gce.clock.advance(180)
        seen = look(provider, order, ref)
        assert seen is not None
        assert seen.power is Power.RUNNING
    with pytest.raises(BadOrder, match="did not suspend") as caught:
        provider.park(ref)
    assert "vmrunner image build" in caught.value.hint


@pytest.mark.parametrize("verb", ["park", "wake"])
def test_what_is_off_or_gone_is_neither_parked_nor_woken(gce: Google, verb: str) -> None:
    provider, _, ref = born(gce)
    gce.machine.power_off()
    if verb == "park":
        provider.park(ref)  # accepted: its operation tells, and that is not waited for
    with pytest.raises(NoCapacity, match="UNSUPPORTED_OPERATION"):
        getattr(provider, verb)(ref)
    gce.machine.vanish()
    with pytest.raises(BadOrder):
        getattr(provider, verb)(ref)


@pytest.mark.parametrize("verb", ["park", "wake"])
def test_in_another_project_nothing_is_parked_or_woken(gce: Google, verb: str) -> None:
    provider, _, ref = born(gce)
    before = len(gce.cloud.requests)
    for changed in (
        ref._replace(scope=ref.scope._replace(account="another")),
        ref._replace(scope=ref.scope._replace(place="us-central1-a")),
    ):
        with pytest.raises(BadOrder, match="no scope of google"):
            getattr(provider, verb)(changed)
    assert len(gce.cloud.requests) == before


@pytest.mark.parametrize("how", ["power_off", "break_down"])
def test_why_a_woken_vm_stops_is_not_its_parking(gce: Google, how: str) -> None:
    provider, order, ref = born(gce)
    provider.park(ref)
    look(provider, order, ref)
    gce.clock.advance(1)
    provider.wake(ref)
    gce.clock.advance(1)
    getattr(gce.machine, how)()
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.self_ended) == (Power.STOPPED, how == "power_off")
