"""Builds in the ledger: submitted once, found, moved by their owner alone."""

from __future__ import annotations

import pytest

from tests.support.ledger_builds import PROCESS, launch, ref, running, spec, submitted
from vmrunner.errors import Conflict, Fenced, NotFound
from vmrunner.ledger import Ledger
from vmrunner.ledger.build_listing import BuildChoice, BuildPage
from vmrunner.model import (
    BuildState,
    BuildUsage,
    Death,
    Instance,
    InstanceState,
    Phase,
    Reason,
    Result,
)

S = BuildState


def test_what_is_submitted_comes_back_the_same(ledger: Ledger) -> None:
    wanted = spec(labels={"team": "core", "x": "ü"}, name="nightly", env={"K": "'\"$\n"})
    build, created = ledger.builds.submit(
        wanted, id="b-1", now=10.5, submitter=PROCESS, secrets={"TOKEN": b"\x00\xffhunter2"}
    )
    assert created
    assert build == ledger.builds.get("b-1")
    assert (build.spec, build.submitter, build.state) == (wanted, PROCESS, S.QUEUED)
    assert build.phases == (Phase(state=S.QUEUED, started=10.5),)
    assert ledger.builds.secrets("b-1") == {"TOKEN": b"\x00\xffhunter2"}


def test_the_same_key_is_the_same_build(ledger: Ledger) -> None:
    wanted = spec(idempotency_key="k")
    first, created = ledger.builds.submit(wanted, id="b-1", now=1.0)
    again, created_again = ledger.builds.submit(wanted, id="b-2", now=2.0)
    assert (created, created_again, again) == (True, False, first)
    with pytest.raises(Conflict, match=r"other parameters: timeout, labels"):
        ledger.builds.submit(
            spec(idempotency_key="k", timeout=61.0, labels={"a": "b"}), id="b-3", now=3.0
        )
    assert [b.id for b in ledger.builds.list()] == ["b-1"]


@pytest.mark.parametrize("result", list(Result))
def test_the_key_of_a_build_we_lost_may_be_retried(ledger: Ledger, result: Result) -> None:
    wanted = spec(idempotency_key="k")
    first, _ = ledger.builds.submit(wanted, id="b-1", now=1.0)
    ledger.builds.finish("b-1", epoch=0, result=result, reason=Reason.INTERNAL, now=2.0)
    lost = result is Result.ERROR
    assert (ledger.builds.same(wanted) is None) == lost
    again, created = ledger.builds.submit(wanted, id="b-2", now=3.0)
    assert (created, again.id) == (lost, "b-2" if lost else "b-1")
    assert ledger.builds.get("b-1").spec == first.spec
    assert ledger.builds.submit(wanted, id="b-3", now=4.0) == (again, False)


def test_without_a_key_every_submission_is_a_build(ledger: Ledger) -> None:
    submitted(ledger, "b-1")
    submitted(ledger, "b-2")
    with pytest.raises(Conflict):
        submitted(ledger, "b-2")
    assert [b.id for b in ledger.builds.list()] == ["b-2", "b-1"]


def test_find_by_id_name_and_prefix(ledger: Ledger) -> None:
    for name in ("b-01aa", "b-01ab", "b-02"):
        submitted(ledger, name, name="nightly" if name != "b-02" else "")
    find = ledger.builds.find
    assert find("b-01aa").id == find("01aa").id == "b-01aa"
    assert find("b-02").id == find("02").id == find("b-0" + "2").id == "b-02"
    assert find("nightly").id == "b-01ab"  # the newest
    with pytest.raises(Conflict, match="b-01aa, b-01ab"):
        find("b-01")
    for word in ("b-03", "03", "", "%", "B-01AA"):
        with pytest.raises(NotFound):
            find(word)


def test_an_id_that_is_the_beginning_of_another_is_found(ledger: Ledger) -> None:
    for name in ("b-1", "b-11", "b-12", "b-13", "b-14", "b-15"):
        submitted(ledger, name)
    assert ledger.builds.find("b-1").id == "b-1"
    assert ledger.builds.find("1").id == "b-1"


def test_list_filters_by_activity_and_labels(ledger: Ledger) -> None:
    submitted(ledger, "b-1", labels={"team": "core", "k": "v"})
    submitted(ledger, "b-2", labels={"team": "core"})
    submitted(ledger, "b-3", labels={"team": "web"})
    ledger.builds.finish("b-2", epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=11.0)
    names = lambda **how: [b.id for b in ledger.builds.list(**how)]  # noqa: E731
    assert names() == ["b-3", "b-2", "b-1"]
    assert names(limit=2) == ["b-3", "b-2"]
    assert names(active=True) == ["b-3", "b-1"]
    assert names(active=False) == ["b-2"]
    assert names(labels={"team": "core"}) == ["b-2", "b-1"]
    assert names(labels={"team": "core", "k": "v"}) == ["b-1"]
    assert names(labels={"team": "core", "k": "w"}) == []


def test_the_queue_is_by_priority_then_age(ledger: Ledger) -> None:
    for n, priority in enumerate((0, 5, 0, 5), start=1):
        ledger.builds.submit(spec(priority=priority), id=f"b-{n}", now=float(n))
    assert [b.id for b in ledger.builds.queued()] == ["b-2", "b-4", "b-1", "b-3"]
    assert [b.id for b in ledger.builds.queued(2)] == ["b-2", "b-4"]
    ledger.instances.start([launch(ledger, "b-2", "vm-1")], until=200.0)
    assert [b.id for b in ledger.builds.queued()] == ["b-4", "b-1", "b-3"]


def test_phases_are_contiguous_and_events_have_no_gap(ledger: Ledger) -> None:
    running(ledger)
    ledger.builds.advance("b-1", epoch=1, to=S.COLLECTING, now=105.0)
    build, _ = ledger.builds.finish(
        "b-1", epoch=1, result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=7, now=106.0,
        message="no",
    )  # fmt: skip
    assert [p.state for p in build.phases] == [
        S.QUEUED, S.PROVISIONING, S.BOOTING, S.CONNECTING, S.PREPARING, S.RUNNING, S.COLLECTING,
    ]  # fmt: skip
    assert all(a.ended == b.started for a, b in zip(build.phases, build.phases[1:], strict=False))
    assert build.phases[-1].ended == build.finished_at == 106.0
    assert (build.result, build.reason, build.exit_code) == (
        Result.FAILURE, Reason.EXIT_CODE, 7,
    )  # fmt: skip
    assert (build.message, build.owner) == ("no", None)
    events = ledger.events.list("b-1")
    assert [e.seq for e in events] == list(range(1, 8))
    assert events[-1].data == {"state": "finished", "result": "failure", "reason": "exit_code"}
    assert ledger.events.list("b-1", after=6) == events[6:]


def test_a_move_moves_the_instance_in_the_same_transaction(ledger: Ledger) -> None:
    running(ledger)
    assert ledger.instances.get("vm-1").state is InstanceState.BUSY
    with pytest.raises(Conflict):  # the build may go on, the instance may not go back
        ledger.builds.advance(
            "b-1", epoch=1, to=S.COLLECTING, now=105.0, instance_to=InstanceState.READY
        )
    assert ledger.builds.get("b-1").state is S.RUNNING


def test_a_move_may_be_said_twice_but_never_backwards(ledger: Ledger) -> None:
    build = running(ledger)
    again = ledger.builds.advance(
        "b-1", epoch=1, to=S.RUNNING, now=120.0, instance_to=InstanceState.BUSY
    )
    assert again == build
    with pytest.raises(Conflict, match="it cannot become connecting"):
        ledger.builds.advance("b-1", epoch=1, to=S.CONNECTING, now=121.0)
    with pytest.raises(NotFound):
        ledger.builds.advance("b-9", epoch=1, to=S.CONNECTING, now=121.0)


def test_steps_start_once_per_attempt(ledger: Ledger) -> None:
    running(ledger)
    assert ledger.builds.steps_started("b-1", epoch=1) is True
    assert ledger.builds.steps_started("b-1", epoch=1) is False
    assert ledger.builds.get("b-1").steps_started
    with pytest.raises(Fenced):
        ledger.builds.steps_started("b-1", epoch=0)


def test_a_take_over_fences_the_former_owner(ledger: Ledger) -> None:
    running(ledger)
    build = ledger.builds.take_over("b-1", seen_epoch=1, owner="e-2", until=300.0, now=105.0)
    assert build is not None
    assert (build.epoch, build.owner, build.owner_until) == (2, "e-2", 300.0)
    instance = ledger.instances.get("vm-1")
    assert (instance.epoch, instance.owner) == (2, "e-2")
    late = {"epoch": 1, "now": 106.0}
    verdict = {"result": Result.SUCCESS, "reason": Reason.EXIT_CODE}
    for write in (
        lambda: ledger.builds.advance("b-1", to=S.COLLECTING, **late),
        lambda: ledger.builds.advance("b-1", to=S.RUNNING, **late),
        lambda: ledger.builds.finish("b-1", **verdict, **late),
        lambda: ledger.builds.hold("b-1", hold_until=1.0, **verdict, **late),
        lambda: ledger.builds.requeue("b-1", **late),
        lambda: ledger.builds.steps_started("b-1", epoch=1),
        lambda: ledger.logs.append("b-1", 1, 1, offset=1, data=b"x", now=106.0),
    ):
        with pytest.raises(Fenced):
            write()
    assert ledger.builds.get("b-1") == build
    assert ledger.builds.take_over("b-1", seen_epoch=1, owner="e-3", until=1.0, now=1.0) is None


def test_only_what_runs_can_be_taken_over(ledger: Ledger) -> None:
    submitted(ledger)
    take = lambda e: ledger.builds.take_over(  # noqa: E731
        "b-1", seen_epoch=e, owner="e-2", until=1.0, now=1.0
    )
    assert take(0) is None
    ledger.builds.finish("b-1", epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=1.0)
    assert take(0) is None


def test_the_first_wish_to_end_stands_without_an_epoch(ledger: Ledger) -> None:
    running(ledger)
    build = ledger.builds.request_cancel("b-1", Reason.USER, 105.0)
    assert (build.cancel, build.cancelled_at, build.epoch) == (Reason.USER, 105.0, 1)
    assert ledger.builds.request_cancel("b-1", Reason.OWNER_GONE, 106.0) == build
    ledger.builds.finish("b-1", epoch=1, result=Result.CANCELLED, reason=Reason.USER, now=107.0)
    submitted(ledger, "b-2")
    done, _ = ledger.builds.finish(
        "b-2", epoch=0, result=Result.CANCELLED, reason=Reason.USER, now=107.0
    )
    assert ledger.builds.request_cancel("b-2", Reason.USER, 108.0) == done
    with pytest.raises(NotFound):
        ledger.builds.request_cancel("b-9", Reason.USER, 108.0)


def test_a_hold_ends_at_the_deadline_at_the_latest(ledger: Ledger) -> None:
    running(ledger)
    ledger.builds.advance("b-1", epoch=1, to=S.COLLECTING, now=105.0)
    held = ledger.builds.hold(
        "b-1", epoch=1, result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=3, now=106.0,
        hold_until=150.0, usage=BuildUsage(cpu_seconds=1.5),
    )  # fmt: skip
    assert (held.state, held.hold_until, held.exit_code) == (S.HELD, 150.0, 3)
    assert held.submitter is None
    assert ledger.instances.get("vm-1").state is InstanceState.HELD
    # By so much, whatever the time is where the wish comes from: a wrong clock there must neither
    # end the hold nor stretch it.
    assert ledger.builds.extend("b-1", 4.0, 153.0).hold_until == 154.0
    assert ledger.builds.extend("b-1", 6.0, 0.0).hold_until == 160.0
    with pytest.raises(Conflict, match="ended 15 s ago: 10 s more are over too"):
        ledger.builds.extend("b-1", 10.0, 175.0)
    assert ledger.builds.get("b-1").hold_until == 160.0
    assert ledger.builds.extend("b-1", 900.0, 175.0).hold_until == 200.0  # E
    with pytest.raises(Conflict, match="past its deadline"):
        ledger.builds.extend("b-1", 900.0, 200.0)
    assert ledger.instances.get("vm-1").deadline == 200.0
    end, _ = ledger.builds.finish(
        "b-1", epoch=1, result=Result.ERROR, reason=Reason.INTERNAL, now=201.0
    )
    assert (end.result, end.reason, end.exit_code) == (Result.FAILURE, Reason.EXIT_CODE, 3)
    assert end.usage == BuildUsage(cpu_seconds=1.5)
    with pytest.raises(Conflict, match="not held"):
        ledger.builds.extend("b-1", 60.0, 202.0)


def test_extending_a_hold_and_ending_it_exclude_each_other(
    ledger: Ledger,
) -> None:
    running(ledger)
    ledger.builds.advance("b-1", epoch=1, to=S.COLLECTING, now=105.0)
    ledger.builds.hold(
        "b-1", epoch=1, result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=3, now=106.0,
        hold_until=110.0,
    )  # fmt: skip
    # Somebody saw that it was over, and before they say so it is extended.
    ledger.builds.extend("b-1", 10.0, 111.0)

    def over(now: float) -> Instance | None:
        return ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=now)

    assert over(111.0) is None
    assert ledger.instances.get("vm-1").state is InstanceState.HELD
    # The other way round, whoever extends it must not believe that it lives.
    assert over(121.0) is not None
    with pytest.raises(Conflict, match="its VM is being deleted"):
        ledger.builds.extend("b-1", 60.0, 122.0)


def test_a_retry_is_another_attempt_on_another_instance(ledger: Ledger) -> None:
    running(ledger)
    dying = ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=105.0)
    assert dying is not None
    build = ledger.builds.requeue("b-1", epoch=dying.epoch, now=106.0)
    assert (build.state, build.instance, build.owner) == (S.QUEUED, None, None)
    assert not build.steps_started
    new = launch(ledger, "b-1", "vm-2", seen_epoch=build.epoch, now=107.0)
    ((build, instance),) = ledger.instances.start([new], until=300.0)
    assert (build.attempt, instance.attempt, build.instance) == (2, 2, "vm-2")
    assert build.epoch == instance.epoch
    assert {i.id: i.state for i in ledger.instances.open()} == {
        "vm-1": InstanceState.DELETING,
        "vm-2": InstanceState.REQUESTED,
    }


def test_a_build_with_a_live_instance_is_not_started_again(ledger: Ledger) -> None:
    """Promise 3, no double: even when an engine forgets to doom the lost instance."""
    running(ledger)
    build = ledger.builds.requeue("b-1", epoch=1, now=106.0)
    new = launch(ledger, "b-1", "vm-2", seen_epoch=build.epoch)
    assert ledger.instances.start([new], until=300.0) == []
    ledger.instances.mark_deleting("vm-1", seen_epoch=1, death=Death.DONE, now=107.0)
    assert ledger.builds.get("b-1").epoch == build.epoch  # no longer the build's instance
    assert len(ledger.instances.start([new], until=300.0)) == 1
    assert ledger.instances.record([("vm-2", build.epoch + 1, ref("i-2"))], 108.0) == {"vm-2"}


def test_pages_have_all_builds_and_few_bytes(ledger: Ledger) -> None:
    for n in range(6):
        submitted(ledger, f"b-{n}", labels={"k": "v"} if n != 4 else {})

    def pages(limit: int, size: int) -> list[list[str]]:
        found, before = [], None
        while before is not None or not found:
            choice = BuildChoice(labels={"k": "v"}, before=before)
            page = ledger.builds.page(choice, limit, size)
            found.append([build.id for build in page.builds])
            before = page.next
        return found

    assert pages(2, 1 << 20) == [["b-5", "b-3"], ["b-2", "b-1"], ["b-0"]]
    assert pages(5, 1 << 20) == [["b-5", "b-3", "b-2", "b-1", "b-0"]]
    assert pages(5, 1) == [["b-5"], ["b-3"], ["b-2"], ["b-1"], ["b-0"]]
    assert ledger.builds.page(BuildChoice(before="b-0"), 5, 1) == BuildPage()
