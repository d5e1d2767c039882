"""Each layer of defence alone: all others are off, and promise 1 holds under every fault under
which the layer counts (design §6). `python -m tests.faults.test_layers` prints the matrix.

With the numbers of production. On a cloud, not on the fake, the guest's timer and the native
deadline are what the driver's own tests show."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.faults.world import World, make_template
from vmrunner.core.audit_rules import AuditFault as Wrong
from vmrunner.model import BuildRecord, BuildState, InstanceState, Limits, PoolKind, PoolSpec
from vmrunner.providers.fake import SCOPE, FakeMachine, Fault
from vmrunner.services.audit import alone, survivors

Make = Callable[..., World]
TTL: Final = 600.0
OUTAGE: Final = 400.0
EVERY: Final = 300.0  # between the guard's passes
GUARDED: Final = 480.0  # so long past E a VM is left to others by it
ARMED: Final = 600.0  # so long past E what was armed after birth ends the VM, on EC2
OUTSIDE: Final = 900.0  # G, when only what is outside vmrunner acts

LAYERS: Final = {
    "owner": "owner",
    "guest timer": "guest",
    "native deadline": "native",
    "armed after birth": "armed",
    "guard": "guard",
    "reaper, by the ledger": "ledger",
    "reaper, by tags alone": "sweep",
    "audit": "audit",
}
FAULTS: Final = {
    "killed": "vmrunner is killed",
    "unheard": "killed before the create's answer",
    "lost": "ledger lost",
    "down": "ledger out of reach",
    "guest": "guest dead, or its root hostile",
    "off": "switched off by its guest",
    "protected": "termination protection",
    "deletes": "deletes fail at first",
    "outage": "cloud out of reach at E",
    "asleep": "host suspended over E",
    "slow": "host clock a day slow",
    "fast": "host clock a day fast",
}


class Nature(NamedTuple):
    """A cloud, as far as its layers go: layers that it has not, faults that are none there, and
    where a layer does not count."""

    lacks: set[str]
    harmless: set[str]
    never: dict[str, set[str]]
    pool: PoolKind | None = None  # the VM waits in one, for a build that never comes


_NEVER: Final = {
    "owner": {"killed", "unheard", "lost", "down"},
    "ledger": {"lost", "down"},
}
#: A guest's poweroff is its VM's end there, so that nothing is left to be ended.
ENDS: Final = Nature(
    lacks=set(),
    harmless={"off"},
    never={**_NEVER, "guest": {"guest"}, "armed": {"unheard", "protected"}},
)
#: There it only switches it off: its disk bills, and the cloud's own deadline is gone. Nothing is
#: armed after birth; the guest's timer comes last, and is a layer with the guard alone.
STOPS: Final = Nature(lacks={"armed", "guest"}, harmless=set(), never={**_NEVER, "native": {"off"}})
#: A VM that waits in a pool. One that is parked is off: its guest's timer and the cloud's own
#: deadline are gone.
WAITS: Final = ENDS._replace(pool=PoolKind.HOT)
PARKED: Final = Nature(
    lacks={"guest", "native"},
    harmless={"off", "guest"},
    never={**_NEVER, "armed": {"unheard", "protected"}},
    pool=PoolKind.PARKED,
)
NATURES: Final = {"ends": ENDS, "stops": STOPS, "waits": WAITS, "parked": PARKED}
POOL: Final = PoolSpec(name="fast", provider="fake", container="c", size=1, ttl=TTL, idle=TTL)


def cells(nature: Nature) -> list[tuple[str, str]]:
    return [
        (layer, fault)
        for layer in LAYERS.values()
        for fault in FAULTS
        if layer not in nature.lacks
        and fault not in nature.harmless
        and fault not in nature.never.get(layer, ())
    ]


CELLS: Final = [(name, *cell) for name, nature in NATURES.items() for cell in cells(nature)]


class Guard:
    """Played: every five minutes it ends, by tags alone, what is past its deadline and a grace."""

    dead = asleep = reaps = False
    awake_since = 0.0

    def __init__(self, world: World) -> None:
        self._world = world
        self._next = 0.0

    def tick(self) -> None:
        cloud, now = self._world.cloud, self._world.cloud.now()
        if now < self._next:
            return
        self._next = now + EVERY
        for machine in list(cloud.things()):
            expires = float(machine.tags["vmrunner:expires-at"])
            if machine.died_at is None and now > expires + GUARDED and not cloud.unreachable:
                cloud.delete(machine.ref, force=True)

    def close(self) -> None:
        """There is nothing to let go of."""


def launched(world: World, layer: str, fault: str, pool: PoolKind | None = None) -> FakeMachine:
    """A VM whose build never ends, or never comes; its engine lives on only where that is the
    layer."""
    world.build_seconds = 1e9
    world.cloud.guest_timer = 0.0 if layer == "guest" else None
    world.cloud.native_deadline = layer == "native"
    world.cloud.arms = ARMED if layer == "armed" else None
    if world.cloud.stop_disarms:
        world.cloud.poweroff_kills = False
        world.cloud.disks = True
    pools = {"fast": replace(POOL, kind=pool)} if pool else {}
    build = None if pool else world.submit(timeout=300, ttl=TTL)
    first = world.node(reaps=False, skew=_skew(fault), pools=pools)
    if fault == "unheard":
        world.dice = lambda _node, point: point == "after cloud.create"
        world.run(60, until=lambda: first.dead)
        world.dice = None
    else:
        world.run(60, until=lambda: _settled(world, build, pool))
    machine = next(iter(world.ours()))
    if layer != "owner":
        first.kill()
    if fault == "lost":
        world.lose_ledger()
    machine.hung = fault == "guest"
    machine.protected = fault == "protected"
    if fault == "off":
        world.cloud.power_off(machine)
    return machine


def _settled(world: World, build: BuildRecord | None, pool: PoolKind | None) -> bool:
    if build is not None:
        return world.truth.builds.get(build.id).state is BuildState.RUNNING
    wanted = InstanceState.PARKED if pool is PoolKind.PARKED else InstanceState.READY
    return any(row.state is wanted for row in world.truth.instances.open())


def _skew(fault: str) -> float:
    return {"slow": -86_400.0, "fast": 86_400.0}.get(fault, 0.0)


def staffed(world: World, layer: str, fault: str) -> None:
    """Who else there is."""
    if layer in ("ledger", "sweep"):
        node = world.node(drives=False, sweeps=layer == "sweep", skew=_skew(fault))
        node.ledger_down = layer == "sweep"
    if layer == "guard":
        world.nodes.append(Guard(world))  # type: ignore[arg-type]


def lived(world: World, machine: FakeMachine, fault: str) -> None:
    """Until E, and past it for as long as G allows."""
    assert machine.order is not None
    end = machine.order.deadline
    if fault == "deletes":
        world.fail("delete", Fault.LOST_REQUEST, Fault.SERVER_ERROR)
    world.run(end - 30 - world.clock(), step=5.0)
    if fault == "outage":
        world.cloud.unreachable.add(SCOPE)
        world.run(OUTAGE, until=lambda: _out(world), step=2.0)
        world.cloud.unreachable.clear()
    if fault == "asleep":
        world.clock.advance(3600.0)
        for node in world.nodes:
            node.awake_since = world.clock()
    outside = world.cloud.arms or any(isinstance(node, Guard) for node in world.nodes)
    grace = OUTSIDE if outside else world.limits.limits.grace
    world.run(max(world.clock(), end) + grace + 2 - world.clock(), step=grace / 60)


def _out(world: World) -> bool:
    world.trouble = world.clock()
    return False


def tells(world: World, fault: str) -> bool:
    """Does the audit tell of it? Of what it cannot read, it tells that."""
    if fault == "outage":
        world.cloud.unreachable.add(SCOPE)
    limits, cloud = world.limits.limits, world.provider()
    if fault == "down":
        found = alone(world.truth.installation, limits, "fake", cloud)
    else:
        found = survivors(world.truth, limits, "fake", cloud)
    wanted = Wrong.UNREAD if fault == "outage" else Wrong.PAST_DEADLINE
    return wanted in {line.fault for line in found}


def holds(world: World, layer: str, fault: str, pool: PoolKind | None = None) -> bool:
    """Is this VM dead, or to die, within G of E, and its disk with it; or told of, where the layer
    only tells?"""
    machine = launched(world, layer, fault, pool)
    staffed(world, layer, fault)
    lived(world, machine, fault)
    if layer == "audit":
        return machine.alive and tells(world, fault)
    return not machine.alive


def make(make_world: Make, nature: str) -> World:
    """With the numbers of production."""
    world = make_world(limits=Limits(), pass_seconds=30, sweep_seconds=300)
    world.cloud.stop_disarms = nature in ("stops", "parked")
    return world


@pytest.mark.parametrize(("nature", "layer", "fault"), CELLS)
def test_each_layer_alone_keeps_promise_1(
    make_world: Make, nature: str, layer: str, fault: str
) -> None:
    assert holds(make(make_world, nature), layer, fault, NATURES[nature].pool)


@pytest.mark.parametrize("nature", NATURES)
@pytest.mark.parametrize("fault", FAULTS)
def test_without_any_layer_it_would_not(make_world: Make, nature: str, fault: str) -> None:
    if fault not in NATURES[nature].harmless:
        assert not holds(make(make_world, nature), "none", fault, NATURES[nature].pool)


def test_the_guard_removes_what_a_guests_timer_stopped(make_world: Make) -> None:
    """Where a poweroff only stops, and comes after the cloud's own deadline, which failed."""
    world = make(make_world, "stops")
    machine = launched(world, "none", "killed")
    assert machine.order is not None
    end = machine.order.deadline
    world.cloud.later(end + 300.0, lambda: world.cloud.power_off(machine))
    world.run(end + 299 - world.clock(), step=5)
    assert not machine.stopped
    world.run(5)
    assert machine.stopped
    assert machine.alive
    world.nodes.append(Guard(world))  # type: ignore[arg-type]
    world.run(end + OUTSIDE - world.clock(), step=5)
    assert not any(thing.alive for thing in (machine, *machine.children))


def matrix(nature: Nature, shown: Callable[[str, str], bool]) -> str:
    """As Markdown: what was shown, and where a layer does not count."""
    layers = {text: layer for text, layer in LAYERS.items() if layer not in nature.lacks}
    rows = ["| fault | " + " | ".join(layers) + " |", "|---" * (len(layers) + 1) + "|"]
    for fault, text in FAULTS.items():
        if fault in nature.harmless:
            continue
        cells = [
            "–"
            if fault in nature.never.get(layer, ())
            else ("tells" if layer == "audit" else "holds")
            if shown(layer, fault)
            else "FAILS"
            for layer in layers.values()
        ]
        rows.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


@pytest.mark.parametrize("nature", NATURES.values(), ids=NATURES)
def test_the_page_shows_this_matrix(nature: Nature) -> None:
    page = Path(__file__).parents[2] / "docs/guarantees.md"
    assert matrix(nature, lambda _layer, _fault: True) in page.read_text()


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="vmrunner-test-", dir="/dev/shm") as name:
        template = make_template(Path(name) / "template")
        for nature, rules in NATURES.items():

            def shown(layer: str, fault: str, nature: str = nature) -> bool:
                root = Path(tempfile.mkdtemp(dir=name))
                world = make(lambda **options: World(template, root, **options), nature)
                try:
                    return holds(world, layer, fault, NATURES[nature].pool)
                except AssertionError:
                    return False
                finally:
                    world.close()

            print(matrix(rules, shown), end="\n\n")


if __name__ == "__main__":
    main()
