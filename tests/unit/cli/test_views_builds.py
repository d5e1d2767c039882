"""What `show` tells of a build."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vmrunner.cli.views import builds
from vmrunner.model import BuildEvent, BuildRecord, BuildSpec, BuildState, Start, Step

Told = tuple[float, str, dict[str, int]]
BUILD = BuildRecord(
    id="b-1",
    state=BuildState.RUNNING,
    spec=BuildSpec(
        steps=(Step(run="make"), Step(run="make test")),
        container="debian:trixie",
        provider="p",
        timeout=60,
        ttl=120,
    ),
    created_at=0,
    state_since=0,
)


def shown(*events: Told) -> list[str]:
    made = [
        BuildEvent(seq=n, time=at, kind=kind, data=data)
        for n, (at, kind, data) in enumerate(events)
    ]
    return [" ".join(line.split()) for line in builds.steps(BUILD, made)]


FIRST: tuple[Told, ...] = (
    (10.0, "pulling", {}),
    (13.0, "container", {}),
    (13.0, "step_started", {"step": 0}),
    (17.0, "step_ended", {"step": 0, "exit_code": 0}),
    (17.0, "step_started", {"step": 1}),
)


def test_steps_are_told_with_what_they_took() -> None:
    assert shown(*FIRST) == ["3.0s pulled debian:trixie", "4.0s exit 0 make"]


def test_after_a_take_over_each_step_is_told_once() -> None:
    again = [(at + 100, kind, data) for at, kind, data in FIRST]
    end = (118.0, "step_ended", {"step": 1, "exit_code": 2})
    assert shown(*FIRST, *again, end, end) == [
        "3.0s pulled debian:trixie",
        "4.0s exit 0 make",
        "1m41s exit 2 make test",
    ]


def test_each_attempt_has_its_own() -> None:
    retry: Told = (50.0, "retry", {})
    assert shown(*FIRST, retry, *FIRST)[2:] == shown(*FIRST)


@pytest.mark.parametrize(
    ("how", "docker", "kinds", "text"),
    [
        (None, True, (), ""),
        (Start.COLD, True, ("pulling",), "cold"),
        (Start.RESUMED, False, ("step_started",), "resumed"),
        (Start.RESUMED, True, (), "resumed, in a fresh container"),
        (Start.RESUMED, False, ("pulling",), "resumed, in a fresh container"),
    ],
)
def test_a_fresh_container_in_a_clone_is_told(
    how: Start | None, docker: bool, kinds: tuple[str, ...], text: str
) -> None:
    build = replace(BUILD, spec=replace(BUILD.spec, docker=docker))
    events = [BuildEvent(seq=1, time=1.0, kind=kind, data={}) for kind in kinds]
    assert builds.start_text(build, how, events) == text
