"""Every kind of resource is seen, judged and ended alike."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.world import World
from vmrunner.lib import ids
from vmrunner.model import Kind
from vmrunner.providers.fake import SCOPE

Make = Callable[..., World]


def tags(world: World, *, expires: float) -> dict[str, str]:
    """What is on a thing of ours that no row knows."""
    own = {
        "installation": world.truth.installation,
        "generation": world.truth.generation,
        "instance": ids.instance_id(),
        "build": ids.build_id(),
        "role": "build",
        "expires-at": str(int(expires)),
    }
    return {f"vmrunner:{name}": value for name, value in own.items()}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.DEFINITION])
def test_past_its_deadline_it_dies_and_anothers_lives(make_world: Make, kind: Kind) -> None:
    world = make_world()
    world.node()
    now = world.cloud.now()
    vm_tags = tags(world, expires=now + 100)
    ours = world.cloud.plant(SCOPE, vm_tags, kind=kind)
    theirs = world.cloud.plant(SCOPE, vm_tags | {"vmrunner:installation": "theirs"}, kind=kind)
    world.run(50)
    assert ours.alive
    world.run(50 + world.limits.limits.grace + 1)
    assert not ours.alive
    assert theirs.alive


def test_whatever_belongs_to_a_vm_goes_after_it(make_world: Make) -> None:
    """Left behind by the cloud: no child dies before its parent, and none stays."""
    world = make_world()
    world.cloud.disks = world.cloud.disks_stay = True
    world.cloud.belongings = tuple(
        kind for kind in Kind if kind not in (Kind.INSTANCE, Kind.DEFINITION)
    )
    world.submit()
    world.node()
    world.settle()
    things = list(world.cloud.things())
    assert {thing.ref.kind for thing in things} == set(Kind) - {Kind.DEFINITION}
    assert all(thing.died_at is not None for thing in things)
    (vm,) = (thing for thing in things if thing.ref.kind is Kind.INSTANCE)
    assert vm.died_at is not None
    assert all(thing.died_at >= vm.died_at for thing in things if thing.died_at is not None)


def test_a_newborn_that_flickers_is_neither_lost_nor_doubled(make_world: Make) -> None:
    """One read shows it, the next does not, and two ways to ask disagree."""
    world = make_world()
    world.cloud.visibility_lag, world.cloud.unsteady = 5.0, 40.0
    builds = [world.submit() for _ in range(5)]
    world.node()
    world.settle()
    assert len(list(world.cloud.things(Kind.INSTANCE))) == len(builds)
    assert {world.truth.builds.get(build.id).attempt for build in builds} == {1}


def test_no_vm_waits_for_what_the_ledger_says_of_images(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep showed both, and both end before the next one."""
    world = make_world(sweep_seconds=200.0)
    world.node()
    vm_tags = tags(world, expires=world.cloud.now() + 100)
    vm = world.cloud.plant(SCOPE, vm_tags)
    image = world.cloud.plant(SCOPE, vm_tags | {"vmrunner:role": "image"}, kind=Kind.IMAGE)
    world.run(50)
    vm_alive: list[bool] = []

    def images() -> None:
        vm_alive.append(vm.alive)
        raise ValueError("a row that makes no sense")

    monkeypatch.setattr(world.truth.images, "list", images)
    world.run(50 + world.limits.limits.grace)
    assert vm_alive
    assert not any(vm_alive)
    assert (vm.alive, image.alive) == (False, False)
