from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.core.test_reap_rules import NOW, I, row
from tests.unit.core.test_scheduling import build
from vmrunner.core.lifecycle import (
    BUILD_NEXT,
    CANCEL_GRACE,
    INSTANCE_NEXT,
    End,
    InstanceSign,
    cancelled,
    early_death,
    end_of,
    end_of_container,
    end_of_sign,
    may_retry,
    sign,
)
from vmrunner.model import (
    Address,
    BuildRecord,
    BuildState,
    BuildUsage,
    ContainerEnd,
    Death,
    Instance,
    InstanceState,
    Kind,
    Limits,
    Power,
    Reason,
    Ref,
    Result,
    Seen,
)

REF = Ref(row().scope, Kind.INSTANCE, "i-1")


def running(state: BuildState = BuildState.RUNNING, **options) -> BuildRecord:
    made = replace(build("b-1"), state=state, instance="vm-1", attempt=1)
    return replace(made, **options)


def seen(power: Power, **options) -> Seen:
    return Seen(ref=REF, power=power, **options)


def test_every_instance_ends_gone_and_none_goes_back() -> None:
    """But what was parked: it is ready once more when it woke."""
    order = list(InstanceState)
    for state, successors in INSTANCE_NEXT.items():
        onward = successors - ({I.READY} if state is I.WAKING else set())
        assert all(order.index(to) > order.index(state) for to in onward)
        assert state is I.GONE or I.GONE in successors
        assert state not in successors


def test_every_build_can_finish() -> None:
    for state, successors in BUILD_NEXT.items():
        assert state is BuildState.FINISHED or BuildState.FINISHED in successors


@pytest.mark.parametrize(
    ("instance", "what", "means"),
    [
        (row(), None, InstanceSign.NOTHING),
        (row(state=I.DELETING), None, InstanceSign.NOTHING),
        (row(state=I.DELETING), seen(Power.DEAD), InstanceSign.DEAD),
        (row(state=I.DELETING), seen(Power.STOPPING), InstanceSign.NOTHING),
        (row(state=I.DELETING), seen(Power.STOPPED, self_ended=True), InstanceSign.NOTHING),
        (row(state=I.REQUESTED, ref=None), seen(Power.PENDING), InstanceSign.BORN),
        (row(state=I.REQUESTED, ref=None), seen(Power.DEAD), InstanceSign.LOST),
        (row(state=I.BOOTING), seen(Power.RUNNING), InstanceSign.NOTHING),
        (row(state=I.BOOTING), seen(Power.RUNNING, address=Address("h")), InstanceSign.REACHABLE),
        (row(state=I.BUSY), seen(Power.RUNNING, address=Address("h")), InstanceSign.NOTHING),
        (row(state=I.BUSY), seen(Power.DEAD, preempted=True), InstanceSign.PREEMPTED),
        (row(state=I.BUSY), seen(Power.DEAD, self_ended=True), InstanceSign.SELF_ENDED),
        (row(state=I.BUSY), seen(Power.STOPPED), InstanceSign.LOST),
        (row(state=I.BUSY), seen(Power.STOPPING), InstanceSign.LOST),
    ],
)
def test_what_a_look_means(instance: Instance, what: Seen | None, means: InstanceSign) -> None:
    assert sign(instance, what) is means


@pytest.mark.parametrize(
    ("of", "submitter", "death"),
    [
        (None, None, Death.DONE),
        (running(BuildState.FINISHED), None, Death.DONE),
        (running(instance="vm-2"), None, Death.DONE),
        (running(), None, None),
        (running(), True, None),
        (running(), False, Death.ABANDONED),
        (running(cancel=Reason.USER, cancelled_at=NOW - 1), None, None),
        (running(cancel=Reason.USER, cancelled_at=NOW - CANCEL_GRACE), None, Death.CANCELLED),
        (running(BuildState.HELD, hold_until=NOW + 1), None, None),
        (running(BuildState.HELD, hold_until=NOW), None, Death.DONE),
        (running(BuildState.HELD, hold_until=NOW + 1, cancel=Reason.USER), None, Death.DONE),
    ],
)
def test_who_wishes_it_to_end(
    of: BuildRecord | None, submitter: bool | None, death: Death | None
) -> None:
    assert early_death(of, row(), now=NOW, submitter=submitter) is death


def test_how_a_build_ends_with_its_vm() -> None:
    assert end_of(running(), Death.EXPIRED).reason is Reason.DEADLINE
    assert end_of(running(), Death.ABANDONED).reason is Reason.OWNER_GONE
    assert end_of(running(), Death.VANISHED).lost
    assert end_of(running(BuildState.BOOTING), Death.STUCK).reason is Reason.BOOT_FAILED
    cancelling = running(cancel=Reason.USER)
    assert all(end_of(cancelling, death).result is Result.CANCELLED for death in Death)
    assert cancelled(Reason.DEADLINE).result is Result.TIMEOUT


def test_a_lost_sandbox_did_not_have_its_time() -> None:
    """Its engine died between the early_death that its VM dies and another attempt."""
    plain = running(hold_until=NOW)
    ready = replace(plain, spec=replace(plain.spec, sandbox_ttl=60.0))
    assert end_of(ready, Death.DONE).reason is Reason.DEADLINE
    lost = end_of(ready, Death.DONE, "the cloud took the machine back")
    assert (lost.reason, lost.lost) == (Reason.VM_LOST, True)


def test_switching_the_guest_off_amid_steps_fails_the_build() -> None:
    busy = running(steps_started=True)
    assert end_of_sign(busy, InstanceSign.SELF_ENDED, expired=False).result is Result.FAILURE
    assert end_of_sign(busy, InstanceSign.SELF_ENDED, expired=True).reason is Reason.DEADLINE
    assert end_of_sign(busy, InstanceSign.PREEMPTED, expired=False).lost
    early = end_of_sign(running(BuildState.BOOTING), InstanceSign.SELF_ENDED, expired=False)
    assert (early.reason, early.lost) == (Reason.BOOT_FAILED, True)


@pytest.mark.parametrize(
    ("state", "what", "words"),
    [
        (BuildState.BOOTING, InstanceSign.LOST, "the VM ended before it was ready: no room"),
        (BuildState.RUNNING, InstanceSign.LOST, "the VM is gone: no room"),
        (BuildState.RUNNING, InstanceSign.PREEMPTED, "the cloud took the machine back: no room"),
    ],
)
def test_a_lost_vms_end_has_its_providers_words(
    state: BuildState, what: InstanceSign, words: str
) -> None:
    end = end_of_sign(running(state), what, expired=False, message="no room")
    assert (end.message, end.lost) == (words, True)
    bare = end_of_sign(running(state), what, expired=False)
    assert bare.message == words.partition(":")[0]


def test_a_vm_is_not_retried_where_none_would_be_better() -> None:
    for state, reason in (
        (BuildState.BOOTING, Reason.CREDENTIALS),
        (BuildState.RUNNING, Reason.VM_LOST),
    ):
        end = end_of_sign(
            running(state),
            InstanceSign.LOST,
            expired=False,
            message="why",
            unfit=Reason.CREDENTIALS,
        )
        assert (end.reason, end.lost) == (reason, state is BuildState.RUNNING)


def test_what_cannot_be_placed_is_unfit_before_it_is_up() -> None:
    unfit = seen(Power.PENDING, unfit=Reason.NO_CAPACITY)
    dead = seen(Power.DEAD, unfit=Reason.NO_CAPACITY)
    booting = row(state=I.BOOTING, ref=REF)
    assert [sign(booting, instance) for instance in (unfit, dead)] == [InstanceSign.UNFIT] * 2
    assert sign(row(state=I.BUSY, ref=REF), unfit) is InstanceSign.NOTHING
    assert sign(row(state=I.DELETING, ref=REF), unfit) is InstanceSign.NOTHING


@pytest.mark.parametrize(
    ("ended", "result", "reason", "code"),
    [
        (None, Result.ERROR, Reason.VM_LOST, None),
        (ContainerEnd(), Result.ERROR, Reason.VM_LOST, None),
        (ContainerEnd(exit_code=0), Result.ERROR, Reason.VM_LOST, None),
        (ContainerEnd(exit_code=7), Result.FAILURE, Reason.EXIT_CODE, 7),
        (ContainerEnd(exit_code=137), Result.FAILURE, Reason.SIGNAL, 137),
        (ContainerEnd(signal=9), Result.FAILURE, Reason.SIGNAL, 137),
        (
            ContainerEnd(exit_code=137, out_of_memory=True),
            Result.FAILURE,
            Reason.OUT_OF_MEMORY,
            137,
        ),
    ],
)
def test_a_container_without_a_word_ends_by_what_was_seen(
    ended: ContainerEnd | None, result: Result, reason: Reason, code: int | None
) -> None:
    usage = BuildUsage(cpu_seconds=3.0)
    end = End(result=Result.ERROR, reason=Reason.VM_LOST, container_gone=True, usage=usage)
    end = end_of_container(end, ended)
    assert (end.result, end.reason, end.exit_code) == (result, reason, code)
    assert end.lost is (reason is Reason.VM_LOST), "what nobody knows is no failure of the build"
    assert (end.usage, end.container_gone) == (usage, False)


def test_a_killed_step_lacked_memory_where_that_was_seen() -> None:
    killed = End(result=Result.FAILURE, reason=Reason.SIGNAL, exit_code=137)
    assert killed.asks_container
    for ended in (None, ContainerEnd(exit_code=137), ContainerEnd(exit_code=1)):
        assert end_of_container(killed, ended) is killed
    end = end_of_container(killed, ContainerEnd(exit_code=137, out_of_memory=True))
    assert (end.reason, end.exit_code) == (Reason.OUT_OF_MEMORY, 137)
    for other in (replace(killed, exit_code=143), replace(killed, reason=Reason.EXIT_CODE)):
        assert not other.asks_container


def test_retries_stop_at_the_first_step_or_longest_life() -> None:
    limits = Limits()
    ask = {"now": NOW, "limits": limits}
    assert may_retry(running(), NOW, **ask)
    assert not may_retry(running(steps_started=True), NOW, **ask)
    brave = replace(running().spec, retry_on_loss=True)
    assert may_retry(running(steps_started=True, spec=brave), NOW, **ask)
    assert not may_retry(running(), NOW - limits.max_ttl, **ask)
    assert not may_retry(running(attempt=3), NOW, **ask)
