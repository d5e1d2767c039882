"""kill -9 before and after every effect of every scenario, or sleep there for an hour; and what the
next process makes of it. A first run counts the places. Every change tries each of them, and one of
the five further sequels at each; VMRUNNER_FAULTS=all (`make faults FAULTS=all`) tries all.

`python -m tests.faults.test_points` prints how many there are."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.crash_points import (
    at_point,
    crash_points,
    crashed,
    finish_elsewhere,
    nothing_of_ours,
)
from tests.faults.node import Node
from tests.faults.scenarios import SCENARIOS, Scenario, begin
from tests.faults.seams import EFFECTS
from tests.faults.world import TTL, World, make_template
from vmrunner.model import BuildRecord
from vmrunner.providers.fake import Fault, Plan

Make = Callable[..., World]
HOUR = 3600.0
ALL = os.environ.get("VMRUNNER_FAULTS") == "all"
KINDS = (Fault.LOST_REQUEST, Fault.LOST_RESPONSE, Fault.SERVER_ERROR, Fault.THROTTLE)

SEQUELS = ("fault", "silence", "lost ledger", "sleeper", "all asleep")


def sampled(make_world: Make, scenario: Scenario, sequel: str) -> list[tuple[int, str]]:
    """The places that are tried with this sequel, by number."""
    turn = SEQUELS.index(sequel)
    return [
        (at, place)
        for at, place in enumerate(crash_points(make_world, scenario))
        if ALL or (at + turn) % len(SEQUELS) == 0
    ]


each_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@each_scenario
def test_a_crash_at_any_place_loses_doubles_and_leaves_nothing(
    make_world: Make, scenario: Scenario
) -> None:
    """Promises 1 to 5 and 7: another process goes on at once."""
    for at, place in enumerate(crash_points(make_world, scenario)):
        with at_point(place):
            finish_elsewhere(*_for(crashed(make_world, scenario, at), scenario))


@each_scenario
def test_a_crash_and_then_a_fault_of_the_cloud(make_world: Make, scenario: Scenario) -> None:
    """The next call of whoever goes on fails as well: each kind in turn, or with
    VMRUNNER_FAULTS=all every kind, and every pair of kinds, at every place."""
    kinds = [(kind,) for kind in KINDS]
    for at, place in sampled(make_world, scenario, "fault"):
        chosen = list(itertools.chain(kinds, itertools.product(KINDS, KINDS)))
        if not ALL:
            chosen = [kinds[at % len(kinds)]]
        for faults in chosen:
            with at_point(f"{place}, {faults}"):
                world, build = crashed(make_world, scenario, at)
                world.next_call = [Plan(fault) for fault in faults]
                finish_elsewhere(world, scenario, build)


@each_scenario
def test_a_crash_and_a_long_silence(make_world: Make, scenario: Scenario) -> None:
    """All are away until long past every deadline: what is left then dies within G."""
    for at, place in sampled(make_world, scenario, "silence"):
        with at_point(place):
            world, build = crashed(make_world, scenario, at)
            world.clock.advance(1000)
            finish_elsewhere(world, scenario, build, strict=False)


@each_scenario
def test_a_crash_and_the_ledger_is_lost(make_world: Make, scenario: Scenario) -> None:
    """Nothing dies before its deadline, and nothing lives past it."""
    for at, place in sampled(make_world, scenario, "lost ledger"):
        with at_point(place):
            world, _ = crashed(make_world, scenario, at)
            world.lose_ledger()
            world.node()
            nothing_of_ours(world)
            world.close()


@each_scenario
def test_a_process_sleeps_anywhere_and_wakes_after_an_hour(
    make_world: Make, scenario: Scenario
) -> None:
    """Another host goes on meanwhile; what the sleeper does when it wakes changes nothing."""
    step = 30.0 if scenario.stores else 1.0  # it waits for a log that the sleeper holds

    def meanwhile(sleeper: Node) -> None:
        world = sleeper.world
        other = world.node(far=True, stores=sleeper.stores)
        world.run(HOUR, until=lambda: world.quiet() and other.engine.idle, step=step)
        world.clock.advance(HOUR)

    for at, place in sampled(make_world, scenario, "sleeper"):
        with at_point(place):
            world = make_world(many_hosts=True)
            build, node = begin(world, scenario, sleep_at=at, sleep=meanwhile)
            world.run(3 * HOUR, until=lambda node=node, at=at: len(node.points) > at)
            world.run(5)
            finish_elsewhere(world, scenario, build, strict=False)


@each_scenario
def test_everything_sleeps_for_an_hour(make_world: Make, scenario: Scenario) -> None:
    """The host is suspended, or the only process is: when it wakes, it is long past E."""
    for at, place in sampled(make_world, scenario, "all asleep"):
        with at_point(place):
            world = make_world()
            build, _ = begin(
                world, scenario, sleep_at=at, sleep=lambda node: node.world.clock.advance(HOUR)
            )
            world.run(TTL + 100, until=world.quiet)
            finish_elsewhere(world, scenario, build, strict=False)


def _for(
    made: tuple[World, BuildRecord], scenario: Scenario
) -> tuple[World, Scenario, BuildRecord]:
    return made[0], scenario, made[1]


def test_the_page_tells_these_counts(make_world: Make) -> None:
    page = (Path(__file__).parents[2] / "docs/guarantees.md").read_text()
    total = sum(len(crash_points(make_world, scenario)) for scenario in SCENARIOS)
    assert f"Every effect of {len(SCENARIOS)} scenarios" in page
    assert f"before and after: {total} places" in page


def main() -> None:
    """Count the places."""
    with tempfile.TemporaryDirectory(prefix="vmrunner-test-", dir="/dev/shm") as name:
        template = make_template(Path(name) / "template")
        total = 0

        def make(**options: Any) -> World:
            root = Path(tempfile.mkdtemp(dir=name))
            return World(template, root, **options)

        for scenario in SCENARIOS:
            count = len(crash_points(make, scenario))
            total += count
            print(f"{scenario.name:<20} {count:4}")
        print(f"{'places':<20} {total:4}")


if __name__ == "__main__":
    main()


def test_each_effect_is_one_that_the_ledger_has(make_world: Make) -> None:
    """One that was renamed would be no place any more, without a word."""
    ledger = make_world().truth
    missing = {
        f"{part}.{name}"
        for part, names in EFFECTS.items()
        for name in names
        if not hasattr(getattr(ledger, part), name)
    }
    assert missing == set()
