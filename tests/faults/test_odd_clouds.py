"""Clouds that accept what they cannot place, show no names, or end containers without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.cloud_side import InMemory
from tests.faults.world import World
from vmrunner.model import BuildRecord, ContainerEnd, Death, Instance, Reason, Result
from vmrunner.providers.fake import FakeProvider, Fault

Make = Callable[..., World]
SMALL, LARGE = "small", "large"


class Nameless(InMemory):
    """It shows whose a VM is, and not which."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.shows_names = False


class Sized(InMemory):
    """It offers two sizes, the small one first."""

    def providers(self, installation: str, host: Callable[[], float]) -> dict[str, FakeProvider]:
        found = dict(super().providers(installation, host))
        for provider in found.values():
            provider.machine_types = (SMALL, LARGE)
        return found


def rows(world: World, build: BuildRecord) -> list[Instance]:
    return sorted(world.truth.instances.list(build=build.id), key=lambda row: row.created_at)


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault.LOST_RESPONSE, Fault.LOST_REQUEST, Fault.SERVER_ERROR])
def test_the_identical_order_finds_a_vm_without_a_name(make_world: Make, fault: Fault) -> None:
    world = make_world(cloud=Nameless)
    build = world.submit()
    world.fail("create", fault, fault)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert len(world.cloud.machines) == 1


def test_a_long_build_without_a_name_lives(make_world: Make) -> None:
    world = make_world(cloud=Nameless)
    build = world.submit(timeout=500, ttl=590)
    world.seconds[build.id] = 450
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS


def test_a_birth_that_nobody_hears_of_ends_as_an_orphan(make_world: Make) -> None:
    """Its row ends as one without a VM, and that not before the newborn window is over."""
    world = make_world(cloud=Nameless)
    build = world.submit()
    world.fail("create", *[Fault.LOST_RESPONSE] * 200)
    world.node()
    newborn = world.limits.limits.newborn
    world.run(newborn - 1)
    (machine,) = world.cloud.machines.values()
    assert machine.alive
    assert rows(world, build)[0].gone_at is None
    world.settle()
    (row,) = rows(world, build)[:1]
    assert row.gone_at is not None
    assert row.gone_at > row.created_at + newborn
    assert row.death in (Death.STUCK, Death.VANISHED)
    assert world.kills.count(machine.ref.id) >= 1


@pytest.mark.parametrize("seconds", [3, 20])
def test_whoever_takes_over_sends_the_order_again(make_world: Make, seconds: float) -> None:
    world = make_world(cloud=Nameless)
    build = world.submit()
    world.fail("create", Fault.LOST_RESPONSE)
    first = world.node()
    world.run(1)
    first.kill()
    world.run(seconds)
    world.node()
    world.settle()
    assert world.truth.builds.get(build.id).result is Result.SUCCESS
    assert len(world.cloud.machines) == 1


# --- places ---------------------------------------------------------------------------------------


def test_what_cannot_be_placed_is_followed_by_the_next_offer(make_world: Make) -> None:
    world = make_world(cloud=Sized)
    world.cloud.unplaceable[SMALL] = Reason.NO_CAPACITY
    build = world.submit()
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)
    first, second = rows(world, build)
    assert [row.offer.machine_type for row in (first, second)] == [SMALL, LARGE]
    assert (first.death, first.message) == (Death.REFUSED, "it cannot be placed")


def test_where_nothing_can_be_placed_the_build_ends(make_world: Make) -> None:
    world = make_world(cloud=Sized)
    world.cloud.unplaceable |= dict.fromkeys((SMALL, LARGE), Reason.NO_CAPACITY)
    build = world.submit()
    world.node()
    world.run(60, until=world.quiet)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.NO_CAPACITY)
    assert done.message == "it cannot be placed"
    assert len(rows(world, build)) == 2


def test_with_a_queue_timeout_it_waits_for_a_place(make_world: Make) -> None:
    world = make_world(cloud=Sized)
    world.cloud.unplaceable |= dict.fromkeys((SMALL, LARGE), Reason.NO_CAPACITY)
    build = world.submit(queue_timeout=100)
    world.node()
    world.run(12)
    world.cloud.unplaceable.clear()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.attempt) == (Result.SUCCESS, 1)


def test_nobody_waits_for_a_place_for_ever(make_world: Make) -> None:
    world = make_world(cloud=Sized)
    world.cloud.unplaceable |= dict.fromkeys((SMALL, LARGE), Reason.NO_CAPACITY)
    build = world.submit(queue_timeout=40)
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.QUEUE_TIMEOUT)
    assert len(world.cloud.machines) <= 6


def test_an_image_that_cannot_be_had_is_tried_once(make_world: Make) -> None:
    world = make_world(cloud=Sized)
    world.cloud.unplaceable |= dict.fromkeys((SMALL, LARGE), Reason.IMAGE)
    build = world.submit()
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason, len(rows(world, build))) == (Result.ERROR, Reason.IMAGE, 1)


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (ContainerEnd(exit_code=137, out_of_memory=True), Reason.OUT_OF_MEMORY),
        (ContainerEnd(exit_code=3), Reason.EXIT_CODE),
        (None, Reason.VM_LOST),
    ],
)
def test_the_system_is_asked_how_a_container_ended(
    make_world: Make, seen: ContainerEnd | None, reason: Reason
) -> None:
    world = make_world()
    build = world.submit()
    world.container_gone.add(build.id)
    world.when(
        lambda: bool(world.started),
        lambda: [setattr(m, "container", seen) for m in world.cloud.machines.values()],
    )
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert done.reason is reason
    assert world.cloud.counts["ended"] >= 1


def test_the_system_is_asked_why_a_step_was_killed(make_world: Make) -> None:
    world = make_world()
    build = world.submit()
    world.killed.add(build.id)
    seen = ContainerEnd(exit_code=137, out_of_memory=True)
    world.when(
        lambda: bool(world.started),
        lambda: [setattr(m, "container", seen) for m in world.cloud.machines.values()],
    )
    world.node()
    world.settle()
    done = world.truth.builds.get(build.id)
    assert (done.reason, done.exit_code) == (Reason.OUT_OF_MEMORY, 137)
