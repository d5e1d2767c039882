"""What only Azure does, in whole lives over HTTP: births that fail after they were accepted and
stay, or leave their parts; a guest that is off and bills; a deallocation at a time of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vmrunner_localclouds.azure import COMPUTE_THROTTLED, HALF_MADE, UNHEARD_GUEST, FailedLater

from tests.faults.azure_side import SIZE
from tests.faults.crash_points import finish_elsewhere, nothing_of_ours
from tests.faults.scenarios import SCENARIOS, begin
from tests.faults.world import TTL, World, once
from vmrunner.model import BuildState, InstanceState, Kind, Market, Power, Reason, Result
from vmrunner.providers.azure.deadline_schedules import AFTER
from vmrunner.providers.fake import Call

Make = Callable[..., World]
PUT = "virtualMachines.put"
RUN = next(scenario for scenario in SCENARIOS if scenario.name == "run")


@pytest.fixture
def world(make_azure: Make) -> World:
    return make_azure()


def parts(world: World) -> list[Any]:
    """What belongs to VMs of ours."""
    return [m for m in world.standing() if m.born_of_us and m.ref.kind is not Kind.INSTANCE]


def test_with_full_zones_each_attempt_ends_before_the_next(world: World) -> None:
    """A lack of room is told only after the VM was accepted, and leaves it there."""
    local, zones = world.cloud.local, world.cloud.site.zones
    world.cloud.options = {"zones": zones}
    local.dry |= {(SIZE, zone, "spot") for zone in zones}
    local.dry |= {(SIZE, zone, "on-demand") for zone in zones[:2]}
    alive: list[int] = []

    def judge(call: Call) -> Any:
        if call.method == "create":
            alive.append(sum(machine.alive for machine in world.ours()))

    world.judge = judge
    build = world.submit(spot=True)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert alive == [0] * 6
    rows = world.truth.instances.list(build=build.id)
    (row,) = [row for row in rows if row.ref is not None]
    assert row.offer.place.endswith(f"-{zones[2]}")
    assert row.offer.market is Market.ON_DEMAND
    nothing_of_ours(world)


def test_parts_without_their_vm_are_swept(world: World) -> None:
    """Its interface is reserved for three minutes, and cannot be deleted before."""
    world.cloud.local.reserved_seconds = 180.0
    once(world, PUT, HALF_MADE)
    build = world.submit(queue_timeout=600)
    world.node()
    world.run(60)
    assert {part.ref.kind for part in parts(world)} >= {Kind.INTERFACE, Kind.ADDRESS}
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    nothing_of_ours(world)


def test_a_vm_that_azure_calls_failed_and_runs_is_ended(world: World) -> None:
    once(world, PUT, UNHEARD_GUEST)
    world.submit(queue_timeout=600)
    world.node()
    world.settle()
    nothing_of_ours(world)


def test_compute_that_throttles_is_no_quota(world: World) -> None:
    """The code is the same: `OperationNotAllowed`."""
    once(world, PUT, COMPUTE_THROTTLED, COMPUTE_THROTTLED)
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    nothing_of_ours(world)


def test_a_quota_ends_the_build_that_does_not_wait(world: World) -> None:
    local = world.cloud.local
    theirs = 2 * sum(m.ref.kind is Kind.INSTANCE for m in world.standing())
    local.quotas["westeurope"]["standardDSv5Family"] = theirs
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).reason is Reason.QUOTA
    nothing_of_ours(world)


def test_a_delete_that_came_to_nothing_is_sent_again(world: World) -> None:
    """Accepted, and its operation ends in an error."""
    broken = FailedLater("InternalExecutionError", "An internal execution error occurred.")
    once(world, "virtualMachines.delete", broken, broken)
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    nothing_of_ours(world)


def test_a_guest_that_is_off_is_ended_with_its_disk(world: World) -> None:
    world.cloud.disks_stay = True
    world.submit()
    world.node()
    world.run(60, until=lambda: bool(world.started))
    (machine,) = world.ours()
    world.cloud.power_off(machine)
    assert machine.local.billed
    world.settle()
    nothing_of_ours(world)


def test_the_reaper_ends_a_stopped_guest_of_a_dead_vmrunner(world: World) -> None:
    """It bills as if it ran: what its guest did ended nothing."""
    build, node = begin(world, RUN)
    running = lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING  # noqa: E731
    world.run(TTL, until=running)
    node.kill()
    (machine,) = [
        thing for thing in world.ours() if thing.alive and thing.ref.kind is Kind.INSTANCE
    ]
    machine.local.power_off()
    assert machine.local.billed
    finish_elsewhere(world, RUN, build, strict=False)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.VM_LOST)


def test_azures_own_time_stops_what_nobody_minds(world: World) -> None:
    """It deallocates, and deletes nothing: whoever reaps next ends the rest."""
    world.cloud.local.deadline_late = 0.0
    world.build_seconds = 1e9
    build = world.submit()
    first = world.node()
    world.run(60, until=lambda: bool(world.started))
    world.run(5)
    first.kill()
    (machine,) = world.ours()
    world.clock.advance(TTL + AFTER + 5.0)
    world.cloud.settle()
    assert (machine.power, machine.local.state) == (Power.STOPPED, "deallocated")
    assert len(parts(world)) == 3
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).finished
    nothing_of_ours(world)


def test_an_evicted_vm_is_not_the_builds_failure(world: World) -> None:
    build = world.submit(spot=True, retry_on_loss=True)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    (machine,) = world.ours()
    assert machine.local.spot
    world.cloud.preempt(machine)
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, len(list(world.ours()))) == (Result.SUCCESS, 2)
    nothing_of_ours(world)


def test_rows_of_a_deleted_group_are_closed(world: World) -> None:
    """Whoever may list its VMs could do so by rights in it, which are gone too."""
    world.build_seconds = 1e9
    build = world.submit()
    world.node()
    world.run(60, until=lambda: bool(world.started))
    local = world.cloud.local
    local.remove_group(world.cloud.site.group)
    local.faults.deny(*world.cloud.listings, "virtualMachines.get", "virtualMachines.delete")

    def gone() -> bool:
        return {row.state for row in world.truth.instances.list()} == {InstanceState.GONE}

    world.run(2400, until=gone)
    assert gone()
    assert world.truth.builds.get(build.id).finished
