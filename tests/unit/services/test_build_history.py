"""What events say about a build's steps."""

from __future__ import annotations

from typing import Any

import pytest

from vmrunner.model import BuildEvent, BuildRecord, BuildSpec, BuildState, Reason, Result, Step
from vmrunner.services import build_history, documents

STEPS = (Step(name="unpack", run="tar x"), Step(name="slow", run="make", timeout=40.0))


def events(*pairs: tuple[str, dict[str, Any]]) -> list[BuildEvent]:
    return [
        BuildEvent(seq=n, time=100.0 + n, kind=kind, data=data)
        for n, (kind, data) in enumerate(pairs)
    ]


FIRST = (
    ("pulling", {}),
    ("container", {}),
    ("step_started", {"step": 0}),
    ("step_ended", {"step": 0, "exit_code": 0}),
    ("step_started", {"step": 1}),
)


def build(result: Result | None, reason: Reason | None = None) -> BuildRecord:
    state = BuildState.FINISHED if result else BuildState.RUNNING
    spec = BuildSpec(steps=STEPS, provider="p", container="debian:trixie", timeout=60, ttl=600)
    return BuildRecord(
        id="b-1", spec=spec, state=state, created_at=0, state_since=0, result=result, reason=reason
    )


@pytest.mark.parametrize(
    ("result", "reason", "code", "message"),
    [
        (Result.FAILURE, Reason.EXIT_CODE, 3, "step 'slow' ended with exit code 3"),
        (Result.TIMEOUT, Reason.STEP_TIMEOUT, None, "step 'slow' ran past its 40s"),
        (Result.TIMEOUT, Reason.STEP_TIMEOUT, 143, "step 'slow' ran past its 40s"),
        (
            Result.TIMEOUT,
            Reason.BUILD_TIMEOUT,
            None,
            "step 'slow' ran when the build's 1m were over",
        ),
        (Result.TIMEOUT, Reason.DEADLINE, None, "step 'slow' ran when its VM's time was over"),
        (Result.CANCELLED, Reason.USER, 143, "step 'slow' ran when the build was cancelled"),
        (Result.ERROR, Reason.VM_LOST, None, "step 'slow' did not come to its end"),
        (Result.SUCCESS, Reason.EXIT_CODE, 0, None),
        (None, None, 3, None),
    ],
)
def test_the_step_in_which_it_ended_is_named(result, reason, code, message) -> None:
    last = () if code is None else (("step_ended", {"step": 1, "exit_code": code}),)
    finished, history = build(result, reason), events(*FIRST, *last)
    culprit = build_history.culprit(finished, history)
    assert (culprit and build_history.describe(finished, culprit)) == message


def test_before_any_step_there_is_none_to_name() -> None:
    assert (
        build_history.culprit(build(Result.ERROR, Reason.BOOT_FAILED), events(("pulling", {})))
        is None
    )
    done = events(*FIRST[:4])
    assert build_history.culprit(build(Result.ERROR, Reason.CONNECTION_LOST), done) is None


def test_each_attempt_tells_each_step_once() -> None:
    twice = (*FIRST, *FIRST, ("retry", {}), *FIRST, ("step_ended", {"step": 1, "exit_code": 7}))
    history = events(*twice)
    runs = build_history.runs(history)
    assert [(r.attempt, r.index, r.exit_code) for r in runs] == [
        (1, None, None), (1, 0, 0), (1, 1, None), (2, None, None), (2, 0, 0), (2, 1, 7),
    ]  # fmt: skip
    document = documents.ended_document(build(Result.FAILURE, Reason.EXIT_CODE), history)
    assert [(step["name"], step["exit_code"]) for step in document["steps"]] == [
        ("unpack", 0),
        ("slow", 7),
    ]
    assert document["failed_step"] == "slow"
