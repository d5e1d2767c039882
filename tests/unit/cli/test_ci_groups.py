"""Where the marks of steps stand in a log that a CI system folds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.core.test_scheduling import build
from vmrunner.cli.ci_groups import CiGroups
from vmrunner.model import BuildEvent, Step


@pytest.fixture(autouse=True)
def github(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")


def groups(events: list[tuple[str, int, int, int]], *titles: str) -> CiGroups:
    """Of events (kind, attempt, step, offset) that are all known."""

    def listed(_build: str, after: int) -> Iterator[BuildEvent]:
        for seq, (kind, attempt, step, offset) in enumerate(events, start=1):
            data = {"attempt": attempt, "step": step, "offset": offset}
            if seq > after:
                yield BuildEvent(seq=seq, time=seq, kind=kind, data=data)

    ledger: Any = SimpleNamespace(events=SimpleNamespace(list=listed))
    row = build("b-1")
    steps = tuple(Step(run=title) for title in titles)
    return CiGroups(ledger, replace(row, spec=replace(row.spec, steps=steps)))


def marks(found: list[str]) -> list[str]:
    return [line.strip().replace("::group::", "+").replace("::endgroup::", "-") for line in found]


def test_a_single_step_is_a_group_too() -> None:
    output = groups([("step_started", 1, 0, 0), ("step_ended", 1, 0, 5)], "make")
    assert marks(output.before(1, 5)) == ["+make"]
    assert marks(output.before(math.inf, math.inf)) == ["-"]


def test_each_attempt_has_its_own_groups_and_lost_ones_end() -> None:
    """Offsets begin anew with each attempt; what was lost never said that its step ended."""
    two = groups(
        [
            ("step_started", 1, 0, 0),
            ("step_ended", 1, 0, 100),
            ("step_started", 1, 1, 100),
            ("vm_lost", 1, 0, 0),
            ("step_started", 2, 0, 0),
            ("step_ended", 2, 0, 3),
            ("step_started", 2, 1, 3),
            ("step_ended", 2, 1, 9),
        ],
        "one",
        "two",
    )
    assert marks(two.before(1, 90)) == ["+one"]
    assert marks(two.before(1, 120)) == ["-", "+two"]
    assert marks(two.before(2, 2)) == ["-", "+one"]
    assert marks(two.before(2, 9)) == ["-", "+two"]
    assert marks(two.before(math.inf, math.inf)) == ["-"]


def test_what_comes_again_after_a_take_over_is_marked_once() -> None:
    again = [("step_started", 1, 0, 0), ("step_started", 1, 0, 0), ("step_ended", 1, 0, 4)]
    assert marks(groups(again, "one").before(math.inf, math.inf)) == ["+one", "-"]


def test_elsewhere_several_steps_are_told_beside_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS")
    two = groups(
        [
            ("step_started", 1, 0, 0),
            ("step_ended", 1, 0, 100),
            ("step_started", 1, 1, 100),
            ("step_ended", 1, 1, 120),
        ],
        "make",
        "make test",
    )
    assert two.talks
    assert two.before(1, 50) == ["step 1 of 2: make"]
    assert two.before(1, 100) == []
    assert two.before(1, 110) == ["step 2 of 2: make test"]
    assert two.before(math.inf, math.inf) == []
    output = groups([("step_started", 1, 0, 0)], "make")
    assert (output.talks, output.before(1, 5)) == (False, [])
