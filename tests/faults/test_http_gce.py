"""What only Compute Engine does, in whole lives over HTTP: births that fail after they were
accepted, operations that cannot be read, zones out of reach, VMs that their guest switches off, a
deadline of the cloud's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vmrunner_localclouds.gce import FORBIDDEN, INTERNAL, QUOTA_LATER, RequestFate

from tests.faults.crash_points import nothing_of_ours
from tests.faults.gce_side import TYPE
from tests.faults.scenarios import SCENARIOS, begin
from tests.faults.world import TTL, World, once
from vmrunner.model import BuildState, InstanceState, Kind, Market, Power, Reason, Result
from vmrunner.providers.fake import Call

FLOW = {scenario.name: scenario for scenario in SCENARIOS}
Make = Callable[..., World]


@pytest.fixture
def world(make_gce: Make) -> World:
    return make_gce()


def always(world: World, action: str, trouble: RequestFate) -> None:
    world.judge = lambda call: trouble if call.provider == action else None


def disks(world: World) -> list[Any]:
    return [m for m in world.standing() if m.born_of_us and m.ref.kind is Kind.DISK]


# --- births --------------------------------------------------------------------------------------


@pytest.mark.parametrize("remains", [False, True], ids=["nothing", "stopped"])
def test_with_full_zones_each_attempt_ends_before_the_next(world: World, remains: bool) -> None:
    """Refused only after it was accepted, in a spot pool and in two zones; of each attempt nothing
    is left, or a VM that is off and bills."""
    local, zones = world.cloud.local, world.cloud.google.site.zones
    world.cloud.options = {"zones": zones}
    local.stockout_remains = remains
    local.dry |= {(TYPE, zone, "spot") for zone in zones}
    local.dry |= {(TYPE, zone, "on-demand") for zone in zones[:2]}
    alive: list[int] = []

    def judge(call: Call) -> None:
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
    assert (row.offer.place, row.offer.market) == (zones[2], Market.ON_DEMAND)
    nothing_of_ours(world)


@pytest.mark.parametrize("action", ["instances.get", "instances.delete"])
def test_what_a_failed_birth_left_is_not_passed_over(world: World, action: str) -> None:
    """It stands there, stopped, and cannot be looked at or deleted for a while."""
    local = world.cloud.local
    local.stockout_remains = True
    local.dry.add((TYPE, world.cloud.google.zone, "on-demand"))
    once(world, action, INTERNAL, INTERNAL, INTERNAL)
    build = world.submit(queue_timeout=600)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    nothing_of_ours(world)


@pytest.mark.parametrize("late", [False, True], ids=["refused", "accepted"])
def test_a_quota_holds_builds_back_and_ends_none_that_waits(world: World, late: bool) -> None:
    local, site = world.cloud.local, world.cloud.google.site
    theirs = 2 * sum(m.ref.kind is Kind.INSTANCE for m in world.standing())
    local.quotas[site.region]["CPUS"] = theirs + 2.0  # room for one
    local.quota_in_operation = late
    world.build_seconds = 20.0
    waits = [world.submit(queue_timeout=600)]
    hasty = world.submit()
    waits.append(world.submit(queue_timeout=600))
    world.node()
    world.settle()
    assert [world.truth.builds.get(build.id).result for build in waits] == [Result.SUCCESS] * 2
    assert world.truth.builds.get(hasty.id).reason is Reason.QUOTA
    nothing_of_ours(world)


@pytest.mark.parametrize("forgotten", [False, True], ids=["by-id", "by-name"])
def test_an_order_that_is_sent_again_is_the_same_vm(world: World, forgotten: bool) -> None:
    """By its request's id, or where that is forgotten by its name: alreadyExists."""
    if forgotten:
        world.cloud.local.token_seconds = 0.0
    build = FLOW["take_over_asked"].arrange(world)
    world.cloud.options = dict(world.cloud.retagged)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert len(list(world.ours())) == 1
    nothing_of_ours(world)


@pytest.mark.parametrize("action", ["zoneOperations.wait", "zoneOperations.list"])
@pytest.mark.parametrize("trouble", [FORBIDDEN, INTERNAL], ids=["denied", "5xx"])
def test_operations_that_cannot_be_read_cost_no_build(
    world: World, action: str, trouble: RequestFate
) -> None:
    """A birth's is then asked for by the same order again; a death's is proved by sweeps."""
    always(world, action, trouble)
    builds = [world.submit()]
    world.node()
    world.run(60, until=lambda: world.truth.builds.get(builds[0].id).finished)
    world.run(5)  # its VM is gone, and nobody can say so
    builds.append(world.submit())
    world.settle()
    assert [world.truth.builds.get(build.id).result for build in builds] == [Result.SUCCESS] * 2
    assert len(list(world.ours())) == 2
    nothing_of_ours(world)


# --- deaths --------------------------------------------------------------------------------------


def test_a_delete_that_comes_to_nothing_is_asked_for_again(world: World) -> None:
    """Accepted, and its operation ends in an error."""
    once(world, "instances.delete", QUOTA_LATER, QUOTA_LATER)
    build = world.submit()
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    nothing_of_ours(world)


def test_who_may_not_delete_launches_nothing_more(world: World) -> None:
    """It is told of a VM that exists alone: the first one is there, and known."""
    world.cloud.local.faults.deny("instances.delete")
    first = world.submit()
    world.node()
    world.run(40)
    later = world.submit()
    world.run(20)
    assert world.truth.builds.get(first.id).result is Result.SUCCESS
    assert world.truth.builds.get(later.id).reason is Reason.CREDENTIALS
    (row,) = world.truth.instances.open()
    assert row.state is InstanceState.DELETING
    world.cloud.local.faults.allow("instances.delete")
    world.settle()
    nothing_of_ours(world)


def test_a_guests_poweroff_ends_its_build_its_vm_and_disk(world: World) -> None:
    world.cloud.disks_stay = True
    build = world.submit(retry_on_loss=True)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    for machine in world.ours():
        world.cloud.power_off(machine)
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.FAILURE
    nothing_of_ours(world)


def test_the_reaper_ends_a_stopped_guest_of_a_dead_vmrunner(world: World) -> None:
    """Nothing of the cloud's own ends it: it is off, bills, and has lost its deadline."""
    world.cloud.local.deadline_late = 0.0
    world.cloud.disks_stay = True
    world.build_seconds = 1e9
    world.submit()
    first = world.node(reaps=False)
    world.run(60, until=lambda: bool(world.started))
    first.kill()
    (machine,) = world.ours()
    world.cloud.power_off(machine)
    world.clock.advance(2 * TTL)
    world.cloud.settle()
    assert (machine.power, machine.local.state) == (Power.STOPPED, "TERMINATED")
    world.node(drives=False)
    world.run(60)
    assert machine.power is Power.DEAD
    nothing_of_ours(world)


def test_the_clouds_own_deadline_ends_what_nobody_minds(world: World) -> None:
    world.cloud.local.deadline_late = 0.0
    world.build_seconds = 1e9
    build = world.submit()
    first = world.node()
    world.run(60, until=lambda: bool(world.started))
    first.kill()
    (machine,) = world.ours()
    world.run(TTL + 5.0)
    assert machine.power is Power.DEAD
    assert not disks(world)
    assert not world.kills
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).finished


@pytest.mark.parametrize("again", [False, True], ids=["once", "retry"])
def test_a_spot_vm_taken_back_is_not_the_builds_failure(world: World, again: bool) -> None:
    build = world.submit(spot=True, retry_on_loss=again)
    world.node()
    world.run(60, until=lambda: bool(world.started))
    (machine,) = world.ours()
    assert machine.local.spot
    world.cloud.preempt(machine)
    world.settle()
    done = world.truth.builds.get(build.id)
    if again:
        assert (done.result, len(list(world.ours()))) == (Result.SUCCESS, 2)
    else:
        assert (done.result, done.reason) == (Result.ERROR, Reason.PREEMPTED)
    nothing_of_ours(world)


# --- listings ------------------------------------------------------------------------------------


def test_a_zone_out_of_reach_proves_no_absence(world: World) -> None:
    """The answer is a success, and says beside the others' VMs that one zone is missing."""
    world.build_seconds = 1e9
    build = world.submit(ttl=500, timeout=400)
    first = world.node(reaps=False)
    world.run(60, until=lambda: bool(world.started))
    world.cloud.local.unreachable.add(f"zones/{world.cloud.google.zone}")
    world.node(drives=False)
    first.asleep = True
    world.run(200, step=5.0)
    (row,) = world.truth.instances.open()
    assert row.death is None
    assert world.truth.builds.get(build.id).state is BuildState.RUNNING
    assert not world.kills
    world.cloud.local.unreachable.clear()
    first.asleep = False
    world.run(600, until=lambda: not world.truth.instances.open(), step=2.0)
    nothing_of_ours(world)


def test_a_zone_out_of_reach_saves_nobody_elsewhere(world: World) -> None:
    """All that a reaper may find in the first zone, while the second is away."""
    begin(world, FLOW["reap"])
    world.cloud.local.unreachable.add(f"zones/{world.cloud.google.site.zones[1]}")
    world.run(6 * world.sweep_seconds)
    kinds = {m.ref.kind for m in world.standing() if m.born_of_us}
    # What has no zone of its own could belong to a VM that is out of reach.
    assert kinds <= {Kind.ADDRESS, Kind.SNAPSHOT}
    world.cloud.local.unreachable.clear()
    nothing_of_ours(world)
