"""kill -9 at every effect of the making of a template, or sleep there for an hour. The VMs are the
simulated cloud's, the rows and whoever ends them are the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.faults.crash_points import at_point, nothing_of_ours
from tests.faults.node import Node
from tests.faults.tasks import Task
from tests.faults.world import SWEEP, World
from tests.support.ledger_builds import spec
from vmrunner.core import requirements
from vmrunner.images import templates
from vmrunner.images.template_vms import TemplateVms
from vmrunner.lib import ids
from vmrunner.model import InstanceState, Order, Ref, Role, Shape

Make = Callable[..., World]
HOUR = 3600.0
LIFE = 120.0  # seconds that these VMs may live
BOOT = 30.0  # so long each of them takes: longer than the reaper's sweeps are apart
SHAPE = Shape(container="c", runtime="runc", log_bytes=1 << 20)


class Maker:
    """One whose VMs are a simulated cloud's."""

    def __init__(self, node: Node, provider: Any) -> None:
        self._node, self._provider = node, provider
        self.published = False
        self.made: list[str] = []

    def missing(self, _: Order) -> str:
        return "key"

    @contextmanager
    def begin(self, _: str) -> Iterator[str]:
        yield "place"

    def boot(self, order: Order, _: str) -> Ref:
        self.made.append(order.instance)
        ref: Ref = self._provider.create(order)
        return ref

    clone = boot

    def await_frozen(self, order: Order) -> None:
        """It ends by itself."""
        self.live(order.instance)
        cloud: Any = self._node.world.cloud
        for machine in cloud.of(order.instance):
            cloud.die(machine)

    def live(self, instance: str) -> None:
        """Let it be there for a while, in which nobody ends it."""
        world = self._node.world
        until, before = world.clock() + BOOT, list(world.kills)
        end = world.truth.instances.get(instance).deadline
        while world.clock() < until:
            Task.rest()
        self._node.reach(f"{instance} lived")
        assert world.kills == before or world.clock() > end

    def publish(self, *_: object) -> None:
        self._node.reach("publish")
        self.published = True


def making(
    world: World, patch: pytest.MonkeyPatch, *, serves: bool, **options: Any
) -> tuple[Node, Maker]:
    """A process that makes a template. `serves`: it is a whole engine, and reaps."""
    node = world.node(drives=serves, reaps=serves, **options)
    context = node.engine.context
    provider: Any = context.providers[world.cloud.name]
    maker, member = Maker(node, provider), node.engine.id if serves else ids.engine_id()
    provider.template_maker = lambda: maker
    patch.setattr(templates, "LIFE", LIFE)
    patch.setattr(templates, "_prove", lambda *_: maker.live(maker.made[-1]))

    def work() -> None:
        if not serves:
            context.ledger.engines.join(member, node.process, "image", context.clock())
        vms = TemplateVms(context.ledger, provider, member, sleep=lambda _: Task.rest())
        machine = requirements.machine(spec(provider=world.cloud.name))
        templates.make(provider, machine, SHAPE, vms=vms)
        if not serves:
            context.ledger.engines.leave(member)

    world.run(1)  # an engine joins by itself
    if not node.dead:
        node.begin(work)
    return node, maker


def crash_points(make_world: Make, patch: pytest.MonkeyPatch, *, serves: bool) -> list[str]:
    """Every place where the maker can die."""
    world = make_world()
    world.node()  # somebody else who reaps
    node, maker = making(world, patch, serves=serves)
    world.run(HOUR, until=lambda: maker.published and world.quiet())
    rows = world.truth.instances.list()
    assert {(row.role, row.state, row.build) for row in rows} == {
        (Role.IMAGE, InstanceState.GONE, None)
    }
    assert len(rows) == 2
    world.close()
    return node.points


@pytest.mark.parametrize("serves", [False, True], ids=["command", "serve"])
def test_a_template_whose_maker_dies_leaves_nothing(
    make_world: Make, monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    points = crash_points(make_world, monkeypatch, serves=serves)
    assert len(points) >= 10
    for at, place in enumerate(points):
        with at_point(place):
            world = make_world()
            node, _ = making(world, monkeypatch, serves=serves, crash_at=at)
            world.run(HOUR, until=lambda node=node: node.dead)
            assert node.dead
            world.node()
            # Long before their deadline, which would end them too.
            world.run(2 * SWEEP, until=lambda world=world: not world.standing())
            assert not world.standing()
            world.settle()
            nothing_of_ours(world)
            world.close()


def test_a_maker_that_sleeps_wakes_to_what_is_over(
    make_world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile its VM's deadline passed, and somebody else ended it."""

    def meanwhile(sleeper: Node) -> None:
        sleeper.world.node()
        sleeper.world.run(2 * LIFE)
        assert not sleeper.world.standing()

    for at, place in enumerate(crash_points(make_world, monkeypatch, serves=False)):
        with at_point(place):
            world = make_world()
            node, _ = making(world, monkeypatch, serves=False, sleep_at=at, sleep=meanwhile)
            world.run(HOUR, until=lambda node=node: not node.tasks)
            world.settle()
            nothing_of_ours(world)
            world.close()
