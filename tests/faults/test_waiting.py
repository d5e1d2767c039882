"""A build that waits for capacity: hours of it cost as much as the first, and takes no retry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.faults.world import LIMITS, World
from vmrunner.engine.completion import LONGEST_REFUSED_WAIT, REFUSED_WAIT
from vmrunner.ledger.build_writes import FIRST_EVENTS, LAST_EVENTS
from vmrunner.model import BuildRecord, InstanceState, Reason, Result
from vmrunner.providers.fake import Call, FakeProvider, Fault, Plan

STEP = 15.0  # seconds from tick to tick
COARSE = 90.0
LONG = 6 * 3600.0


class Left(NamedTuple):
    """What a build has in the ledger."""

    rows: int
    events: int
    phases: int


def left(world: World, build: BuildRecord) -> Left:
    rows = world.truth.instances.list(build=build.id)
    events = world.truth.events.list(build.id)
    return Left(len(rows), len(events), len(world.truth.builds.get(build.id).phases))


def dry(call: Call) -> Plan | None:
    return Plan(Fault.NO_CAPACITY) if call.method == "create" else None


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world(limits=replace(LIMITS, newborn=900.0))


@pytest.fixture(params=[1, 18])
def offers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """So many offers for each build."""
    found = FakeProvider._offers
    count: int = request.param

    def many(self: FakeProvider, spec: Any) -> Any:
        first = found(self, spec)[0]
        return tuple(replace(first, machine_type=f"t{n}") for n in range(count))

    monkeypatch.setattr(FakeProvider, "_offers", many)
    return count


def test_a_long_wait_leaves_as_much_as_an_hour(
    world: World, offers: int, caplog: pytest.LogCaptureFixture
) -> None:
    world.node()
    world.judge = dry
    build = world.submit(queue_timeout=7 * 86400.0)
    world.run(3600, step=COARSE)
    hour = left(world, build)
    before = world.cloud.counts["create"]
    world.run(LONG, step=COARSE)
    long = left(world, build)
    assert long.rows <= hour.rows + offers
    assert long.events <= FIRST_EVENTS + LAST_EVENTS + 3 * offers
    assert max(long.phases, hour.phases) <= 2
    assert "set back" not in caplog.text  # no row went by which that would be noticed
    tries = (world.cloud.counts["create"] - before) / offers
    assert tries <= LONG / LONGEST_REFUSED_WAIT + 1


def test_its_time_in_the_queue_ends_to_the_tick(world: World) -> None:
    world.node()
    world.judge = dry
    build = world.submit(queue_timeout=3600.0)
    begun = world.clock()
    world.run(3600 - STEP, step=STEP)
    assert not world.truth.builds.get(build.id).finished
    world.run(3 * STEP, step=STEP)
    done = world.truth.builds.get(build.id)
    assert (done.result, done.reason) == (Result.ERROR, Reason.QUEUE_TIMEOUT)
    assert done.finished_at is not None
    assert done.finished_at <= begun + 3600 + STEP


@pytest.mark.parametrize("refusals", [0, 1, 2, 8])
def test_refusals_are_no_attempts_at_a_build(world: World, refusals: int) -> None:
    """Three lost VMs end a build, however often it was refused one before."""
    world.node()
    waits = [refusals]

    def judge(call: Call) -> Plan | None:
        if call.method == "create" and waits[0]:
            waits[0] -= 1
            return Plan(Fault.NO_CAPACITY)
        return None

    world.judge = judge
    world.cloud.boot_seconds = 5.0
    build = world.submit(queue_timeout=86400.0)

    def booting() -> list[Any]:
        rows = world.truth.instances.list(build=build.id, active=True)
        refs = {row.ref for row in rows if row.state is InstanceState.BOOTING}
        return [machine for machine in world.ours() if machine.alive and machine.ref in refs]

    lost = 0
    while not world.truth.builds.get(build.id).finished:
        world.run(1)
        for machine in booting():
            world.cloud.die(machine)
            lost += 1
    assert lost == 3
    assert world.truth.builds.get(build.id).reason is Reason.BOOT_FAILED


def test_who_waits_tries_again_soon_when_another_is_served(world: World) -> None:
    node = world.node()
    world.judge = dry
    first = world.submit(queue_timeout=86400.0)
    second = world.submit(queue_timeout=86400.0)
    world.run(3600, step=STEP)
    assert len(node.engine._completion.refusals) == 2
    world.judge = None

    def served() -> int:
        return sum(bool(world.truth.builds.get(build.id).attempt) for build in (first, second))

    world.run(2 * LONGEST_REFUSED_WAIT, until=lambda: served() > 0)
    world.run(2 * REFUSED_WAIT, until=lambda: served() > 1)
    assert served() == 2
