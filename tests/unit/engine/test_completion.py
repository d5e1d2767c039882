"""How builds end: the verdict dooms the VM with it, and a lost attempt may be repeated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.engine_parts import EngineParts
from vmrunner.core.lifecycle import End
from vmrunner.core.scheduling import Refusal
from vmrunner.engine.completion import (
    LONGEST_REFUSED_WAIT,
    REFUSED_WAIT,
    WAIT_FORGOTTEN,
    BuildCompletion,
)
from vmrunner.errors import Fenced
from vmrunner.model import BuildState, Death, InstanceState, Reason, Result
from vmrunner.store.build_artifacts import directory_of

SUCCESS = End(result=Result.SUCCESS, reason=Reason.EXIT_CODE, exit_code=0)
FAILURE = End(result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=3)
LOST = End(result=Result.ERROR, reason=Reason.VM_LOST, message="the VM is gone", lost=True)
NO_OFFER = End(result=Result.ERROR, reason=Reason.NO_CAPACITY, message="none")


@pytest.fixture
def completion(parts: EngineParts) -> BuildCompletion:
    return BuildCompletion(parts.context)


def test_a_verdict_dooms_its_vm(parts: EngineParts, completion: BuildCompletion) -> None:
    dying = completion.verdict(*parts.running(), SUCCESS)
    build = parts.build()
    assert (build.result, build.exit_code) == (Result.SUCCESS, 0)
    assert dying is not None
    row = parts.ledger.instances.get(dying.id)
    assert (row.state, row.death) == (InstanceState.DELETING, Death.DONE)
    assert dying == row, "the tick goes on with what the ledger has"


def test_a_verdict_of_a_former_owner_is_refused(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, row = parts.running()
    parts.mark_deleting(row)
    with pytest.raises(Fenced):
        completion.verdict(build, row, SUCCESS)
    assert parts.build().state is BuildState.RUNNING


@pytest.mark.parametrize("hold", [None, 30.0])
def test_the_verdict_says_at_which_epoch_artifacts_were_brought(
    parts: EngineParts, completion: BuildCompletion, hold: float | None
) -> None:
    build, row = parts.running(keep_on_failure=hold)
    directory_of(parts.root, build.id, build.epoch).mkdir()
    completion.verdict(build, row, FAILURE)
    assert parts.build().collected == build.epoch


def test_artifacts_of_an_attempt_before_are_not_this_ones(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, row = parts.running()
    directory_of(parts.root, build.id, build.epoch - 1).mkdir()
    completion.verdict(build, row, SUCCESS)
    assert parts.build().collected is None


def test_a_failure_keeps_its_vm_as_long_as_was_asked(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    assert completion.verdict(*parts.running(keep_on_failure=30.0), FAILURE) is None
    build, row = parts.rows()
    assert (build.state, row.state) == (BuildState.HELD, InstanceState.HELD)
    assert build.hold_until == parts.clock() + 30


def test_a_hold_ends_at_the_deadline_at_the_latest(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    _, row = parts.running(keep_on_failure=1e6)
    completion.verdict(*parts.rows(), FAILURE)
    assert parts.build().hold_until == row.deadline


@pytest.mark.parametrize(
    "end", [SUCCESS, replace(FAILURE, result=Result.TIMEOUT, reason=Reason.DEADLINE)]
)
def test_only_a_failure_of_its_own_keeps_a_vm(
    parts: EngineParts, completion: BuildCompletion, end: End
) -> None:
    completion.verdict(*parts.running(keep_on_failure=30.0), end)
    assert parts.build().state is BuildState.FINISHED


def test_a_lost_attempt_dooms_its_vm_and_is_queued_again(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    completion.verdict(*parts.booting(), LOST)
    (row,) = parts.ledger.instances.list(build="b-1")
    assert (parts.build().state, row.state) == (BuildState.QUEUED, InstanceState.DELETING)
    assert parts.event_count("retry") == 1


@pytest.mark.parametrize(
    ("retry", "state"), [(False, BuildState.FINISHED), (True, BuildState.QUEUED)]
)
def test_steps_that_started_run_again_only_by_wish(
    parts: EngineParts, completion: BuildCompletion, retry: bool, state: BuildState
) -> None:
    completion.verdict(*parts.running(retry_on_loss=retry), LOST)
    assert parts.build().state is state


def test_a_cancelled_build_is_not_queued_again(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    _, row = parts.booting()
    parts.ledger.builds.request_cancel("b-1", Reason.USER, parts.clock())
    completion.verdict(parts.build(), row, LOST)
    assert parts.build().state is BuildState.FINISHED


def test_refused_builds_wait_only_where_a_queue_time_is_set(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    for name, patience in [("b-1", None), ("b-2", 600.0)]:
        build, _ = parts.booting(name, queue_timeout=patience)
        completion.refused(build, NO_OFFER)
    assert parts.build("b-1").reason is Reason.NO_CAPACITY
    assert parts.build("b-2").state is BuildState.QUEUED
    now = parts.clock()
    assert completion.refusals == {"b-2": Refusal(now + REFUSED_WAIT)}


def test_each_refusal_in_a_row_lengthens_the_pause(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, _ = parts.booting(queue_timeout=1e6)
    pauses = []
    for _ in range(6):
        completion.refused(build, NO_OFFER)
        pauses.append(completion.refusals["b-1"].until - parts.clock())
        (dying,) = parts.ledger.instances.list(build="b-1", active=True)
        parts.ledger.instances.close(
            dying.id, epoch=dying.epoch, death=Death.REFUSED, now=parts.clock()
        )
        build, _ = parts.launch()
    assert pauses == [15.0, 30.0, 60.0, 120.0, LONGEST_REFUSED_WAIT, LONGEST_REFUSED_WAIT]
    completion.given(build)
    assert build.attempt == 1  # none of them was one


def test_another_configuration_ends_the_pauses(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, _ = parts.booting(queue_timeout=1e6)
    completion.refused(build, NO_OFFER)
    completion.renew()
    assert completion.refusals["b-1"].until > parts.clock()
    parts.context.limits = replace(parts.context.limits, log_bytes=1)
    completion.renew()
    assert completion.refusals["b-1"].until == parts.clock()


def test_pauses_of_builds_that_ended_elsewhere_are_forgotten(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, _ = parts.booting(queue_timeout=1e6)
    completion.refused(build, NO_OFFER)
    parts.clock.advance(REFUSED_WAIT + WAIT_FORGOTTEN + 1)
    completion.renew()
    assert (completion.refusals, completion._waits) == ({}, {})


def test_a_held_build_whose_vm_dies_keeps_its_verdict(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    completion.verdict(*parts.running(keep_on_failure=30.0), FAILURE)
    parts.clock.advance(30)
    dying = parts.mark_deleting(parts.rows()[1])
    completion.dead(parts.build(), dying)
    build = parts.build()
    assert (build.state, build.exit_code) == (BuildState.FINISHED, 3)


def test_a_build_costs_what_all_its_vms_cost(
    parts: EngineParts, completion: BuildCompletion
) -> None:
    build, row = parts.booting()
    parts.clock.advance(1800)
    dying = completion.verdict(build, row, LOST)
    assert dying is not None
    parts.ledger.instances.close(row.id, epoch=dying.epoch, death=Death.DONE, now=parts.clock())
    parts.launch()
    parts.clock.advance(1800)
    completion.verdict(*parts.rows(), SUCCESS)
    cost = parts.build().cost
    assert cost.usd == pytest.approx(parts.provider.usd_hour)
    assert not cost.final  # its last VM may still be there
    row = parts.rows()[1]
    parts.clock.advance(1800)
    parts.ledger.instances.close(row.id, epoch=row.epoch, death=Death.DONE, now=parts.clock())
    cost = parts.build().cost
    assert (cost.usd, cost.final) == (pytest.approx(1.5 * parts.provider.usd_hour), True)
