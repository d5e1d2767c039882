"""Why a VM of Compute Engine stopped: by its guest, or by the cloud and its operators."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from vmrunner_localclouds.gce import INTERNAL, BrokenOperation, GceMachine

from tests.support.gce import Google, google, look, make_order
from vmrunner.errors import ProviderError
from vmrunner.model import Market, Power, Spec

STOPS: dict[str, tuple[Callable[[GceMachine], None], str]] = {
    "guest": (GceMachine.power_off, "compute.instances.guestTerminate"),
    "host error": (GceMachine.break_down, "compute.instances.hostError"),
    "maintenance": (GceMachine.maintain, "compute.instances.terminateOnHostMaintenance"),
}


@pytest.fixture
def gce() -> Iterator[Google]:
    with google() as made:
        made.cloud.immovable.add("n2-standard-2")
        yield made


@pytest.mark.parametrize("how", STOPS)
def test_only_the_guests_own_end_is_the_guests_doing(gce: Google, how: str) -> None:
    provider = gce.provider(machine_types=("n2-standard-2",))
    order = make_order(provider)
    ref = provider.create(order)
    stop, operation = STOPS[how]
    stop(gce.machine)
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.self_ended, seen.detail) == (Power.STOPPED, how == "guest", operation)
    gce.clock.advance(1)
    provider.delete([ref])
    gone = look(provider, order, ref)
    assert gone is not None
    assert (gone.power, gone.self_ended) == (Power.DEAD, how == "guest")


@pytest.mark.parametrize("kind", ["stop", "suspend"])
def test_an_operator_who_stops_a_vm_is_not_its_guest(gce: Google, kind: str) -> None:
    gce.cloud.stop_seconds = 30
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    where = {"project": gce.project, "zone": gce.zone, "instance": ref.id}
    if kind == "stop":
        gce.instances.stop_unary(**where, retry=None)
    else:
        gce.machine.suspend()
    for wait in (0, 60):  # while it stops, and after
        gce.clock.advance(wait)
        seen = look(provider, order, ref)
        assert seen is not None
        assert seen.power in (Power.STOPPING, Power.STOPPED)
        assert not seen.self_ended


def test_an_earlier_failed_delete_does_not_explain_a_stop(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    gce.cloud.faults.fail(
        "instances.delete", BrokenOperation("INTERNAL_ERROR", "It is stuck.", 500)
    )
    provider.delete([ref])
    gce.clock.advance(1)
    gce.machine.power_off()
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.self_ended) == (Power.STOPPED, True)


def test_why_it_stops_is_asked_once_and_said_each_time(gce: Google) -> None:
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    gce.machine.power_off()
    gce.cloud.faults.fail("zoneOperations.list", INTERNAL)
    with pytest.raises(ProviderError):
        look(provider, order, ref)  # whose doing it was cannot be told yet
    for _ in range(3):
        seen = look(provider, order, ref)
        assert seen is not None
        assert seen.self_ended
    assert gce.cloud.count("zoneOperations.list") == 2


def test_a_stop_is_seen_without_right_to_read_operations(gce: Google) -> None:
    """Or nobody would end its build before the deadline."""
    provider = gce.provider()
    order = make_order(provider)
    ref = provider.create(order)
    gce.machine.power_off()
    gce.cloud.faults.deny("zoneOperations.list")
    seen = look(provider, order, ref)
    assert seen is not None
    assert (seen.power, seen.self_ended) == (Power.STOPPED, False)


def test_host_maintenance_moves_vms_whose_type_allows_it(gce: Google) -> None:
    gce.cloud.quotas["europe-west1"]["PREEMPTIBLE_CPUS"] = 100
    provider = gce.provider(machine_types=("e2-standard-2", "n2-standard-2"))
    e2, _, n2, _ = provider.offers(Spec())
    spot = provider.offers(Spec(spot=True))[0]
    assert spot.market is Market.SPOT
    for offer, policy in ((e2, "MIGRATE"), (n2, "TERMINATE"), (spot, "TERMINATE")):
        order = make_order(provider, offer=offer)
        ref = provider.create(order)
        inserts = [r.body for r in gce.cloud.requests if r.action == "instances.insert"]
        body = json.loads(inserts[-1])
        assert body["scheduling"]["onHostMaintenance"] == policy
        assert "terminationTime" in body["scheduling"]
        assert provider.create(order) == ref  # the identical order, in whichever way
    assert len(gce.cloud.alive) == 3
    mover = gce.cloud.machines[0]
    mover.maintain()
    assert mover.state == "RUNNING"
