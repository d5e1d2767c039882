"""Scenarios: every effect of each is a point to crash or to sleep at; and what may come of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

from tests.faults.cloud_side import CloudResource
from tests.faults.node import Node
from tests.faults.store_side import leave_garbage
from tests.faults.world import World
from vmrunner.model import BuildRecord, BuildState, InstanceState, Reason, Result, Role
from vmrunner.providers.fake import Fault

_OK = frozenset({Result.SUCCESS})
_CANCELLED = frozenset({Result.CANCELLED})


class Scenario(NamedTuple):
    """`arrange` submits the build and plants the trouble; the process that follows is enumerated.
    `ends` is what the build may come to when another process goes on at once."""

    name: str
    arrange: Callable[[World], BuildRecord]
    ends: frozenset[Result] = _OK
    drives: bool = True  # else the process only reaps
    stores: bool = False  # it uploads, and collects garbage in the store
    answers: bool = False  # its commands must come to an exit code


def _state(world: World, build: BuildRecord, *states: BuildState) -> Callable[[], bool]:
    return lambda: world.truth.builds.get(build.id).state in states


def _machines(world: World) -> list[CloudResource]:
    return [m for m in world.ours() if m.alive]


def run(world: World) -> BuildRecord:
    return world.submit()


def armed(world: World) -> BuildRecord:
    """The cloud arms and seals; the answer of each is lost once."""
    world.cloud.arms, world.cloud.seals = 30.0, True
    world.fail("arm", Fault.LOST_RESPONSE)
    world.fail("seal", Fault.LOST_RESPONSE)
    return world.submit()


def lost_response(world: World) -> BuildRecord:
    world.fail("create", Fault.LOST_RESPONSE)
    return world.submit()


def next_offer(world: World) -> BuildRecord:
    world.fail("create", Fault.NO_CAPACITY)
    return world.submit(spot=True)


def failed_delete(world: World) -> BuildRecord:
    world.fail("delete", Fault.LOST_RESPONSE, Fault.LOST_REQUEST)
    return world.submit()


def _cancel(world: World, build: BuildRecord, *states: BuildState) -> BuildRecord:
    world.when(
        _state(world, build, *states),
        lambda: world.truth.builds.request_cancel(build.id, Reason.USER, world.clock()),
    )
    return build


def cancel_early(world: World) -> BuildRecord:
    return _cancel(world, world.submit(), BuildState.PROVISIONING, BuildState.BOOTING)


def cancel(world: World) -> BuildRecord:
    world.build_seconds = 8.0  # long enough to be seen running by whoever takes over
    return _cancel(world, world.submit(), BuildState.RUNNING)


def hold(world: World) -> BuildRecord:
    world.exit_code = 3
    return world.submit(keep_on_failure=4)


def extend_then_cancel(world: World) -> BuildRecord:
    world.exit_code = 3
    build = world.submit(keep_on_failure=4)
    extended_at: list[float] = []

    def extend() -> None:
        world.truth.builds.extend(build.id, 500.0, world.clock())
        extended_at.append(world.clock())

    world.when(_state(world, build, BuildState.HELD), extend)
    world.when(
        lambda: bool(extended_at) and world.clock() > extended_at[0] + 4,
        lambda: world.truth.builds.request_cancel(build.id, Reason.USER, world.clock()),
    )
    return build


def retry(world: World) -> BuildRecord:
    """The first VM dies while it boots."""
    world.when(
        lambda: bool(_machines(world)),
        lambda: [world.cloud.die(machine) for machine in _machines(world)],
    )
    return world.submit()


def retry_on_loss(world: World) -> BuildRecord:
    """The first VM dies while its steps run."""
    world.when(
        lambda: bool(world.started),
        lambda: [world.cloud.preempt(machine) for machine in _machines(world)],
    )
    return world.submit(retry_on_loss=True)


def retry_hung(world: World) -> BuildRecord:
    """The first guest hangs while its steps run; its VM stands until somebody deletes it."""

    def hang() -> None:
        for machine in _machines(world):
            machine.hung = True

    world.when(lambda: bool(world.started), hang)
    return world.submit(retry_on_loss=True)


def deadline(world: World) -> BuildRecord:
    world.build_seconds = 1e9
    return world.submit(ttl=world.cloud.least_life + 12, timeout=10)


def owner_gone(world: World) -> BuildRecord:
    world.build_seconds = 8.0
    build = world.submit(submitter=7)
    world.when(_state(world, build, BuildState.RUNNING), world.living.clear)
    return build


def _left_by(world: World, build: BuildRecord, *states: BuildState) -> BuildRecord:
    """A process drove it until then, and was killed."""
    first = world.node(reaps=False)
    world.run(60, until=_state(world, build, *states))
    assert world.truth.builds.get(build.id).state in states
    first.kill()
    return build


def _kill_when_done(world: World, build: BuildRecord) -> BuildRecord:
    """Its user ends a sandbox when the commands have ended."""
    callers = list(world.callers)
    world.when(
        lambda: all(caller.ended for caller in callers),
        lambda: world.truth.builds.request_cancel(build.id, Reason.USER, world.clock()),
    )
    return build


def sandbox(world: World) -> BuildRecord:
    """Commands are followed, and asked for piece by piece; connections break off."""
    build = world.sandbox()
    turns = itertools.cycle((True, False, False))
    world.drops = lambda: next(turns)
    world.call(build, {"c1": 3.0, "c2": 6.0})
    world.call(build, {"c3": 6.0}, polls=True)
    return _kill_when_done(world, build)


def sandbox_deadline(world: World) -> BuildRecord:
    """Its time is over amid a command."""
    build = world.sandbox(seconds=8.0)
    world.call(build, {"c1": 1000.0})
    return build


def sandbox_owned(world: World) -> BuildRecord:
    """Whoever it belongs to dies, and with it its command."""
    build = world.sandbox(submitter=7)
    caller = world.call(build, {"c1": 1000.0})

    def die() -> None:
        world.living.clear()
        caller.kill()

    world.when(_state(world, build, BuildState.RUNNING), die)
    return build


def take_over_sandbox(world: World) -> BuildRecord:
    """Its owner died amid three commands."""
    build = world.sandbox()
    world.call(build, {"c1": 6.0, "c2": 12.0})
    world.call(build, {"c3": 12.0}, polls=True)
    _left_by(world, build, BuildState.RUNNING)
    return _kill_when_done(world, build)


def take_over_asked(world: World) -> BuildRecord:
    """The former owner's create was heard, and it died before the answer came."""
    build = world.submit()
    place = [p for p in _points(world) if p == "after cloud.create"]
    assert place
    return build


def _points(world: World) -> list[str]:
    first = world.node(reaps=False)
    world.dice = lambda node, point: node is first and point == "after cloud.create"
    world.run(60, until=lambda: first.dead)
    world.dice = None
    return first.points


def take_over_running(world: World) -> BuildRecord:
    return _left_by(world, world.submit(), BuildState.RUNNING)


def take_over_held(world: World) -> BuildRecord:
    world.exit_code = 3
    return _left_by(world, world.submit(keep_on_failure=8), BuildState.HELD)


def take_over_dying(world: World) -> BuildRecord:
    """Its verdict is written, its VM is to die."""
    build = world.submit()
    first = world.node(reaps=False)
    world.run(
        60,
        until=lambda: any(
            row.state is InstanceState.DELETING for row in world.truth.instances.open()
        ),
    )
    first.kill()
    return build


def reap(world: World) -> BuildRecord:
    """All that a reaper may find: a dead process's build, a VM past its deadline, one whose row is
    closed, a double, one without a row, disks and such; and others', which it must leave alone."""
    cloud = world.cloud
    cloud.disks = cloud.disks_stay = True
    done = world.submit()
    expiring = world.submit(ttl=world.cloud.least_life + 30, timeout=20)
    build = world.submit(submitter=7)
    world.seconds |= {expiring.id: 1e9, build.id: 1e9}
    first = world.node(reaps=False)
    world.run(100, until=lambda: world.truth.builds.get(done.id).finished)
    assert len(world.started) == 3
    first.kill()
    world.living.clear()
    tags = {m.tags["vmrunner:build"]: m.tags for m in world.ours()}
    scope = cloud.scope
    cloud.plant(scope, tags[done.id])  # its row is closed, or closes soon
    cloud.plant(scope, tags[build.id])  # not the one that its row records
    ghost = tags[build.id] | {"vmrunner:instance": "vm-ghost"}
    cloud.plant(scope, ghost, created_at=world.clock() - 100)
    for kind in cloud.leftovers:
        cloud.plant(scope, ghost, kind=kind, created_at=world.clock() - 100)
    cloud.plant(scope, tags[build.id] | {"vmrunner:installation": "theirs"})
    cloud.plant(scope, tags[build.id] | {"vmrunner:role": "guard"})
    return build


def stored(world: World) -> BuildRecord:
    """Its log is in the ledger still, and its source is not needed any more. In the store there is
    what an upload left that broke off, and what no row has."""
    build = world.submit(source=b"source")
    first = world.node()
    world.run(100, until=world.quiet)
    first.kill()
    leave_garbage(world)
    return build


SCENARIOS = (
    Scenario("run", run),
    Scenario("armed", armed),
    Scenario("lost_response", lost_response),
    Scenario("next_offer", next_offer),
    Scenario("failed_delete", failed_delete),
    Scenario("cancel_early", cancel_early, _CANCELLED),
    Scenario("cancel", cancel, _CANCELLED),
    Scenario("hold", hold, frozenset({Result.FAILURE})),
    Scenario("extend_then_cancel", extend_then_cancel, frozenset({Result.FAILURE})),
    Scenario("retry", retry),
    Scenario("retry_on_loss", retry_on_loss),
    Scenario("deadline", deadline, frozenset({Result.TIMEOUT})),
    Scenario("owner_gone", owner_gone, _CANCELLED),
    Scenario("sandbox", sandbox, answers=True),
    Scenario("sandbox_deadline", sandbox_deadline),
    Scenario("sandbox_owned", sandbox_owned, _CANCELLED),
    Scenario("take_over_sandbox", take_over_sandbox, answers=True),
    Scenario("take_over_asked", take_over_asked),
    Scenario("take_over_running", take_over_running),
    Scenario("take_over_held", take_over_held, frozenset({Result.FAILURE})),
    Scenario("take_over_dying", take_over_dying),
    Scenario("reap", reap, _CANCELLED, drives=False),
    Scenario("stored", stored, drives=False, stores=True),
    # Last: which commits of the others are tried follows from their places here.
    Scenario("retry_hung", retry_hung),
)


def others(world: World) -> None:
    """What is in the same account and is not ours to touch: by its tags another installation's, of
    another role; and images that last. All of it is expired."""
    own_tags = {"vmrunner:installation": world.truth.installation, "vmrunner:expires-at": "1"}
    foreign_tags = own_tags | {"vmrunner:installation": "theirs", "vmrunner:role": Role.BUILD.value}
    plant, scope = world.cloud.plant, world.cloud.scope
    plant(scope, own_tags | {"vmrunner:role": "guard"})
    for kind in world.cloud.plantable:
        plant(scope, foreign_tags, kind=kind)
    world.cloud.plant_lasting_images(world.truth.installation)


def begin(world: World, scenario: Scenario, **options: object) -> tuple[BuildRecord, Node]:
    """Arrange the scenario, and start the process that is enumerated. Builds are short: beats of
    the same state are points too, and there need not be many."""
    world.build_seconds = min(world.build_seconds, 3.0)
    build = scenario.arrange(world)
    kind = {"drives": scenario.drives, "stores": scenario.stores}
    return build, world.node(**kind, **options)
