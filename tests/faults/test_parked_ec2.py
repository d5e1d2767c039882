"""A parked pool over HTTP: the real driver of EC2 stops a VM to wait, and starts it for its build.
Whatever becomes of a request for either, and of who sends it, the VM serves one build or dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from vmrunner_localclouds.common.faults import LOST_ANSWER, LOST_REQUEST, RequestFate
from vmrunner_localclouds.ec2 import NO_CAPACITY

from tests.faults.ec2_side import Ec2Side
from tests.faults.pool_worlds import PARKED, drained, parked, pools
from tests.faults.test_http import at_request, each_kind
from tests.faults.world import TTL, World
from vmrunner.model import BuildRecord, Instance, Power, Result, Start
from vmrunner.providers.ec2.provider import Ec2Provider
from vmrunner.providers.fake import Call

Make = Callable[..., World]
Judge = Callable[[Call], RequestFate | None]

POOLS = pools(**PARKED, provider="aws", size=1)
WISHES = ("park", "wake")


@pytest.fixture(autouse=True)
def guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is parked where no guard ends it."""
    monkeypatch.setattr(Ec2Provider, "guarded_roles", lambda _: frozenset({"build", "pool"}))


def submitted(world: World) -> BuildRecord:
    """A build, once its VM waits, or whoever was to see to that is dead."""
    world.run(120, until=lambda: bool(parked(world)) or all(node.dead for node in world.nodes))
    return world.submit()


def ended(world: World, build: BuildRecord) -> Instance:
    """The build succeeds, all VMs die, and what is another's lives. Returns the VM that it had."""
    world.run(TTL + 100, until=lambda: world.truth.builds.get(build.id).finished)
    done = world.truth.builds.get(build.id)
    assert done.result is Result.SUCCESS, done
    world.check_log(done)
    drained(world)
    foreign = [m for m in world.cloud.machines.values() if not m.born_of_us]
    assert foreign
    assert all(machine.alive for machine in foreign)
    return world.truth.instances.get(done.instance or "")


def of(method: str, judge: Judge) -> Judge:
    """Judges what asks for this alone."""
    return lambda call: judge(call) if call.method == method else None


def test_a_vm_is_stopped_and_started_for_its_build(make_ec2: Make) -> None:
    world = make_ec2()
    actions: list[str] = []
    world.judge = lambda call: actions.append(call.provider)
    world.node(pools=POOLS)
    build = submitted(world)
    (row,) = parked(world)
    assert row.ref is not None
    assert world.cloud.machines[row.ref].power is Power.STOPPED
    used = ended(world, build)
    assert (used.id, used.start) == (row.id, Start.PARKED)
    assert used.address != row.address
    assert {"StopInstances", "StartInstances"} <= set(actions)


@pytest.mark.parametrize("method", WISHES)
@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
def test_a_process_dies_while_it_parks_or_wakes(make_ec2: Make, method: str, heard: bool) -> None:
    world = make_ec2()
    node = world.node(pools=POOLS)
    dies = of(method, at_request(0, LOST_ANSWER if heard else LOST_REQUEST))

    def judge(call: Call) -> Any:
        if node.dead:
            return LOST_REQUEST
        fate = dies(call)
        node.dead = fate is not None
        return fate

    world.judge = judge
    build = submitted(world)
    world.run(60, until=lambda: node.dead)
    assert node.dead
    node.kill()
    world.judge = None
    world.node(pools=POOLS)
    ended(world, build)


@pytest.mark.parametrize("method", WISHES)
@each_kind
def test_a_wish_that_fails_is_said_again(make_ec2: Make, method: str, kind: str) -> None:
    world = make_ec2()
    world.judge = of(method, at_request(0, Ec2Side.troubles[kind][-1]))
    world.node(pools=POOLS)
    build = submitted(world)
    (row,) = parked(world)
    assert ended(world, build).id == row.id


def test_a_refused_start_is_no_attempt(make_ec2: Make) -> None:
    world = make_ec2()
    world.judge = of("wake", at_request(0, NO_CAPACITY))
    world.node(pools=POOLS)
    build = submitted(world)
    (row,) = parked(world)
    used = ended(world, build)
    assert used.id != row.id
    assert world.truth.builds.get(build.id).attempt == 1
