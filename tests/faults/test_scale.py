"""A sweep of many: how often it asks, what it holds, how a backlog dies under API limits. CPU and
bytes are measured by `bench/sweep.py`."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.sweep import PASS, World, backlog, floor
from tests.faults.world import World as Faulty
from vmrunner.model import BuildState, Kind, Reason, Resource
from vmrunner.providers.fake import SCOPE, Call, Clock, Cloud, Plan
from vmrunner.providers.fake.limits import EC2, Throttle


def test_builds_behind_a_long_queue_end_on_time(
    make_world: Callable[..., Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tick looks at the head of the queue, and at a part of the rest by turns: their own wait and
    their submitters' deaths end them, however many never come to their turn before them."""
    monkeypatch.setattr("vmrunner.engine.engine.QUEUE", 20)
    world = make_world(max_instances=1)
    world.build_seconds = 1e9
    for _ in range(100):
        world.submit(timeout=500, ttl=600)
    overdue = [world.submit(queue_timeout=20) for _ in range(30)]
    orphans = [world.submit(submitter=7) for _ in range(30)]
    world.node()
    world.run(10)
    world.living.clear()
    world.run(40)
    ended = [world.truth.builds.get(build.id).reason for build in overdue + orphans]
    assert ended == [Reason.QUEUE_TIMEOUT] * 30 + [Reason.OWNER_GONE] * 30


def test_a_thousand_builds_out_of_time_end_at_once(
    make_world: Callable[..., Faulty],
) -> None:
    world = make_world(max_instances=1)
    world.build_seconds = 1e9
    first = world.submit(timeout=500, ttl=600)
    world.clock.advance(0.001)
    builds = [world.submit(queue_timeout=20) for _ in range(1500)]
    world.node()
    world.run(25)
    assert {world.truth.builds.get(build.id).reason for build in builds} == {Reason.QUEUE_TIMEOUT}
    assert world.truth.builds.get(first.id).state is BuildState.RUNNING


@pytest.mark.parametrize("rows", [False, True], ids=["tags alone", "rows"])
def test_a_sweep_asks_no_oftener_than_it_must(tmp_path: Path, rows: bool) -> None:
    """1,000 things, half VMs and half their disks, 100 expired; the disks go with their VMs."""
    world = World(tmp_path)
    world.fill(500, 50, rows=rows)
    world.cloud.counts.clear()
    world.reaping.run()
    assert world.cloud.counts == {"sweep": 1000 / 100, "delete": 1}
    vms = list(world.cloud.things(Kind.INSTANCE))
    assert [m.alive for m in vms] == [False] * 50 + [True] * 450
    world.reaping.run(sweep=False)
    assert len(world.ledger.instances.open()) == (450 if rows else 0)
    world.close()


def test_a_sweep_holds_no_page(tmp_path: Path) -> None:
    """While it lists, it keeps whole only what must die, 20 things, and two pages in passing."""
    world = World(tmp_path)
    world.fill(500, 10, rows=True)
    counts: list[int] = []

    def count(call: Call) -> Plan | None:
        if call.method == "sweep":
            counts.append(sum(isinstance(thing, Resource) for thing in gc.get_objects()))
        return None

    world.cloud.on_call = count
    before = sum(isinstance(thing, Resource) for thing in gc.get_objects())
    world.provider.page_size = 50
    world.reaping.run()
    # The fake itself keeps what a listing of one kind showed when it began.
    assert len(counts) == 1000 / 50
    assert max(counts) - before <= 500 + 20 + 2 * 50
    world.close()


def test_a_backlog_dies_as_fast_as_the_limits_allow(tmp_path: Path) -> None:
    run = backlog(tmp_path, 3000)
    assert floor(3000) == 100
    assert run.seconds <= 100 + PASS


def test_creates_at_their_limit_slow_no_delete(tmp_path: Path) -> None:
    alone = backlog(tmp_path, 1500)
    crowded = backlog(tmp_path, 1500, creating=60)
    assert crowded.created > 0
    assert crowded.refused["create"] > 0
    assert crowded.seconds <= alone.seconds + PASS


def test_an_empty_bucket_refuses_and_fills_with_time() -> None:
    clock = Clock()
    cloud = Cloud(clock)
    throttle = cloud.on_call = Throttle(cloud, EC2)
    look = Call("look", "fake", SCOPE, 1)
    plans = [cloud.plan(look).fault.value for _ in range(101)]
    assert plans == ["ok"] * 100 + ["throttle"]
    clock.advance(0.25)  # 20 a second
    assert [cloud.plan(look).fault.value for _ in range(6)] == ["ok"] * 5 + ["throttle"]
    assert throttle.refused == {"look": 2}


def test_a_batch_takes_a_token_for_each_thing(tmp_path: Path) -> None:
    world = World(tmp_path, disks=False)
    world.fill(1200, 0, rows=False)
    refs = [m.ref for m in world.cloud.things()]
    world.cloud.on_call = Throttle(world.cloud, EC2)
    first = world.provider.delete(refs[:900])
    assert {o.fate.value for o in first.values()} == {"accepted"}
    assert {o.error for o in world.provider.delete(refs[900:]).values()} == {"fake: throttle"}
    world.clock.advance(10)
    assert {o.fate.value for o in world.provider.delete(refs[900:]).values()} == {"accepted"}
    world.close()
