"""Each layer of defence alone: all others are off, and promise 1 holds under every fault under
which the layer counts (design §6). `python -m tests.faults.test_layers` prints the matrix.

With the numbers of production. On a cloud, not on the fake, the guest's timer and the native
deadline are what the driver's own tests show."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.faults.world import World, make_template
from vmrunner.audit import Fault as Wrong
from vmrunner.auditing import alone, survivors
from vmrunner.model import BuildState, Limits
from vmrunner.providers.fake import SCOPE, Fault, Machine

Make = Callable[..., World]
TTL: Final = 600.0
OUTAGE: Final = 400.0
ARMED: Final = 600.0  # so long past E what was armed after birth ends the VM, on EC2
OUTSIDE: Final = 900.0  # G, when only what is outside vmrunner acts

LAYERS: Final = {
    "owner": "owner",
    "guest timer": "guest",
    "native deadline": "native",
    "armed after birth": "armed",
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
    "protected": "termination protection",
    "deletes": "deletes fail at first",
    "outage": "cloud out of reach at E",
    "asleep": "host suspended over E",
    "slow": "host clock a day slow",
    "fast": "host clock a day fast",
}
#: Where a layer does not count.
NOT: Final = {
    "owner": {"killed", "unheard", "lost", "down"},
    "guest": {"guest"},
    "native": set(),
    "armed": {"unheard", "protected"},
    "ledger": {"lost", "down"},
    "sweep": set(),
    "audit": set(),
}
CELLS: Final = [
    (layer, fault) for layer in LAYERS.values() for fault in FAULTS if fault not in NOT[layer]
]


def launched(world: World, layer: str, fault: str) -> Machine:
    """A VM whose build never ends; its engine lives on only where that is the layer."""
    world.build_seconds = 1e9
    world.cloud.guest_timer = layer == "guest"
    world.cloud.native_deadline = layer == "native"
    world.cloud.arms = ARMED if layer == "armed" else None
    build = world.submit(timeout=300, ttl=TTL)
    first = world.node(reaps=False, skew=_skew(fault))
    if fault == "unheard":
        world.dice = lambda _node, point: point == "after cloud.create"
        world.run(60, until=lambda: first.dead)
        world.dice = None
    else:
        world.run(60, until=lambda: world.truth.builds.get(build.id).state is BuildState.RUNNING)
    (machine,) = list(world.ours())
    if layer != "owner":
        first.kill()
    if fault == "lost":
        world.lose_ledger()
    machine.hung = fault == "guest"
    machine.protected = fault == "protected"
    return machine


def _skew(fault: str) -> float:
    return {"slow": -86_400.0, "fast": 86_400.0}.get(fault, 0.0)


def staffed(world: World, layer: str, fault: str) -> None:
    """Who else there is."""
    if layer in ("ledger", "sweep"):
        node = world.node(drives=False, sweeps=layer == "sweep", skew=_skew(fault))
        node.ledger_down = layer == "sweep"


def lived(world: World, machine: Machine, fault: str) -> None:
    """Until E, and past it for as long as G allows."""
    assert machine.order is not None
    end = machine.order.deadline
    if fault == "deletes":
        world.fail("delete", Fault.LOST_REQUEST, Fault.SERVER_ERROR)
    world.run(end - 30 - world.clock())
    if fault == "outage":
        world.cloud.unreachable.add(SCOPE)
        world.run(OUTAGE, until=lambda: _out(world))
        world.cloud.unreachable.clear()
    if fault == "asleep":
        world.clock.advance(3600.0)
        for node in world.nodes:
            node.born = world.clock()
    grace = OUTSIDE if world.cloud.arms else world.limits.limits.grace
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


def holds(world: World, layer: str, fault: str) -> bool:
    """Is this VM dead, or to die, within G of E; or told of, where the layer only tells?"""
    machine = launched(world, layer, fault)
    staffed(world, layer, fault)
    lived(world, machine, fault)
    if layer == "audit":
        return machine.alive and tells(world, fault)
    return not machine.alive


@pytest.mark.parametrize(("layer", "fault"), CELLS)
def test_each_layer_alone_keeps_promise_1(make_world: Make, layer: str, fault: str) -> None:
    assert holds(make_world(limits=Limits(), pass_seconds=30, sweep_seconds=300), layer, fault)


@pytest.mark.parametrize("fault", FAULTS)
def test_without_any_layer_it_would_not(make_world: Make, fault: str) -> None:
    world = make_world(limits=Limits(), pass_seconds=30, sweep_seconds=300)
    assert not holds(world, "none", fault)


def matrix(shown: Callable[[str, str], bool]) -> str:
    """As Markdown: what was shown, and where a layer does not count."""
    rows = ["| fault | " + " | ".join(LAYERS) + " |", "|---" * (len(LAYERS) + 1) + "|"]
    for fault, text in FAULTS.items():
        cells = [
            "–"
            if fault in NOT[layer]
            else ("tells" if layer == "audit" else "holds")
            if shown(layer, fault)
            else "FAILS"
            for layer in LAYERS.values()
        ]
        rows.append(f"| {text} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def test_the_page_shows_this_matrix() -> None:
    page = Path(__file__).parents[2] / "docs/guarantees.md"
    assert matrix(lambda _layer, _fault: True) in page.read_text()


def main() -> None:
    logging.disable()
    with tempfile.TemporaryDirectory(prefix="vmrunner-test-", dir="/dev/shm") as name:
        template = make_template(Path(name) / "template")

        def shown(layer: str, fault: str) -> bool:
            root = Path(tempfile.mkdtemp(dir=name))
            world = World(template, root, limits=Limits(), pass_seconds=30, sweep_seconds=300)
            try:
                return holds(world, layer, fault)
            except AssertionError:
                return False
            finally:
                world.close()

        print(matrix(shown))


if __name__ == "__main__":
    main()
